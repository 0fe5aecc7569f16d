"""Kinto's cache in PostgreSQL: ``kinto.cache_backend = pyramid_kvs.kinto.postgresql``."""

from __future__ import annotations

import re

from pyramid.config import Configurator

from .backend import Cache
from .options import POOL, build, read, read_required

#: A table that no other program uses: without a prefix, ``flush`` empties it.
TABLE = "kinto_cache"


def load_from_config(config: Configurator) -> Cache:
    """Return the backend that Kinto's settings describe; it connects on first use.

    :raises ConfigurationError: ``cache_url`` is missing, or a setting is not valid.
    """
    url = read_required(config, "cache_url", "postgresql://user:password@localhost:5432/kinto")
    pool = read(config, *POOL, "cache_pool_recycle")
    driver = build(config, "postgresql", "cache_url", url=plain(url), table=TABLE, **pool)
    return Cache(driver)


def plain(url: str) -> str:
    """Return the URL without SQLAlchemy's driver name, as in ``postgresql+psycopg2://``."""
    return re.sub(r"\A(postgres(?:ql)?)\+\w+://", r"\1://", url)

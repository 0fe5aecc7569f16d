"""Kinto's cache in redis: ``kinto.cache_backend = pyramid_kvs.kinto.redis``."""

from __future__ import annotations

from pyramid.config import Configurator

from .backend import Cache
from .options import build, read_pool, read_required


def load_from_config(config: Configurator) -> Cache:
    """Return the backend that Kinto's settings describe; it connects on first use.

    :raises ConfigurationError: ``cache_url`` is missing, or a setting is not valid.
    """
    url = read_required(config, "cache_url", "redis://localhost:6379/1")
    return Cache(build(config, "redis", "cache_url", url=url, **read_pool(config)))

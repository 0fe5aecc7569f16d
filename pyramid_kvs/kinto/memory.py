"""Kinto's cache in the process: ``kinto.cache_backend = pyramid_kvs.kinto.memory``."""

from __future__ import annotations

from pyramid.config import Configurator

from ..processes import ProcessWatch
from .backend import Cache
from .options import build, read

#: The default that Kinto documents.
MAX_BYTES = 524288


def load_from_config(config: Configurator) -> Cache:
    """Return the backend that Kinto's settings describe.

    All backends of a process share one store, which has the size of the first backend. If the
    environment or the command line sets several processes, a warning is logged.

    :raises ConfigurationError: a setting is not valid.
    """
    max_bytes = read(config, "cache_max_size_bytes").get("max_size_bytes", MAX_BYTES)
    driver = build(
        config, "memory", "cache_max_size_bytes", name="pyramid_kvs.kinto", max_bytes=max_bytes
    )
    ProcessWatch([f"{__name__} (cache_backend)"])
    return Cache(driver)

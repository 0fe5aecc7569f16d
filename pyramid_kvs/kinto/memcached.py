"""Kinto's cache in memcached: ``kinto.cache_backend = pyramid_kvs.kinto.memcached``."""

from __future__ import annotations

import math
import time
from typing import Any

from pyramid.config import Configurator

from .backend import Cache
from .options import build, read_pool, read_required


class MemcachedCache(Cache):
    """A cache that Kinto's own memcached backend can share.

    The entries are ``{"value": value, "ttl": time of expiry}``. Only Kinto's own backend reads the
    time. Here memcached itself knows it.
    """

    def _to_store(self, value: Any, ttl: float) -> Any:
        return {"value": value, "ttl": math.ceil(time.time() + ttl)}

    def _from_store(self, stored: Any) -> Any:
        is_entry = isinstance(stored, dict) and stored.keys() == {"value", "ttl"}
        return stored["value"] if is_entry else stored


def load_from_config(config: Configurator) -> MemcachedCache:
    """Return the backend that Kinto's settings describe; it connects on first use.

    :raises ConfigurationError: ``cache_hosts`` is missing, or a setting is not valid.
    """
    servers = read_required(config, "cache_hosts", "127.0.0.1:11211")
    driver = build(config, "memcache", "cache_hosts", servers=servers, **read_pool(config))
    return MemcachedCache(driver)

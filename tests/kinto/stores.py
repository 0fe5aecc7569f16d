"""Kinto's cache backends of this library, on the servers of ``tests/servers.py``."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from pyramid.config import Configurator

from tests.servers import MemcachedServer, PostgresServer, RedisServer, Server

# All test modules import this one. Kinto's dependencies stay out of the other tests' environment.
kinto = pytest.importorskip(
    "kinto", reason="Kinto's tests have a separate environment: tests/kinto/run"
)
CacheBase = pytest.importorskip("kinto.core.cache").CacheBase
BackendError = pytest.importorskip("kinto.core.storage.exceptions").BackendError
kintos_memcached = pytest.importorskip("kinto.core.cache.memcached")

SERVED = ["redis", "memcached", "postgresql"]
NAMES = [*SERVED, "memory"]
KINDS: dict[str, type[Server]] = {
    "redis": RedisServer,
    "memcached": MemcachedServer,
    "postgresql": PostgresServer,
}

Make = Callable[..., Any]


class Store(NamedTuple):
    """A backend's name, the settings that say where its store is, and the server."""

    name: str
    settings: dict[str, str]
    server: Any = None

    def load(self, **settings: Any) -> Any:
        """Return the backend with these and the store's own settings."""
        return load(self.name, **{**self.settings, **settings})

    def kill(self) -> None:
        """Kill the server; the tests' PostgreSQL would lose what it wrote in the last moment."""
        if self.name == "postgresql":
            self.server.execute("CHECKPOINT")
        self.server.kill()


def store_on(name: str, server: Any) -> Store:
    """Return the store that a server is."""
    setting = "cache_hosts" if name == "memcached" else "cache_url"
    return Store(name, {setting: server.url}, server)


def load(name: str, **settings: Any) -> Any:
    """Return a backend as Kinto would: from the configuration of an application."""
    module = importlib.import_module(f"pyramid_kvs.kinto.{name}")
    return module.load_from_config(Configurator(settings=settings))


class Counts:
    """A metrics service of Kinto that remembers what it counted."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    def count(self, key: str, count: int = 1, unique: Any = None) -> None:
        self.keys += [key] * count

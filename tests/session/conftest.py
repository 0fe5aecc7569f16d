"""The four stores, all of them real."""

from __future__ import annotations

import pytest

from tests.session.apps import STORES, Store, memory_options


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> Store:
    """Each of the stores in turn."""
    return make_store(request.param, request)


@pytest.fixture
def memory() -> Store:
    return Store("memory", memory_options())


@pytest.fixture
def redis(request: pytest.FixtureRequest) -> Store:
    return make_store("redis", request)


def make_store(name: str, request: pytest.FixtureRequest) -> Store:
    if name == "memory":
        return Store(name, memory_options())
    fixture = {"redis": "redis", "memcache": "memcached", "postgresql": "postgres"}[name]
    server = request.getfixturevalue(f"{fixture}_server")
    if name == "memcache":
        return Store(name, {"servers": [server.url]})
    return Store(name, {"url": server.url})

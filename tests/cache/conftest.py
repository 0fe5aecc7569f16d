"""The stores of a cache, on real servers."""

from __future__ import annotations

import pytest

from tests.cache.apps import Options
from tests.servers import MemcachedServer, PostgresServer, RedisServer


@pytest.fixture(params=["memory", "redis", "memcache", "postgresql"])
def store(request: pytest.FixtureRequest) -> Options:
    """The settings of each store in turn, on a real server."""
    return options_of(request.param, request)


@pytest.fixture(params=["redis", "memcache", "postgresql"])
def shared(request: pytest.FixtureRequest) -> Options:
    """The settings of each store that processes share."""
    return options_of(request.param, request)


def options_of(kvs: str, request: pytest.FixtureRequest) -> Options:
    if kvs == "redis":
        redis: RedisServer = request.getfixturevalue("redis_server")
        return {"kvs": "redis", "kvs_kwargs": {"host": redis.host, "port": redis.port}}
    if kvs == "memcache":
        memcached: MemcachedServer = request.getfixturevalue("memcached_server")
        servers = [f"{memcached.host}:{memcached.port}"]
        return {"kvs": "memcache", "kvs_kwargs": {"servers": servers}}
    if kvs == "postgresql":
        postgres: PostgresServer = request.getfixturevalue("postgres_server")
        return {"kvs": "postgresql", "kvs_kwargs": {"url": postgres.url}}
    return {"kvs": "memory"}

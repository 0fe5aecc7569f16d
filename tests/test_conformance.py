"""Every driver on the one conformance suite, on real servers."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance import Conformance, SharedConformance
from tests.servers import MemcachedServer, RedisCluster, RedisSentinel, RedisServer


class TestMemory(Conformance):
    @pytest.fixture
    def store(self) -> tuple[str, dict[str, Any]]:
        return "memory", {"name": "conformance"}


class TestRedis(SharedConformance):
    @pytest.fixture
    def store(self, redis_server: RedisServer) -> tuple[str, dict[str, Any]]:
        return "redis", {"host": redis_server.host, "port": redis_server.port}


class TestOtherVersionsOfRedis(SharedConformance):
    """redis 6.2, the oldest that is supported, redis 8.2 and Valkey, each by its URL."""

    @pytest.fixture
    def store(self, other_redis_server: RedisServer) -> tuple[str, dict[str, Any]]:
        name = "valkey" if other_redis_server.version.startswith("valkey") else "redis"
        return name, {"url": other_redis_server.url.replace("redis", name)}


class TestSentinel(SharedConformance):
    """The primary that three sentinels of Valkey watch."""

    @pytest.fixture
    def store(self, valkey_sentinel_session: RedisSentinel) -> tuple[str, dict[str, Any]]:
        valkey_sentinel_session.primary().clear()
        return "valkey", {"url": valkey_sentinel_session.url.replace("redis", "valkey")}


class TestRedisCluster(SharedConformance):
    """Three primaries with their replicas."""

    @pytest.fixture
    def store(self, redis_cluster: RedisCluster) -> tuple[str, dict[str, Any]]:
        return "redis", {"url": redis_cluster.url}


class TestValkeyCluster(SharedConformance):
    @pytest.fixture
    def store(self, valkey_cluster: RedisCluster) -> tuple[str, dict[str, Any]]:
        return "redis", {"url": valkey_cluster.url.replace("redis+", "valkey+")}


class TestMemcache(SharedConformance):
    lists_keys = False

    @pytest.fixture
    def store(self, memcached_server: MemcachedServer) -> tuple[str, dict[str, Any]]:
        return "memcache", {"servers": [f"{memcached_server.host}:{memcached_server.port}"]}

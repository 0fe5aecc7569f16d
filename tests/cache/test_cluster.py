"""``get_or_create`` on a cluster: how often the nodes are asked."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cache.apps import cache_of
from tests.servers import RedisCluster
from tests.stores import CLUSTERS, server_of, timeouts

PATIENT = timeouts("redis-cluster")


@pytest.fixture(params=CLUSTERS)
def cluster(request: pytest.FixtureRequest) -> RedisCluster:
    found: RedisCluster = server_of(request.param, request)
    return found


def made(cluster: RedisCluster, key: str) -> Any:
    """Return a cache that has a value at a key, and reset the counts of the nodes."""
    cache = cache_of({"kvs": "redis", "kvs_kwargs": {"url": cluster.url, **PATIENT}})
    for _ in range(2):
        cache.get_or_create(key, lambda: "made", 60, stale=600)
    cluster.reset_calls()
    return cache


@pytest.mark.parametrize("key", ["plain", "user:{42}:x", "{", "}{"])
@pytest.mark.parametrize("stale", [0, 600])
def test_a_hit_is_one_command_on_the_node_of_the_key(
    cluster: RedisCluster, key: str, stale: int
) -> None:
    cache = made(cluster, key)
    for _ in range(10):
        assert cache.get_or_create(key, lambda: "again", 60, stale=stale) == "made"
    sent = "evalsha" if stale else "get"
    calls = [node.calls() for node in cluster.primaries()]
    assert sorted(found.get(sent, 0) for found in calls) == [0, 0, 10]


@pytest.mark.parametrize("key", ["plain", "user:{42}:x", "{", "}{"])
def test_a_miss_claims_stores_and_releases_on_one_node(cluster: RedisCluster, key: str) -> None:
    cache = made(cluster, key)
    cache.delete(key)
    cluster.reset_calls()
    assert cache.get_or_create(key, lambda: "new", 60, stale=600) == "new"
    scripts = [node.calls().get("evalsha", 0) for node in cluster.primaries()]
    assert scripts.count(0) == 2
    assert cache.get(key) == "new"
    assert cache.list_keys() == [key]

"""Several servers, of which some fail."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import memcache
import pytest

from pyramid_kvs.exceptions import KVSNotSupported, KVSUnavailable
from pyramid_kvs.kvs import KVS
from tests.servers import MemcachedServer

from .helpers import KEYS, Start, connect, unavailable


@pytest.mark.parametrize("weights", [(1, 1, 1), (1, 5, 2)])
def test_the_peer_finds_the_same_keys(
    three: list[MemcachedServer], weights: tuple[int, ...]
) -> None:
    weighted = [[server.url, weight] for server, weight in zip(three, weights, strict=True)]
    kvs = KVS("memcache", {"servers": weighted}, "p::")
    peer = memcache.Client([tuple(pair) for pair in weighted])
    for key in KEYS:
        peer.set(f"p::{key}", json.dumps(key))
    assert kvs.get_many(KEYS) == {key: key for key in KEYS}
    kvs.delete_many(KEYS)
    kvs.set_many({key: key for key in KEYS})
    assert all(peer.get(f"p::{key}") == json.dumps(key) for key in KEYS)
    assert all(int(server.stats()["curr_items"]) > 5 for server in three)


def test_a_dead_server_takes_only_its_own_keys(three: list[MemcachedServer]) -> None:
    kvs = connect(*three)
    kvs.set_many({key: key for key in KEYS})
    three[1].kill()
    lost = set(filter(lambda key: unavailable(kvs, key), KEYS))
    assert 10 < len(lost) < len(KEYS) - 10
    assert kvs.get_many(set(KEYS) - lost) == {key: key for key in set(KEYS) - lost}
    for call in (
        lambda: kvs.get_many(KEYS),
        lambda: kvs.set_many(dict.fromkeys(KEYS, 1)),
        lambda: kvs.delete_many(lost),
    ):
        with pytest.raises(KVSUnavailable, match=str(three[1].port)):
            call()
    assert kvs.ping() is False
    three[1].start()
    assert kvs.ping() is True
    assert all(kvs.get(key) is None for key in lost)


@pytest.mark.parametrize("fail", [MemcachedServer.kill, MemcachedServer.pause])
def test_rehash_moves_the_keys(three: list[MemcachedServer], fail: Any) -> None:
    kvs = connect(*three, rehash=True, dead_retry=60, socket_timeout=0.3)
    kvs.set_many({key: key for key in KEYS})
    fail(three[1])
    with contextlib.suppress(KVSUnavailable):
        kvs.incr("counter")
    found = kvs.get_many(KEYS)
    assert 10 < len(found) < len(KEYS) - 10
    kvs.set_many(dict.fromkeys(KEYS, 2))
    assert kvs.get_many(KEYS) == dict.fromkeys(KEYS, 2)
    for key in KEYS:
        kvs.set(key, 3)
        assert kvs.incr(key) == 4


def test_rehash_with_nobody_left(own_memcached: Start) -> None:
    servers = [own_memcached() for _ in range(2)]
    kvs = connect(*servers, rehash=True)
    kvs.set("key", 1)
    for server in servers:
        server.kill()
    for call in (lambda: kvs.get("key"), lambda: kvs.incr("key"), lambda: kvs.get_many(["key"])):
        with pytest.raises(KVSUnavailable):
            call()


def test_rehash_moves_as_the_peer_does(own_memcached: Start) -> None:
    servers = [own_memcached() for _ in range(3)]
    kvs = connect(*servers, rehash=True, dead_retry=60)
    servers[1].kill()
    peer = memcache.Client([server.url for server in servers], dead_retry=60)
    for key in KEYS:
        kvs.set(key, key)
    assert all(peer.get(f"p::{key}") == json.dumps(key) for key in KEYS)


def test_flush_is_for_drivers_without_prefix(own_memcached: Start) -> None:
    servers = [own_memcached() for _ in range(2)]
    kvs, everything = connect(*servers), connect(*servers, prefix="")
    kvs.set_many({key: key for key in KEYS})
    with pytest.raises(KVSNotSupported, match="prefix"):
        kvs.flush()
    assert len(kvs.get_many(KEYS)) == len(KEYS)
    everything.flush()
    assert kvs.get_many(KEYS) == {}

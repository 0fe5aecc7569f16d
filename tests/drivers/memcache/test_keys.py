"""Keys on the server, and several keys in one call."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from pyramid_kvs.kvs import KVS
from tests.servers import MemcachedServer

from .helpers import Start, connect, counting, stored


@pytest.mark.parametrize(
    "key", ["0123456789abcdef" * 2 + "01234567", "a:b/c?d=é#{}", "鍵" * 82, "~" * 247]
)
def test_keys_that_1_0_could_store_stay_as_they_are(
    memcached_server: MemcachedServer, kvs: KVS, peer: Any, key: str
) -> None:
    kvs.set(key, 1)
    assert peer.get(f"p::{key}") == "1"
    assert stored(memcached_server, f"p::{key}".encode()) == (16, b"1")


@pytest.mark.parametrize(
    "key", ["a b\r\nflush_all\r\n", "a\nflush_all\n", "end\n", "\0", "🔑 " * 3000, "\ud800 x"]
)
def test_no_key_is_a_command(memcached_server: MemcachedServer, kvs: KVS, key: str) -> None:
    flushes = memcached_server.stats()["cmd_flush"]
    kvs.set(key, 1)
    kvs.add(key, 1)
    kvs.incr(key)
    kvs.update(key, lambda old: old)
    kvs.raw_load(key, renew=50)
    assert kvs.expire(key, 9)
    assert kvs.expire(key, 9.5)
    kvs.get_many([key, key + " "])
    kvs.set_many({key: 1})
    kvs.delete_many([key])
    kvs.delete(key)
    assert memcached_server.stats()["cmd_flush"] == flushes
    assert kvs.raw_load_many([key, key + " "]) == {}
    assert kvs.ping()


def test_no_real_key_is_a_mapped_one(kvs: KVS) -> None:
    """A key that looks like the hash of a long key is another key."""
    long_key = "x" * 300
    mapped = "kvs:sha256:" + hashlib.sha256(long_key.encode()).hexdigest()
    without_prefix = KVS("memcache", {"servers": [str(kvs._client.servers[0])[5:]]}, "")
    without_prefix.set(long_key, "long")
    assert without_prefix.get(mapped) is None
    without_prefix.set(mapped, "short")
    assert without_prefix.get(long_key) == "long"
    assert without_prefix.get(mapped) == "short"


def test_key_encoder(memcached_server: MemcachedServer) -> None:
    kvs = connect(memcached_server, key_encoder=lambda key: key.replace(b"::", b"/"))
    kvs.set("key", 1)
    assert stored(memcached_server, b"p/key") == (16, b"1")


def test_many_megabytes_at_once(kvs: KVS) -> None:
    mapping = {f"key{n}": str(n) * 20_000 for n in range(400)}
    kvs.set_many(mapping)
    assert kvs.get_many(mapping) == mapping


def test_many_thousand_keys_at_once(kvs: KVS) -> None:
    mapping = {f"key{n}" + "x" * 200: n for n in range(5000)}
    kvs.set_many(mapping)
    assert kvs.get_many(mapping) == mapping
    kvs.delete_many(list(mapping)[1:])
    assert len(kvs.get_many(mapping)) == 1


def test_large_reads_do_not_block_each_other(own_memcached: Start) -> None:
    """A server that cannot send its replies stops reading commands."""
    kvs = connect(own_memcached(unix=True))
    mapping = {f"{n:0245}": "x" * 2000 for n in range(1000)}
    kvs.set_many(mapping)
    assert kvs.get_many(mapping) == mapping


def test_round_trips(memcached_server: MemcachedServer) -> None:
    with counting(memcached_server) as (url, sent):
        kvs = connect(url)
        kvs.set("key", 1)
        found = kvs.raw_load("key")
        for action, expected in {
            lambda: kvs.raw_load("key", renew=100): 1,
            lambda: kvs.raw_swap("key", found, '{"a": 2}', 100): 1,
            lambda: kvs.set("key", {"a": 1}): 1,
            lambda: kvs.get("key"): 1,
            lambda: kvs.add("new", 1): 1,
            lambda: kvs.incr("counter", 1, 60): 1,
            lambda: kvs.incr("counter", 1, 100): 1,
            lambda: kvs.expire("key", 60): 1,
            lambda: kvs.delete("key"): 2,
            lambda: kvs.get_many([f"key{n}" for n in range(100)]): 1,
            lambda: kvs.raw_load_many([f"key{n}" for n in range(100)]): 1,
            lambda: kvs.set_many({f"key{n}": "x" * 50 for n in range(100)}): 1,
            lambda: kvs.delete_many([f"key{n}" for n in range(100)]): 1,
        }.items():
            sent.clear()
            action()
            assert len(sent) == expected
        kvs.close()

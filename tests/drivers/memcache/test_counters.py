"""Counters, within and beyond the arithmetic of memcached."""

from __future__ import annotations

import multiprocessing
import time
from typing import Any

import pytest

from pyramid_kvs.kvs import KVS
from tests.servers import MemcachedServer

from .helpers import connect, stored


def test_the_peer_counts_on(memcached_server: MemcachedServer, kvs: KVS, peer: Any) -> None:
    assert kvs.incr("counter", 9) == 9
    assert stored(memcached_server, b"p::counter") == (0, b"9")
    assert peer.incr("p::counter", 2) == 11
    assert kvs.incr("counter") == 12


@pytest.mark.parametrize("codec", ["json", "pickle", "storable"])
def test_a_counter_that_the_peer_padded(
    memcached_server: MemcachedServer, peer: Any, codec: str
) -> None:
    """``decr`` of python-memcached turns 10 into a 9 and a space."""
    kvs = connect(memcached_server, codec=codec)
    kvs.incr("counter", 10)
    peer.decr("p::counter")
    assert stored(memcached_server, b"p::counter")[1] == b"9 "
    assert kvs.get("counter") == 9
    assert kvs.get_many(["counter"]) == {"counter": 9}
    assert kvs.decr("counter", 10) == -1


def test_going_below_zero_keeps_the_clock(memcached_server: MemcachedServer, kvs: KVS) -> None:
    kvs.incr("counter", 1, 100)
    for expected in range(0, -50, -1):
        assert kvs.decr("counter", 1, 500) == expected
    assert 97 < kvs.ttl_of("counter") <= 101
    assert kvs.incr("counter", 60, 500) == 11
    assert 97 < kvs.ttl_of("counter") <= 101
    assert kvs.get("counter") == 11


def test_counting_down_keeps_plain_digits(memcached_server: MemcachedServer, kvs: KVS) -> None:
    kvs.incr("counter", 5, 100)
    kvs.decr("counter", 2, 500)
    assert stored(memcached_server, b"p::counter")[1] == b"3"
    assert 97 < kvs.ttl_of("counter") <= 100


def test_a_negative_counter_without_expiry_gets_its_ttl(
    memcached_server: MemcachedServer, kvs: KVS
) -> None:
    connect(memcached_server, ttl=None).decr("counter")
    assert kvs.ttl_of("counter") < 0
    assert kvs.decr("counter", 1, 100) == -2
    assert 97 < kvs.ttl_of("counter") <= 100


def test_counting_down_gives_a_counter_without_expiry_its_ttl(
    memcached_server: MemcachedServer, kvs: KVS
) -> None:
    connect(memcached_server, ttl=None).incr("counter", 5)
    assert kvs.decr("counter", 1, 100) == 4
    assert 97 < kvs.ttl_of("counter") <= 100


@pytest.mark.parametrize("start", [2**64 - 1, 2**63, 10**30, -(10**30)])
def test_counts_beyond_64_bits(kvs: KVS, start: int) -> None:
    kvs.raw_set("counter", str(start), 100)
    assert kvs.incr("counter", 2) == start + 2
    assert kvs.incr("counter", 2**65) == start + 2 + 2**65
    assert kvs.decr("counter", 2**66) == start + 2 - 2**65
    assert kvs.get("counter") == start + 2 - 2**65
    assert 90 < kvs.ttl_of("counter") <= 101


def _count_up_and_down(url: str, ttl: float) -> None:
    kvs = connect(url)
    for _ in range(50):
        kvs.incr("counter", 3, ttl)
        kvs.decr("counter", 4, ttl)


@pytest.mark.parametrize("ttl", [100, 100.5])
def test_eight_processes_count_exactly(
    memcached_server: MemcachedServer, kvs: KVS, ttl: float
) -> None:
    context = multiprocessing.get_context("fork")
    arguments = (memcached_server.url, ttl)
    processes = [context.Process(target=_count_up_and_down, args=arguments) for _ in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(100)
    assert [process.exitcode for process in processes] == [0] * 8
    assert kvs.get("counter") == -400
    assert 50 < kvs.ttl_of("counter") <= ttl + 1


@pytest.mark.parametrize("start", [2**64, 2**64 + 1, 10**19 * 9, 10**39])
def test_counting_down_from_beyond_64_bits(kvs: KVS, start: int) -> None:
    """Memcached cannot count there, and says so at each attempt."""
    kvs.raw_set("counter", str(start), 100)
    began = time.monotonic()
    assert kvs.decr("counter") == start - 1
    assert kvs.decr("counter") == start - 2
    assert time.monotonic() - began < 0.5


class Text:
    """A codec of plain strings."""

    name = "text"

    def dumps(self, value: Any) -> str:
        return str(value)

    def loads(self, data: str | bytes) -> Any:
        return data if isinstance(data, str) else data.decode()


class Raw(Text):
    """A codec of plain bytes."""

    def dumps(self, value: Any) -> Any:
        return value.encode()


@pytest.mark.parametrize("codec", [Text(), Raw()])
@pytest.mark.parametrize("ttl", [60, 60.5, None])
def test_data_that_look_like_a_padded_counter(
    memcached_server: MemcachedServer, codec: Any, ttl: float | None
) -> None:
    """Counters that ``decr`` made shorter end in spaces, but data may end in spaces, too."""
    kvs = connect(memcached_server, codec=codec, ttl=ttl)
    kvs.set("key", "12 ")
    if isinstance(kvs.encode(""), str) and ttl != 60.5:
        assert stored(memcached_server, b"p::key") == (16, b"12 ")
    assert kvs.get("key") == "12 "
    assert kvs.get_many(["key"]) == {"key": "12 "}
    assert kvs.raw_load("key").data == b"12 "
    assert kvs.expire("key", 30.5)
    assert kvs.get("key") == "12 "
    assert kvs.update("key", lambda old: old + " ") == "12  "
    assert kvs.delete("key") == "12  "


def test_counting_down_leaves_no_space(memcached_server: MemcachedServer) -> None:
    kvs = connect(memcached_server, codec=Text())
    kvs.set("key", 10, 60)
    assert kvs.decr("key") == 9
    assert kvs.get("key") == "9"
    kvs.incr("counter", 10)
    assert kvs.decr("counter") == 9
    assert kvs.get("counter") == "9"

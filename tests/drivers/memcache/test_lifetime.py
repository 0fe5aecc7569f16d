"""The lifetime of items, whose clock ticks once a second."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import pytest

from pyramid_kvs.drivers.memcache.items import Token
from pyramid_kvs.kvs import KVS, Stored
from tests.servers import MemcachedServer

from .helpers import DAY, seconds_left, store, stored


def test_a_whole_ttl_stores_the_codecs_bytes(memcached_server: MemcachedServer, kvs: KVS) -> None:
    for ttl in (5, 5.0, 40 * DAY, 1e300):
        kvs.set("key", "x", ttl)
        assert stored(memcached_server, b"p::key") == (16, b'"x"')


def test_a_fraction_is_a_deadline_in_the_data(
    memcached_server: MemcachedServer, kvs: KVS, peer: Any
) -> None:
    kvs.set("key", "x", 5.5)
    flags, data = stored(memcached_server, b"p::key")
    assert data.startswith(b"\x01kvs-until:")
    assert data.endswith(b':"x"')
    assert peer.get("p::key") == data.decode()
    assert flags == 16
    assert 5 < kvs.ttl_of("key") <= 5.5
    assert seconds_left(memcached_server, b"p::key") >= 6


def test_a_short_ttl_outlasts_the_servers_tick(memcached_server: MemcachedServer, kvs: KVS) -> None:
    """With exptime 1 an item can expire at the server's next tick, microseconds later."""
    longest = 0
    for _ in range(5):  # the tick may come between these two
        kvs.set("key", "x", 0.3)
        longest = max(longest, seconds_left(memcached_server, b"p::key"))
    assert longest == 2


@pytest.mark.parametrize("ttl", [None, 50, 50.5])
@pytest.mark.parametrize(
    "data", [b"\x01kvs-until:1.000000:x", b"\x01kvs-until::x", b"\x01kvs-until:", "\x01kvs-until:9"]
)
def test_data_that_look_like_a_deadline(kvs: KVS, data: Any, ttl: float | None) -> None:
    expected = data.encode() if isinstance(data, str) else data
    kvs.raw_set("key", data, ttl)
    assert kvs.raw_get("key") == expected
    assert kvs.raw_load("key", renew=20).data == expected
    assert kvs.raw_get_many(["key"]) == {"key": expected}
    assert kvs.expire("key", 9.5)
    assert kvs.raw_delete("key") == expected


@pytest.mark.parametrize("ttl", [30 * DAY, 30 * DAY + 1, 20 * 366 * DAY, 200 * 366 * DAY, 1e300])
def test_a_long_ttl_is_not_read_as_a_date(kvs: KVS, ttl: float) -> None:
    """Memcached 1.6 expires items with a date after 2038 at once, so the driver sends none."""
    longest = 2**31 - 1 - time.time()
    for write in (
        lambda: kvs.set("key", 1, ttl),
        lambda: kvs.incr("key", 1, ttl),
        lambda: (kvs.set("key", 1, 5), kvs.expire("key", ttl)),
        lambda: (kvs.set("key", 1, 5), kvs.raw_load("key", renew=ttl)),
    ):
        kvs.delete("key")
        write()
        assert kvs.get("key") == 1
        assert abs(kvs.ttl_of("key") - min(ttl, longest)) < 5


def test_infinity_is_the_longest_ttl(kvs: KVS) -> None:
    kvs.set("key", 1, math.inf)
    assert kvs.get("key") == 1


def test_expire_between_whole_and_fraction(memcached_server: MemcachedServer, kvs: KVS) -> None:
    kvs.set("key", "x", 50.5)
    assert kvs.expire("key", 100)
    assert stored(memcached_server, b"p::key") == (16, b'"x"')
    assert kvs.raw_expire("key", None)
    assert kvs.ttl_of("key") < 0
    assert kvs.raw_load("key", renew=20.5).data == b'"x"'
    assert 19 < kvs.ttl_of("key") <= 20.5
    assert kvs.raw_load("key", renew=60).data == b'"x"'
    assert 58 < kvs.ttl_of("key") <= 60


def test_what_is_over_is_absent(memcached_server: MemcachedServer, kvs: KVS) -> None:
    """Memcached still has an item whose deadline is over; no operation may find it."""
    over = b"\x01kvs-until:%d.000000:7" % (time.time() - 1)
    actions: dict[Callable[[], Any], Any] = {
        lambda: kvs.get("key", "default"): "default",
        lambda: kvs.get_many(["key"]): {},
        lambda: kvs.ttl_of("key") < 0: True,
        lambda: kvs.delete("key"): None,
        lambda: kvs.expire("key", 5): False,
        lambda: kvs.expire("key", 5.5): False,
        lambda: kvs.raw_load("key"): None,
        lambda: kvs.raw_load("key", renew=9): None,
        lambda: kvs.raw_load("key", renew=9.5): None,
        lambda: kvs.raw_load_many(["key"]): {},
        lambda: kvs.add("key", 1): True,
        lambda: kvs.incr("key", 2): 2,
        lambda: kvs.decr("key", 2): -2,
        lambda: kvs.incr("key", 2, 0.5): 2,
        lambda: kvs.raw_swap("key", None, "1", 5).done: True,
        lambda: kvs.raw_swap("key", None, None, 5).done: True,
        lambda: kvs.raw_swap("key", Stored(b"7", Token(b"", 1)), "1", 5): (False, None),
    }
    for action, expected in actions.items():
        store(memcached_server, b"p::key", over, 16)
        assert action() == expected


def test_a_ttl_never_ends_early(memcached_server: MemcachedServer, kvs: KVS) -> None:
    """Whenever the server's clock ticks: a value lives for its ttl, and at most 1 s longer."""
    writes: dict[str, Callable[[str], Any]] = {
        "set": lambda key: kvs.set(key, 1, 1),
        "set_many": lambda key: kvs.set_many({key: 1}, 1),
        "add": lambda key: kvs.add(key, 1, 1),
        "incr": lambda key: kvs.incr(key, 1, 1),
        "update": lambda key: kvs.update(key, lambda old: 1, 1),
        "expire": lambda key: (kvs.set(key, 1, 9), kvs.expire(key, 1)),
        "renewed": lambda key: (kvs.set(key, 1, 9), kvs.raw_load(key, renew=1)),
    }
    ends = {}
    for step in range(8):
        for name, write in writes.items():
            key = f"{name}{step}"
            ends[key] = time.monotonic() + 1
            write(key)
        time.sleep(0.125)
    early = []
    while ends:
        found, now = kvs.get_many(ends), time.monotonic()
        missing = ends.keys() - found.keys()
        early += [key for key in missing if now < ends[key]]
        assert all(now < ends[key] + 1.3 for key in found)
        for key in missing:
            del ends[key]
        time.sleep(0.01)
    assert early == []


@pytest.mark.parametrize("ttl", [30 * DAY - 2, 30 * DAY - 1, 30 * DAY, 30 * DAY + 1])
def test_a_second_more_does_not_make_a_date(
    memcached_server: MemcachedServer, kvs: KVS, ttl: int
) -> None:
    """Memcached reads more than 30 days as a date, which would be over.

    Its date is less than a second ahead of the system's, and less than two behind.
    """
    kvs.set("key", 1, ttl)
    assert ttl <= seconds_left(memcached_server, b"p::key") <= ttl + 4
    assert ttl - 2 <= kvs.ttl_of("key") <= ttl + 3

"""Which entries the memory driver removes when it is full, and when they expire."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from pyramid_kvs.drivers.memory.parts import FULL, distinct
from pyramid_kvs.exceptions import ValueTooLarge
from pyramid_kvs.kvs import KVS
from tests.servers import wait_until


def full(*sizes: int) -> KVS:
    """Return a driver with room for entries of these sizes, and for no more."""
    return KVS("memory", {"max_bytes": sum(sizes) + 400 * len(sizes)})


def keys(kvs: KVS) -> list[str]:
    """Return the keys in the store, without using them."""
    return sorted(kvs.get_keys())


def test_the_least_recently_used_entry_is_removed_first() -> None:
    kvs = full(10_000, 10_000, 10_000)
    for key in ("a", "b", "c"):
        kvs.raw_set(key, key * 10_000, 60)
    kvs.raw_get("a")
    kvs.raw_set("d", "d" * 10_000, 60)
    assert keys(kvs) == ["a", "c", "d"]
    kvs.raw_set("c", "C" * 10_000, 60)
    kvs.raw_set("e", "e" * 10_000, 60)
    assert keys(kvs) == ["c", "d", "e"]


@pytest.mark.parametrize(
    "use",
    [
        lambda kvs: kvs.raw_get("a"),
        lambda kvs: kvs.raw_get_many(["a"]),
        lambda kvs: kvs.raw_load("a"),
        lambda kvs: kvs.raw_load("a", renew=60),
        lambda kvs: kvs.expire("a", 60),
        lambda kvs: kvs.incr("a"),
        lambda kvs: kvs.raw_swap("a", kvs.raw_load("a"), "2", 60),
    ],
)
def test_every_use_counts(use: Callable[[KVS], Any]) -> None:
    kvs = full(10, 10_000, 10_000)
    kvs.raw_set("a", "1", 60)
    kvs.raw_set("b", "b" * 10_000, 60)
    use(kvs)
    kvs.raw_set("c", "c" * 11_000, 60)
    assert keys(kvs) == ["a", "c"]


def test_listing_is_not_a_use() -> None:
    kvs = full(10_000, 10_000)
    kvs.raw_set("a", "a" * 10_000, 60)
    kvs.raw_set("b", "b" * 10_000, 60)
    assert keys(kvs) == ["a", "b"]
    assert kvs.ttl_of("a") > 0
    kvs.raw_set("c", "c" * 10_000, 60)
    assert keys(kvs) == ["b", "c"]


@pytest.mark.parametrize("seed", range(4))
def test_the_order_is_exact(seed: int) -> None:
    """It is that of a list to whose end each used key moves."""
    kvs, choose = KVS("memory", {"max_bytes": 200_000}), random.Random(seed)
    order: list[str] = []
    removed = 0
    for _ in range(4000):
        key = str(choose.randrange(400))
        if choose.random() < 0.5:
            assert (kvs.raw_get(key) is not None) == (key in order)
        else:
            kvs.raw_set(key, "x" * choose.randrange(2000), 60)
        stored = set(kvs.get_keys())
        if key in stored:
            order = [other for other in order if other != key] + [key]
        oldest = order[: len(order) - len(stored)]
        assert stored == set(order) - set(oldest)
        order = order[len(oldest) :]
        removed += len(oldest)
    assert removed > 1000


def test_a_large_store_removes_old_entries() -> None:
    """The order of all its entries is not exact, because it has several parts."""
    kvs = KVS("memory", {"max_bytes": 20_000_000})
    for number in range(100_000):
        kvs.raw_set(str(number), "x" * 100, 60)
    kept = sorted(map(int, kvs.get_keys()))
    assert len(distinct(kvs._client.parts)) > 1
    assert kept[0] > 100_000 - 1.2 * len(kept)


def test_a_store_that_was_large_has_one_part_again() -> None:
    """A few large entries in many parts would be removed in any order."""
    kvs = KVS("memory", {"max_bytes": 10_000_000})
    for number in range(3 * FULL):
        kvs.raw_set(str(number), "", 60)
    kvs.flush()
    for number in range(100):
        kvs.raw_set(str(number), "x" * 300_000, 60)
        kvs.raw_get("0")
    kept = sorted(map(int, kvs.get_keys()))
    assert kept == [0, *range(101 - len(kept), 100)]


def test_an_entry_makes_room_for_its_own_new_data() -> None:
    kvs = full(10_000, 10_000)
    kvs.raw_set("a", "a" * 10_000, 60)
    kvs.raw_set("b", "b" * 10_000, 60)
    kvs.raw_set("a", "A" * 20_000, 60)
    assert kvs.raw_get("a") == "A" * 20_000
    assert kvs.raw_get("b") is None


def test_a_value_larger_than_the_store_is_refused() -> None:
    """Nothing is removed for it."""
    kvs = KVS("memory", {"max_bytes": 10_000})
    kvs.set("key", "old")
    for call in (
        lambda: kvs.set("key", "x" * 10_000),
        lambda: kvs.add("new", "x" * 10_000),
        lambda: kvs.update("key", lambda old: "x" * 10_000),
    ):
        with pytest.raises(ValueTooLarge, match="the memory store holds 10000 in all"):
            call()
    assert kvs.get("key") == "old"


def test_later_writes_remove_expired_entries() -> None:
    kvs = KVS("memory")
    for number in range(1000):
        kvs.raw_set(f"old{number}", "x", 0.05)
    wait_until(lambda: kvs.raw_get("old999") is None, "expiry")
    for number in range(3000):
        kvs.raw_set(f"new{number % 100}", "x", 60)
    assert sorted(kvs._client) == sorted(f"new{number}" for number in range(100))


def test_an_entry_that_was_renewed_is_not_removed_as_expired() -> None:
    kvs = KVS("memory")
    for number in range(500):
        kvs.raw_set(f"old{number}", "x", 0.05)
        kvs.raw_expire(f"old{number}", 60)
    kvs.set("clock", 1, 0.05)
    wait_until(lambda: not kvs.get("clock"), "time to pass")
    for number in range(3000):
        kvs.raw_set(f"new{number % 100}", "x", 60)
    assert len(kvs.get_keys("old*")) == 500

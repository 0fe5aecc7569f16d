"""``max_bytes`` of the memory driver and the memory that it really takes."""

from __future__ import annotations

import gc
import random
import signal
import sys
import tracemalloc
from collections.abc import Callable

import pytest

from pyramid_kvs.drivers.memory.parts import SPARSE, distinct, size_of
from pyramid_kvs.drivers.memory.store import MemoryStore
from pyramid_kvs.kvs import KVS

Fill = Callable[[KVS], None]


def filled(key: str, data: str | bytes, ttl: float | None = 60, count: int = 40_000) -> Fill:
    def fill(kvs: KVS) -> None:
        for number in range(count):
            digits = f"{number:x}"
            more = digits if isinstance(data, str) else digits.encode()
            kvs.raw_set(key + digits, data + more, ttl)  # type: ignore[operator]

    return fill


def small_then_large(kvs: KVS) -> None:
    filled("k", "d")(kvs)
    filled("large", "x" * 50_000, count=300)(kvs)


def large_then_small(kvs: KVS) -> None:
    filled("large", "x" * 50_000, count=300)(kvs)
    filled("k", "d")(kvs)


def other_lengths(kvs: KVS) -> None:
    for number in range(60_000):
        kvs.raw_set(str(number % 12_000), "x" * (number * 7 % 900), 60)


@pytest.mark.parametrize(
    "fill",
    [
        filled("k", "d"),
        filled("k", "d", None),
        filled("key:", "x" * 100),
        filled("key:", b"x" * 100),
        filled("key:", "x" * 1000, count=10_000),
        filled("key:", "x" * 100_000, count=200),
        filled("key:", "é" * 100),
        filled("é" * 40, "x" * 20),
        filled("Ключ" * 10, "x" * 20),
        filled("\N{KEY}" + "k" * 100, "x" * 20),
        small_then_large,
        large_then_small,
        other_lengths,
    ],
)
def test_the_real_size(fill: Fill) -> None:
    """It counts the tables too, which take more than half of the memory of small entries."""
    max_bytes = 8_000_000
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        kvs = KVS("memory", {"max_bytes": max_bytes})
        fill(kvs)
        gc.collect()
        real = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 0.9 * max_bytes < real < 1.1 * max_bytes


def test_an_emptied_store_takes_no_memory() -> None:
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        kvs = KVS("memory")
        filled("k", "d")(kvs)
        kvs.flush()
        gc.collect()
        real = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert real < 50_000


def counted(store: MemoryStore) -> int:
    """Return the size of the entries and tables, counted again."""
    parts = distinct(store.parts)
    for part in parts:
        assert part.data.keys() == part.deadlines.keys() == part.used.keys()
    entries = [size_of(key, data) for part in parts for key, data in part.data.items()]
    return sum(entries) + sum(part.tables for part in parts)


def random_call(kvs: KVS, choose: random.Random) -> None:
    key = choose.choice(["", "é", "Ключ", "\N{KEY}"]) + str(choose.randrange(300))
    data = choose.choice(["x", "é", "\N{KEY}", "\ud800"]) * choose.randrange(200)
    ttl = choose.choice([None, 60, 1e-6])
    call = choose.choice(
        [
            lambda: kvs.raw_set(key, data, ttl),
            lambda: kvs.raw_set(key, data.encode("utf-8", "surrogatepass"), ttl),
            lambda: kvs.raw_delete(key),
            lambda: kvs.raw_get(key),
            lambda: kvs.raw_expire(key, ttl),
            lambda: kvs.raw_swap(key, kvs.raw_load(key), choose.choice([None, data]), ttl),
            lambda: kvs.raw_incr(f"count{choose.randrange(9)}", 10**9, ttl),
            lambda: kvs.raw_set_many({key: data, key + "2": data}, ttl),
        ]
    )
    call()


@pytest.mark.parametrize("max_bytes", [3_000, 50_000, 10_000_000])
def test_the_size_does_not_drift(max_bytes: int) -> None:
    kvs, choose = KVS("memory", {"max_bytes": max_bytes}), random.Random(max_bytes)
    for _ in range(20_000):
        random_call(kvs, choose)
    assert kvs._client.size == counted(kvs._client)
    kvs.flush()
    assert kvs._client.size == counted(kvs._client)
    assert kvs._client.size < 2 * 16 * SPARSE


class Interrupted(BaseException):
    """What a signal handler raises."""


def interrupt(*_: object) -> None:
    raise Interrupted


def test_the_size_does_not_drift_when_calls_are_interrupted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    kvs, choose = KVS("memory", {"max_bytes": 50_000}), random.Random(3)
    struck = 0
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for turn in range(10_000):
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-6 * (turn % 97 + 1))
                for _ in range(5):
                    random_call(kvs, choose)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Interrupted:
                struck += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert struck > 100
    assert kvs._client.size == counted(kvs._client)
    kvs.set("key", 1)
    assert kvs.get("key") == 1

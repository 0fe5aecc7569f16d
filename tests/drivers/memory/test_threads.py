"""The memory driver in several threads, and at a million entries."""

from __future__ import annotations

import gc
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from pyramid_kvs.drivers.memory.parts import FULL, distinct
from pyramid_kvs.kvs import KVS

MILLION = 1_000_000


@contextmanager
def repeating(*works: Callable[[], Any]) -> Iterator[list[BaseException]]:
    """Run each work again and again, each in another thread. Yield what they raise."""
    errors: list[BaseException] = []
    ended = threading.Event()

    def repeat(work: Callable[[], Any]) -> None:
        try:
            while not ended.is_set():
                work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=repeat, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield errors
    finally:
        ended.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("count", [1000, 3 * FULL])
def test_listing_and_flushing_beside_readers(count: int) -> None:
    kvs = KVS("memory", {}, "p::")
    keys = [str(number) for number in range(count)]
    kvs.set_many(dict.fromkeys(keys, 1))

    def read() -> None:
        for key in keys[::7]:
            kvs.get(key)
            kvs.raw_load(key, renew=60)

    with repeating(read, read) as errors:
        for _ in range(10):
            assert sorted(kvs.get_keys()) == sorted(keys)
        for _ in range(10):
            kvs.flush()
            kvs.set_many(dict.fromkeys(keys, 1))
    assert errors == []


def test_readers_find_every_key_while_parts_split_and_join() -> None:
    kvs = KVS("memory", {"max_bytes": 2**30})
    kvs.set("kept", "value", 600)
    missing: list[int] = []

    def read() -> None:
        if kvs.get("kept") != "value":
            missing.append(1)

    with repeating(read, read) as errors:
        for _ in range(3):
            kvs.set_many({str(number): 1 for number in range(4 * FULL)})
            assert len(distinct(kvs._client.parts)) > 1
            kvs.delete_many(str(number) for number in range(4 * FULL))
            assert len(distinct(kvs._client.parts)) == 1
    assert missing == errors == []


def test_writers_lose_nothing_while_parts_split() -> None:
    kvs = KVS("memory", {"max_bytes": 2**30})
    counts = [0, 0, 0]

    def add(writer: int) -> None:
        kvs.set(f"{writer}:{counts[writer]}", counts[writer])
        kvs.incr("count")
        counts[writer] += 1

    works = [lambda writer=writer: add(writer) for writer in range(3)]
    with repeating(*works) as errors:
        while sum(counts) < 6 * FULL and not errors:
            time.sleep(0.01)
    assert errors == []
    assert kvs.get("count") == sum(counts)
    for writer, count in enumerate(counts):
        assert all(kvs.get(f"{writer}:{number}") == number for number in range(count))


def test_a_key_removed_while_it_is_read_leaves_nothing() -> None:
    kvs = KVS("memory", {"max_bytes": 200_000})
    keys = [str(number) for number in range(50)]

    def read() -> None:
        for key in keys:
            kvs.get(key)

    with repeating(read, read) as errors:
        for _ in range(300):
            kvs.set_many(dict.fromkeys(keys, 1))
            kvs.delete_many(keys)
    for number in range(2000):
        kvs.raw_set(f"other{number}", "x" * 1000, 60)
    assert errors == []
    part = kvs._client.whole
    assert part.data.keys() == part.deadlines.keys() == part.used.keys()


# -- at a million entries ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def million() -> KVS:
    """A driver with a million keys in a store that can be used under other prefixes too."""
    kvs = KVS("memory", {"name": "million", "max_bytes": 2**30}, "m::")
    for number in range(MILLION):
        kvs.raw_set(str(number), "x" * 20, 600)
    assert len(list(kvs._client)) == MILLION
    return kvs


def longest(call: Callable[[str], Any], times: int) -> float:
    """Return the longest time of a call with any key, in milliseconds of processor time.

    Of three measurements it is the shortest, because a garbage collection may be in one of them.
    """
    return min(max(timed(call) for _ in range(times)) for _ in range(3))


def timed(call: Callable[[str], Any]) -> float:
    key = str(random.randrange(MILLION))
    started = time.thread_time()
    call(key)
    return (time.thread_time() - started) * 1000


def completed_during(long_call: Callable[[], Any], short_call: Callable[[str], Any]) -> int:
    """Return how many calls of one key are completed while a call of many keys runs."""
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(long_call)
        count = 0
        while not running.done():
            short_call(str(random.randrange(MILLION)))
            count += 1
        running.result()
    return count


CALLS: dict[str, Callable[[KVS, str], Any]] = {
    "get": lambda kvs, key: kvs.raw_get(key),
    "set": lambda kvs, key: kvs.raw_set(key, "y" * 30, 600),
    "new": lambda kvs, key: kvs.raw_set("new" + key, "y" * 30, 600),
    "delete": lambda kvs, key: kvs.raw_delete("new" + key),
    "incr": lambda kvs, key: kvs.incr("count" + key),
    "load": lambda kvs, key: kvs.raw_load(key, renew=600),
}


@pytest.mark.parametrize("name", CALLS)
def test_no_call_takes_long(million: KVS, name: str) -> None:
    assert longest(lambda key: CALLS[name](million, key), 30_000) < 50


def test_calls_of_many_keys_let_others_in(million: KVS) -> None:
    """They hold the lock for one part of the store at a time."""
    other = KVS("memory", {"name": "million"}, "o::")
    long_calls = [
        million.get_keys,
        lambda: other.set_many({str(number): 1 for number in range(50_000)}),
        other.flush,
    ]
    for long_call in long_calls:
        assert completed_during(long_call, lambda key: CALLS["set"](million, key)) > 20


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="dictionaries are never left out there")
def test_the_garbage_collector_leaves_the_entries_out(million: KVS) -> None:
    """It stopped all threads for up to a second with an ``OrderedDict`` of tuples."""
    for part in distinct(million._client.parts):
        assert not any(map(gc.is_tracked, (part.data, part.deadlines, part.used)))

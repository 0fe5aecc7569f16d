"""The memory driver in child processes."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from pyramid_kvs.kvs import KVS
from tests.children import FORKS, is_true_in_child


@pytest.mark.parametrize("fork", FORKS)
def test_a_child_has_a_copy(fork: Callable[[], int]) -> None:
    kvs = KVS("memory")
    kvs.set("key", "parent")

    def change() -> bool:
        found = kvs.get("key") == "parent"
        kvs.set("key", "child")
        return found and kvs.get("key") == "child"

    assert is_true_in_child(change, fork)
    assert kvs.get("key") == "parent"


@pytest.mark.parametrize("fork", FORKS)
def test_a_child_writes_although_a_thread_of_the_parent_held_the_lock(
    fork: Callable[[], int],
) -> None:
    kvs = KVS("memory")
    held, forked = threading.Event(), threading.Event()

    def hold() -> None:
        with kvs._client.lock:
            held.set()
            forked.wait(60)

    def write() -> bool:
        kvs.set("set", 1)
        kvs.set_many({"many": 1})
        kvs.update("updated", lambda _: 1)
        kvs.expire("set", 60)
        kvs.delete("many")
        return kvs.incr("count") == 1 and sorted(kvs.get_keys()) == ["count", "set", "updated"]

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(60)
    try:
        assert is_true_in_child(write, fork)
    finally:
        forked.set()
        thread.join()


@pytest.mark.parametrize("fork", FORKS)
def test_a_child_of_a_busy_parent(fork: Callable[[], int]) -> None:
    """The fork comes at any moment of what the parent's threads do."""
    kvs = KVS("memory", {"max_bytes": 100_000})
    ended = threading.Event()

    def write() -> None:
        number = 0
        while not ended.is_set():
            number += 1
            kvs.set(str(number % 3000), "x" * (number % 500))

    def use() -> bool:
        for number in range(500):
            kvs.set(str(number), number)
        return all(kvs.get(str(number)) == number for number in range(400, 500))

    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        assert all(is_true_in_child(use, fork) for _ in range(20))
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def test_threads_of_a_child_share_one_lock() -> None:
    """Each of them finds that the process is new, and only one replaces the lock."""
    kvs = KVS("memory")
    fork_in_c = FORKS[1]

    def count() -> bool:
        threads = [
            threading.Thread(target=lambda: [kvs.incr("count") for _ in range(200)])
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return bool(kvs.get("count") == 1600)

    assert is_true_in_child(count, fork_in_c)

"""``cache.get_or_create``: one computation for a key in a process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from tests.cache.apps import cache_of, run
from tests.children import FORKS, is_true_in_child


def test_a_creator_runs_once_at_a_time() -> None:
    cache = cache_of({"kvs": "memory"})
    calls, results = [], []
    asked = threading.Barrier(8)

    def create() -> list[int]:
        calls.append(1)
        time.sleep(0.05)
        return [1]

    def work() -> None:
        asked.wait(10)
        results.append(cache.get_or_create("key", create))

    run(8, work)
    assert len(calls) == 1
    assert results == [[1]] * 8
    assert len({id(result) for result in results}) == 8
    assert cache._creating == {}


def test_two_keys_are_created_at_the_same_time() -> None:
    cache = cache_of({"kvs": "memory"})
    both = threading.Barrier(2)
    keys = iter(["one", "two"])

    def create() -> str:
        both.wait(10)
        return "made"

    run(2, lambda: cache.get_or_create(next(keys), create))
    assert cache.get_many(["one", "two"]) == {"one": "made", "two": "made"}


def test_a_creator_that_fails_lets_the_next_one_try() -> None:
    cache = cache_of({"kvs": "memory"})
    attempts = []

    def create() -> str:
        attempts.append(1)
        time.sleep(0.02)
        if len(attempts) == 1:
            raise ZeroDivisionError
        return "made"

    results: list[str] = []

    def work() -> None:
        try:
            results.append(cache.get_or_create("key", create))
        except ZeroDivisionError:
            results.append("failed")

    run(3, work)
    assert sorted(results) == ["failed", "made", "made"]
    assert len(attempts) == 2


@pytest.mark.parametrize("fork", FORKS)
def test_a_child_process_does_not_wait_for_a_thread_of_its_parent(
    fork: Callable[[], int],
) -> None:
    cache = cache_of({"kvs": "memory"})
    started, forked = threading.Event(), threading.Event()

    def create() -> str:
        started.set()
        forked.wait(60)
        return "parent"

    thread = threading.Thread(target=cache.get_or_create, args=("key", create))
    thread.start()
    started.wait(60)
    try:
        assert is_true_in_child(
            lambda: cache.get_or_create("key", lambda: "child") == "child", fork
        )
    finally:
        forked.set()
        thread.join()
    assert cache["key"] == "parent"


def test_none_is_created_once() -> None:
    cache = cache_of({"kvs": "memory"})
    calls = []
    for _ in range(2):
        assert cache.get_or_create("key", lambda: calls.append(1)) is None
    assert len(calls) == 1

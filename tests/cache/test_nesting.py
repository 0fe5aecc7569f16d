"""Creators that ask for other keys, for their own, or for each other's: no thread ever hangs."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from itertools import product
from typing import Any

import pytest

from tests.cache.apps import Options, cache_of, run
from tests.cache.fleet import Fleet, shared_cache

WAIT = 0.3


def test_a_creator_may_ask_for_other_keys(store: Options) -> None:
    cache = cache_of(store)

    def create(depth: int) -> Any:
        if depth == 4:
            return []
        return [depth, *cache.get_or_create(f"{depth + 1}", lambda: create(depth + 1))]

    assert cache.get_or_create("0", lambda: create(0)) == [0, 1, 2, 3]
    assert cache["2"] == [2, 3]


@pytest.mark.parametrize("is_stale", [False, True])
def test_a_key_cannot_be_had_inside_its_own_creator(store: Options, is_stale: bool) -> None:
    cache = cache_of(store)
    if is_stale:
        cache.set("key", "old", 60)

    def create() -> str:
        assert cache.get("key") == ("old" if is_stale else None)
        with pytest.raises(RuntimeError, match="'key' was asked for inside its own creator"):
            cache.get_or_create("key", lambda: "inner", 600, stale=90)
        return "made"

    assert cache.get_or_create("key", create, 600, stale=90) == "made"
    assert cache.get_or_create("key", lambda: "again") == "made"


def test_a_key_cannot_be_had_inside_its_own_creator_by_a_detour(store: Options) -> None:
    cache = cache_of(store)

    def detour() -> Any:
        return cache.get_or_create("key", lambda: "inner")

    with pytest.raises(RuntimeError):
        cache.get_or_create("key", lambda: cache.get_or_create("other", detour))
    assert cache.get_or_create("key", lambda: "made") == "made"


def test_another_cache_may_have_the_same_key() -> None:
    one, two = cache_of({"kvs": "memory"}), cache_of({"kvs": "memory"})
    assert one.get_or_create("key", lambda: two.get_or_create("key", lambda: "made")) == "made"


@pytest.mark.parametrize("kvs", ["memory", "redis"])
def test_every_nesting_over_two_keys_and_two_threads_ends(
    kvs: str, request: pytest.FixtureRequest
) -> None:
    options: Options = {"kvs": kvs}
    if kvs == "redis":
        server = request.getfixturevalue("redis_server")
        options["kvs_kwargs"] = {"host": server.host, "port": server.port}
    nestings = list(product(["", "a", "b", "ab"], ["", "a", "b", "ba"], ["a", "b"], ["a", "b"]))
    for number, (of_a, of_b, first, second) in enumerate(nestings):
        results = _nested(options, number, {"a": of_a, "b": of_b}, [first, second])
        assert len(results) == 2
        assert set(results) <= {"a", "b", "RuntimeError"}


def _nested(options: Options, number: int, asked: dict[str, str], keys: list[str]) -> list[Any]:
    cache = cache_of(options)
    results: list[Any] = []
    started = threading.Barrier(2)

    def create(name: str) -> str:
        time.sleep(0.01)
        for other in asked[name]:
            ask(other)
        return name

    def ask(name: str) -> Any:
        return cache.get_or_create(f"{number}{name}", lambda: create(name), 60, wait=WAIT)

    def work() -> None:
        key = keys.pop()
        started.wait(30)
        try:
            results.append(ask(key))
        except RuntimeError:
            results.append("RuntimeError")

    run(2, work)
    return results


def test_two_processes_whose_creators_ask_for_each_other_end(shared: Options) -> None:
    cache = shared_cache(shared)
    started = threading.Event()

    def ask(fleet: Fleet, name: str, other: str) -> Any:
        def create() -> str:
            if not started.is_set():
                started.set()
                fleet.meet()  # both are in their first creator
            return str(ask(fleet, other, name))

        return cache.get_or_create(name, create, 60, wait=1)

    def work(fleet: Fleet) -> Any:
        number = fleet.count_call()
        return ask(fleet, *(("a", "b") if number == 1 else ("b", "a")))

    fleet = Fleet(work, processes=2, threads=1)
    fleet.meet()
    assert fleet.results() == ["RuntimeError"] * 2


def test_a_nested_caller_does_not_wait_longer_than_others_wait_for_the_outer_creator() -> None:
    cache = cache_of({"kvs": "memory"})
    started, ended = threading.Event(), threading.Event()

    def slow() -> str:
        started.set()
        ended.wait(60)
        return "slow"

    thread = threading.Thread(target=cache.get_or_create, args=("inner", slow))
    thread.start()
    started.wait(60)

    def outer() -> Any:
        return cache.get_or_create("inner", lambda: "own", wait=3600)

    assert cache.get_or_create("outer", outer, wait=0.1) == "own"
    ended.set()
    thread.join()


def test_a_thread_that_outlives_a_creator_may_ask_for_its_key() -> None:
    """Such a thread may have a copy of the creator's context."""
    import contextvars

    cache = cache_of({"kvs": "memory"})
    contexts = []
    cache.get_or_create("key", lambda: contexts.append(contextvars.copy_context()))
    cache.delete("key")
    assert contexts[0].run(cache.get_or_create, "key", lambda: "made") == "made"


GREENLETS = """
from gevent import monkey
monkey.patch_all()
import gevent, sys, time
from tests.cache.apps import cache_of

cache = cache_of({"kvs": "redis", "kvs_kwargs": {"host": sys.argv[1], "port": int(sys.argv[2])}})
calls = []

def create():
    calls.append(1)
    time.sleep(0.2)
    return "made"

def ask():
    return cache.get_or_create("key", create, 60, stale=60)

greenlets = [gevent.spawn(ask) for _ in range(20)]
gevent.joinall(greenlets, raise_error=True)
assert [greenlet.value for greenlet in greenlets] == ["made"] * 20
assert len(calls) == 1
"""


def test_greenlets_wait_for_each_other(redis_server: Any) -> None:
    command = [sys.executable, "-c", GREENLETS, redis_server.host, str(redis_server.port)]
    subprocess.run(command, check=True, timeout=120)

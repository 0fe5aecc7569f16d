"""``cache.get_or_create``: one computation for a key in a process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from pyramid_kvs.exceptions import ValueTooLarge
from pyramid_kvs.kvs import CLAIM_KEY
from tests.cache.apps import Options, cache_of, run
from tests.children import FORKS, is_true_in_child
from tests.servers import RedisServer


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
    assert cache._creations._turns == {}


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

    thread = threading.Thread(
        target=cache.get_or_create, args=("key", create), kwargs={"wait": 3600}
    )
    thread.start()
    started.wait(60)
    try:
        assert is_true_in_child(
            lambda: cache.get_or_create("key", lambda: "child", wait=3600) == "child", fork
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


# -- threads of one process ------------------------------------------------------------------


def test_threads_do_not_ask_the_store_while_they_wait_for_each_other(
    redis_server: RedisServer,
) -> None:
    kwargs = {"host": redis_server.host, "port": redis_server.port}
    cache = cache_of({"kvs": "redis", "kvs_kwargs": kwargs})
    cache.get_or_create("another", lambda: 1)
    asked = threading.Barrier(8)

    def create() -> int:
        time.sleep(0.3)
        return 1

    def work() -> None:
        cache.get("key")
        asked.wait(30)
        cache.get_or_create("key", create)

    redis_server.reset_calls()
    run(8, work)
    calls = redis_server.calls()
    assert calls["evalsha"] == 2  # one claim and its release
    assert calls["get"] <= 8 + 8 + 2


def test_a_caller_after_a_delete_does_not_get_the_value_of_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = cache_of({"kvs": "memory"})
    decode, is_stored, may_go_on = cache.client.decode, threading.Event(), threading.Event()

    def slow_decode(data: Any) -> Any:
        is_stored.set()
        may_go_on.wait(30)
        return decode(data)

    first = threading.Thread(target=cache.get_or_create, args=("key", lambda: "old"))
    with monkeypatch.context() as patch:
        patch.setattr(cache.client, "decode", slow_decode)
        first.start()
        assert is_stored.wait(30)
    cache.delete("key")
    threading.Timer(0.5, may_go_on.set).start()
    assert cache.get_or_create("key", lambda: "new") == "new"
    assert cache["key"] == "new"
    first.join(30)


def test_a_thread_waits_no_longer_than_it_wants_to() -> None:
    cache = cache_of({"kvs": "memory"})
    started, ended = threading.Event(), threading.Event()

    def create() -> str:
        started.set()
        ended.wait(60)
        return "first"

    thread = threading.Thread(target=cache.get_or_create, args=("key", create))
    thread.start()
    started.wait(60)
    assert cache.get_or_create("key", lambda: "second", wait=0.05) == "second"
    assert cache.get_or_create("key", lambda: "third", wait=0) == "second"
    cache.delete("key")
    assert cache.get_or_create("key", lambda: "third", wait=0) == "third"
    ended.set()
    thread.join()
    assert cache["key"] == "first"


def test_two_caches_on_one_store_compute_once() -> None:
    """As two processes do. They have nothing in common but the store."""
    caches = [cache_of({"kvs": "memory", "kvs_kwargs": {"name": "shared"}}) for _ in range(4)]
    calls = []
    asked = threading.Barrier(4)

    def create() -> str:
        calls.append(1)
        time.sleep(0.1)
        return "made"

    def work() -> None:
        cache = caches.pop()
        asked.wait(30)
        assert cache.get_or_create("key", create) == "made"

    run(4, work)
    assert len(calls) == 1


def test_a_long_wait_is_possible() -> None:
    cache = cache_of({"kvs": "memory"})
    century = timedelta(days=36525)
    assert cache.get_or_create("key", lambda: 1, century, stale=century, wait=century) == 1


# -- values ----------------------------------------------------------------------------------


def test_the_caller_of_the_creator_gets_what_later_callers_get(store: Options) -> None:
    cache = cache_of(store)
    value = {"a": (1, 2), 3: None}
    assert cache.get_or_create("key", lambda: value) == {"a": [1, 2], "3": None}
    assert cache.get_or_create("key", lambda: value) == {"a": [1, 2], "3": None}
    assert cache.get_or_create("brief", lambda: value, 0) == {"a": [1, 2], "3": None}


@pytest.mark.parametrize("stale", [0, 60])
def test_a_ttl_of_0_stores_nothing(store: Options, stale: int) -> None:
    cache = cache_of(store)
    for ttl in (0, -5):
        assert cache.get_or_create("key", lambda: 1, ttl, stale=stale) == 1
        assert "key" not in cache
    assert cache.get_or_create("key", lambda: 2, 60, stale=stale) == 2


def circular() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize("make", [object, circular, lambda: {(1, 2): 3}])
def test_a_value_that_the_codec_cannot_write_is_a_type_error_with_the_key(
    store: Options, make: Callable[[], Any]
) -> None:
    cache = cache_of(store)
    for call in (
        lambda: cache.get_or_create("key", make),
        lambda: cache.set("key", make()),
        lambda: cache.__setitem__("key", make()),
        lambda: cache.add("key", make()),
        lambda: cache.set_many({"other": 1, "key": make()}),
    ):
        with pytest.raises(TypeError, match=r"^cache key 'key': the codec cannot write it: "):
            call()
    assert "key" not in cache
    assert cache.get_or_create("key", lambda: "made") == "made"


def test_a_value_that_is_too_large_is_refused_and_the_next_caller_tries() -> None:
    cache = cache_of({"kvs": "memory", "kvs_kwargs": {"max_bytes": 10_000}})
    with pytest.raises(ValueTooLarge):
        cache.get_or_create("key", lambda: "x" * 20_000)
    assert cache.get_or_create("key", lambda: "made") == "made"


# -- durations -------------------------------------------------------------------------------


def test_durations_may_be_timedeltas(store: Options) -> None:
    cache = cache_of(store)
    hour = timedelta(hours=1)
    cache.set("set", 1, hour)
    cache.set_many({"many": 1}, hour)
    assert cache.add("added", 1, hour)
    cache.incr("counter", 1, hour)
    cache["expiring"] = 1
    cache.expire("expiring", hour)
    cache.get_or_create("made", lambda: 1, hour / 2, stale=hour / 2, wait=hour)
    for key in ("set", "many", "added", "counter", "expiring", "made"):
        assert 3590 < cache.ttl(key) <= 3601
    cache.decr("other", 1, hour)
    cache.set("set", 1, -hour)
    assert "set" not in cache


@pytest.mark.parametrize("value", ["60", True, object(), [1], b"1", 1j])
def test_other_durations_are_type_errors_that_name_the_argument(value: Any) -> None:
    cache = cache_of({"kvs": "memory"})
    cache["key"] = 1
    for name in ("ttl", "stale", "wait"):
        with pytest.raises(TypeError, match=rf"^{name}: found .*, expected a number of seconds"):
            cache.get_or_create("key", lambda: 1, **{name: value})
    for call in (
        lambda: cache.set("key", 1, value),
        lambda: cache.set_many({"key": 1}, value),
        lambda: cache.add("key", 1, value),
        lambda: cache.incr("key", 1, value),
        lambda: cache.decr("key", 1, value),
        lambda: cache.expire("key", value),
    ):
        with pytest.raises(TypeError, match=r"^ttl: found .*, expected a number of seconds"):
            call()


@pytest.mark.parametrize("value", [-1, -0.5, float("nan"), float("inf"), timedelta(-1)])
def test_a_duration_that_cannot_be_is_a_value_error(value: Any) -> None:
    cache = cache_of({"kvs": "memory"})
    for name in ("stale", "wait"):
        with pytest.raises(ValueError, match=f"^{name}: found "):
            cache.get_or_create("key", lambda: 1, **{name: value})


@pytest.mark.parametrize("name", ["stale", "wait"])
def test_none_is_not_a_duration(name: str) -> None:
    with pytest.raises(TypeError, match=f"^{name}: found None"):
        cache_of({"kvs": "memory"}).get_or_create("key", lambda: 1, **{name: None})


# -- keys ------------------------------------------------------------------------------------


def test_a_key_that_looks_like_a_claim_is_a_key_like_others(store: Options) -> None:
    cache = cache_of(store)
    claims = [f"{CLAIM_KEY}key", f"{CLAIM_KEY}{{cache::key}}"]

    def create() -> str:
        for claim in claims:
            assert cache.get_or_create(claim, lambda: "inner", wait=0.05) == "inner"
        return "outer"

    assert cache.get_or_create("key", create, wait=1) == "outer"
    assert cache.get_many(claims) == dict.fromkeys(claims, "inner")
    cache.delete("key")
    assert cache.get_or_create("key", lambda: "again", wait=0.05) == "again"


def test_a_claim_is_not_listed(redis_server: RedisServer) -> None:
    kwargs = {"host": redis_server.host, "port": redis_server.port}
    cache = cache_of({"kvs": "redis", "kvs_kwargs": kwargs})
    cache["other"] = 1
    assert cache.get_or_create("key", cache.list_keys) == ["other"]


def test_several_keys_are_read_without_the_one_that_is_created(store: Options) -> None:
    cache = cache_of(store)
    cache["other"] = 1
    keys = ["key", "other"]
    assert cache.get_or_create("key", lambda: cache.get_many(keys)) == {"other": 1}

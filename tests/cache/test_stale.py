"""``get_or_create`` with ``stale``: an old value instead of waiting or failing."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from pyramid_kvs.cache import ApplicationCache
from pyramid_kvs.kvs import KVS
from tests.cache.apps import Options, cache_of, run
from tests.cache.fleet import CountingProxy, port_of, shared_cache
from tests.stores import SINGLE_SERVERS


def with_old_value(store: Options, left: float = 60) -> ApplicationCache:
    """Return a cache whose key ``key`` has an old value, if it is asked for with ``stale=90``."""
    cache = cache_of(store)
    cache.set("key", "old", left)
    return cache


def fail() -> Any:
    raise ZeroDivisionError


def test_a_value_is_fresh_for_its_ttl_and_kept_for_longer(store: Options) -> None:
    cache = cache_of(store)
    assert cache.get_or_create("key", lambda: "first", 60, stale=600) == "first"
    assert 655 < cache.ttl("key") <= 661
    assert cache.get_or_create("key", lambda: "second", 60, stale=600) == "first"
    cache.expire("key", 598)
    assert cache.get_or_create("key", lambda: "second", 60, stale=600) == "second"
    assert 655 < cache.ttl("key") <= 661


def test_a_ttl_below_a_second(store: Options) -> None:
    cache = cache_of(store)
    assert cache.get_or_create("key", lambda: "first", 0.3, stale=60) == "first"
    time.sleep(0.4)
    assert cache.get("key") == "first"
    assert cache.get_or_create("key", lambda: "second", 60, stale=60) == "second"


def test_others_get_the_old_value_at_once(store: Options) -> None:
    cache = with_old_value(store)
    answered, results = threading.Semaphore(0), []
    asked = threading.Barrier(8)
    calls = []

    def create() -> str:
        calls.append(1)
        for _ in range(7):
            assert answered.acquire(timeout=60)
        return "new"

    def work() -> None:
        asked.wait(30)
        results.append(cache.get_or_create("key", create, 600, stale=90))
        answered.release()

    run(8, work)
    assert sorted(results) == ["new"] + ["old"] * 7
    assert len(calls) == 1
    assert cache["key"] == "new"


def test_without_stale_a_kept_value_is_fresh(store: Options) -> None:
    assert with_old_value(store).get_or_create("key", fail) == "old"


def test_a_value_that_never_expires_is_fresh(store: Options) -> None:
    cache = ApplicationCache(KVS(store["kvs"], store.get("kvs_kwargs"), "cache::", None))
    cache.client.initialize_schema()
    assert cache.get_or_create("key", lambda: "made", stale=60) == "made"
    assert cache.ttl("key") < 0
    assert cache.get_or_create("key", fail, stale=10**9) == "made"


def test_a_creator_that_raises_leaves_the_old_value(
    store: Options, caplog: pytest.LogCaptureFixture
) -> None:
    cache = with_old_value(store)
    assert cache.get_or_create("key", fail, 600, stale=90) == "old"
    assert caplog.messages == [
        "cache key 'key': its creator failed, and the old value is used: ZeroDivisionError"
    ]
    assert "ZeroDivisionError" in caplog.text
    for _ in range(3):
        assert cache.get_or_create("key", lambda: "new", 600, stale=90) == "old"
    assert len(caplog.messages) == 1


def test_the_pause_after_a_failure_ends_with_the_old_value(store: Options) -> None:
    cache = with_old_value(store, 1.5)
    assert cache.get_or_create("key", fail, 600, stale=90) == "old"
    assert cache.get_or_create("key", lambda: "new", 600, stale=90) == "old"
    time.sleep(1.6)
    assert cache.get("key") is None
    assert cache.get_or_create("key", lambda: "new", 600, stale=90, wait=1) == "new"


def test_the_pause_after_a_failure_ends_when_the_old_value_is_removed(store: Options) -> None:
    cache = with_old_value(store)
    assert cache.get_or_create("key", fail, 600, stale=90) == "old"
    cache.delete("key")
    began = time.monotonic()
    assert cache.get_or_create("key", lambda: time.monotonic(), 600, stale=90) < began + 4
    assert cache.get_or_create("key", fail, 600, stale=90) > began


def test_an_old_value_that_ends_during_the_computation_is_used_all_the_same() -> None:
    cache = with_old_value({"kvs": "memory"}, 1)

    def create() -> Any:
        while "key" in cache:
            time.sleep(0.01)
        raise ZeroDivisionError

    assert cache.get_or_create("key", create, 600, stale=90) == "old"
    assert cache.get_or_create("key", lambda: "new", 600, stale=90) == "new"


def test_an_exception_that_is_not_an_error_is_raised(store: Options) -> None:
    cache = with_old_value(store)

    def interrupt() -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.get_or_create("key", interrupt, 600, stale=90)
    assert cache["key"] == "old"
    end = time.monotonic() + 30
    while cache.get_or_create("key", lambda: "new", 600, stale=90) == "old":
        assert time.monotonic() < end


def test_an_old_value_that_does_not_decode_does_not_replace_an_error(store: Options) -> None:
    cache = cache_of(store)
    cache.client.raw_set("key", "{", 60)
    with pytest.raises(ZeroDivisionError):
        cache.get_or_create("key", fail, 600, stale=90)
    assert cache.get_or_create("key", lambda: "new", 600, stale=90) == "new"


def test_a_delete_during_a_computation_does_not_stop_it(store: Options) -> None:
    cache = with_old_value(store)
    found: list[Any] = []

    def ask() -> None:
        found.append(cache.get_or_create("key", lambda: "other", 600, stale=90, wait=0))

    def create() -> str:
        cache.delete("key")
        run(1, ask)
        return "new"

    assert cache.get_or_create("key", create, 600, stale=90) == "new"
    assert found == ["other"]
    assert cache["key"] == "new"


@pytest.mark.parametrize("shared", SINGLE_SERVERS, indirect=True)
@pytest.mark.parametrize("stale", [0, 30])
def test_a_hit_takes_one_round_trip(shared: Options, stale: int) -> None:
    with CountingProxy(port_of(shared)) as proxy:
        cache = shared_cache(shared, proxy.port)
        for _ in range(2):
            cache.get_or_create("key", lambda: 1, 60, stale=stale)
        proxy.reset()
        for _ in range(10):
            cache.get_or_create("key", lambda: 1, 60, stale=stale)
        assert proxy.trips == 10

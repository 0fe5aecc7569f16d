"""``get_or_create`` in several processes: one computes, others wait or get the old value."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

from pyramid_kvs.drivers.memcache import claims
from pyramid_kvs.kvs import hooks
from tests.cache.apps import Options
from tests.cache.fleet import CONTEXT, PATIENCE, CountingProxy, Fleet, port_of, shared_cache
from tests.stores import SINGLE_SERVERS

#: Round trips for an expired value: one for each caller, and two more of the one that computes.
TRIPS = {"redis": 34, "memcache": 34, "postgresql": 68}


def until_stale(kvs: str) -> None:
    """Wait until values with a ttl of one second are stale. Memcached counts whole seconds."""
    time.sleep(2.2 if kvs == "memcache" else 1.1)


def test_a_cold_key_is_computed_once(shared: Options) -> None:
    cache = shared_cache(shared)

    def create(fleet: Fleet) -> Any:
        time.sleep(0.3)
        return [fleet.count_call(), "é"]

    def work(fleet: Fleet) -> Any:
        fleet.meet()
        return cache.get_or_create("key", lambda: create(fleet), 60, wait=PATIENCE)

    fleet = Fleet(work)
    fleet.meet()
    assert fleet.results() == [[1, "é"]] * 32
    assert fleet.calls == 1
    assert cache.client.raw_claim("key", 90, 1).owner is not None  # it was released


@pytest.mark.parametrize("left", [30, 600, None], ids=["stale", "fresh", "without expiry"])
def test_a_value_that_does_not_decode_is_computed_once(shared: Options, left: float | None) -> None:
    cache = shared_cache(shared)
    cache.client.raw_set("key", "{", left)

    def create(fleet: Fleet) -> int:
        time.sleep(0.3)
        return fleet.count_call()

    def work(fleet: Fleet) -> Any:
        fleet.meet()
        return cache.get_or_create("key", lambda: create(fleet), 60, stale=90, wait=PATIENCE)

    fleet = Fleet(work, threads=2)
    fleet.meet()
    assert fleet.results() == [1] * 8
    assert fleet.calls == 1


@pytest.mark.parametrize("shared", SINGLE_SERVERS, indirect=True)
def test_after_the_ttl_one_computes_and_nobody_waits(
    shared: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A process that asks whether a claim has ended takes more trips. Here, no process does.
    monkeypatch.setattr(claims, "FIRST_ATTEMPT", PATIENCE)
    monkeypatch.setattr(hooks, "CLAIM_AGAIN", PATIENCE)
    with CountingProxy(port_of(shared)) as proxy:
        cache = shared_cache(shared, proxy.port)
        cache.client.close()
        proxy.reset()
        cache.get("warm")
        proxy.handshake = proxy.trips - 1
        cache.get_or_create("warm", lambda: 1, 60, stale=60)

        def create(fleet: Fleet) -> str:
            fleet.count_call()
            fleet.await_answers(31)
            return "new"

        def work(fleet: Fleet) -> Any:
            cache.get("key")
            fleet.meet()  # all are connected
            cache.get_or_create("warm", lambda: 1, 60, stale=60)
            fleet.meet()
            fleet.meet()  # the test has reset the count
            value = cache.get_or_create("key", lambda: create(fleet), 60, stale=60, wait=PATIENCE)
            fleet.answered()
            return value

        fleet = Fleet(work)
        fleet.meet()
        fleet.meet()
        cache.get_or_create("key", lambda: "old", 1, stale=60)
        until_stale(shared["kvs"])
        proxy.reset()
        fleet.meet()
        assert sorted(fleet.results()) == ["new"] + ["old"] * 31
        assert fleet.calls == 1
        assert proxy.trips <= TRIPS[shared["kvs"]]
        assert cache.get("key") == "new"


def test_a_creator_that_raises_is_not_called_again_for_five_seconds(shared: Options) -> None:
    cache = shared_cache(shared)
    cache.get_or_create("key", lambda: "old", 1, stale=60)
    until_stale(shared["kvs"])

    def create(fleet: Fleet) -> str:
        fleet.count_call()
        raise ZeroDivisionError

    def work(fleet: Fleet) -> Any:
        fleet.meet()
        found: set[Any] = set()
        end = time.monotonic() + 2
        while time.monotonic() < end:
            found.add(cache.get_or_create("key", lambda: create(fleet), 1, stale=60))
            time.sleep(0.05)
        return found

    fleet = Fleet(work)
    began = time.monotonic()
    fleet.meet()
    assert fleet.results() == [{"old"}] * 32
    assert fleet.calls == 1
    until = time.monotonic() + PATIENCE
    while cache.get_or_create("key", lambda: "new", 1, stale=60) == "old":
        assert time.monotonic() < until
        time.sleep(0.1)
    assert time.monotonic() - began > 5


def test_without_an_old_value_the_error_is_raised_and_the_next_one_tries(shared: Options) -> None:
    cache = shared_cache(shared)

    def create(fleet: Fleet) -> str:
        time.sleep(0.1)
        if fleet.count_call() < 3:
            raise ZeroDivisionError
        return "made"

    def work(fleet: Fleet) -> Any:
        fleet.meet()
        return cache.get_or_create("key", lambda: create(fleet), 60, stale=60, wait=PATIENCE)

    fleet = Fleet(work)
    fleet.meet()
    assert sorted(fleet.results()) == ["ZeroDivisionError"] * 2 + ["made"] * 30
    assert fleet.calls == 3


@pytest.mark.parametrize("is_stale", [False, True], ids=["cold", "stale"])
def test_a_killed_process_is_replaced_when_its_claim_ends(shared: Options, is_stale: bool) -> None:
    cache = shared_cache(shared)
    if is_stale:
        cache.get_or_create("key", lambda: "old", 1, stale=60)
        until_stale(shared["kvs"])
    started = CONTEXT.Event()

    def hang() -> None:
        started.set()
        time.sleep(PATIENCE)

    victim = CONTEXT.Process(
        target=cache.get_or_create, args=("key", hang, 1), kwargs={"stale": 60, "wait": 1.5}
    )
    began = time.monotonic()
    victim.start()
    assert started.wait(PATIENCE)
    os.kill(victim.pid or 0, signal.SIGKILL)
    victim.join()
    found = set()
    while "new" not in found and time.monotonic() < began + PATIENCE:
        found.add(cache.get_or_create("key", lambda: "new", 60, stale=60, wait=PATIENCE))
        time.sleep(0.01)
    assert 1.5 < time.monotonic() - began < PATIENCE
    assert found == ({"old", "new"} if is_stale else {"new"})


@pytest.mark.parametrize(("wait", "threads"), [(0.3, 1), (0, 2)])
def test_a_caller_that_has_waited_for_its_time_computes(
    shared: Options, wait: float, threads: int
) -> None:
    cache = shared_cache(shared)

    def create(fleet: Fleet) -> int:
        number = fleet.count_call()
        if number == 1:
            fleet.await_answers(fleet.size - 1)
        return number

    def work(fleet: Fleet) -> Any:
        fleet.meet()
        value = cache.get_or_create("key", lambda: create(fleet), 60, wait=wait)
        fleet.answered()
        return value

    fleet = Fleet(work, threads=threads)
    fleet.meet()
    assert min(fleet.results()) == 1
    assert fleet.calls > 1
    assert cache.get("key") == 1  # it was stored last


def test_a_flush_during_a_computation_frees_the_key(shared: Options) -> None:
    lists_keys = shared["kvs"] != "memcache"
    cache = shared_cache(shared, prefix="cache::" if lists_keys else "")
    started, flushed = CONTEXT.Event(), CONTEXT.Event()

    def create() -> str:
        started.set()
        flushed.wait(PATIENCE)
        return "first"

    process = CONTEXT.Process(target=cache.get_or_create, args=("key", create, 60))
    process.start()
    assert started.wait(PATIENCE)
    if lists_keys:
        assert cache.list_keys() == []
    cache.flush()
    assert cache.get_or_create("key", lambda: "second", 60, wait=PATIENCE) == "second"
    other = cache.client.raw_claim("key", 90, 30).owner
    assert other is not None
    flushed.set()
    process.join(PATIENCE)
    assert process.exitcode == 0
    assert cache["key"] == "first"
    assert cache.client.raw_claim("key", 90, 30).owner is None  # the claim of the other is kept


@pytest.mark.parametrize("ttl", [60, 60.5, None])
@pytest.mark.parametrize("stale", [0, 30])
def test_the_store_has_what_set_stores_and_nothing_else(
    redis_server: Any, ttl: float | None, stale: int
) -> None:
    options = {"kvs_kwargs": {"host": redis_server.host, "port": redis_server.port}}
    cache = shared_cache({"kvs": "redis", **options}, ttl=300)
    cache.get_or_create("key", lambda: {"a": [1, "é"]}, ttl, stale=stale)
    assert redis_server.client.keys() == [b"cache::key"]
    made = redis_server.client.get("cache::key")
    cache.set("key", {"a": [1, "é"]})
    assert redis_server.client.get("cache::key") == made

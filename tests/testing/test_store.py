"""The store of the ``mock`` driver in a test: empty, in trouble, and moved forward in time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pyramid.config import Configurator
from webtest import TestApp

from pyramid_kvs.exceptions import KVSUnavailable
from pyramid_kvs.kvs import KVS
from pyramid_kvs.testing import MockCache, MockStore, empty_store

#: A window of several days, in seconds, so that none ends while the test runs.
DAYS = 500_000


@pytest.fixture
def store() -> Iterator[MockStore]:
    with empty_store() as found:
        yield found


@pytest.fixture
def kvs(store: MockStore) -> KVS:
    return MockCache("mock", {}, "p::", ttl=60)


def test_a_test_gets_an_empty_store_and_restores_the_one_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(MockCache, "cached_data", {b"before": "1"})
    monkeypatch.setattr(MockCache, "last_ttl", 7.0)
    with empty_store() as store:
        assert dict(store) == {}
        assert store.last_ttl is None
        MockCache("mock", {}, "p::").set("key", 1, 42)
        MockCache.seconds_passed = 5
        assert dict(store) == {b"p::key": "1"}
        assert store.last_ttl == 42
    assert MockCache.cached_data == {b"before": "1"}
    assert (MockCache.last_ttl, MockCache.seconds_passed) == (7.0, 0.0)


def test_the_deadlines_of_the_store_before_are_restored() -> None:
    with empty_store() as outer:
        kvs = MockCache("mock", {}, "p::")
        kvs.set("key", 1, 60)
        with empty_store():
            pass
        assert 50 < kvs.ttl_of("key") <= 60
        outer.pass_time(61)
        assert kvs.get("key") is None


def test_the_store_is_a_mapping_of_full_keys(store: MockStore, kvs: KVS) -> None:
    store[b"p::key"] = '{"a": 1}'
    assert kvs.get("key") == {"a": 1}
    assert b"p::key" in store
    assert len(store) == 1
    del store[b"p::key"]
    assert kvs.get("key") is None
    kvs.set("key", 1)
    store.clear()
    assert kvs.get("key") is None
    assert repr(store) == "<MockStore {}>"


def test_data_expire_when_time_passes(store: MockStore, kvs: KVS) -> None:
    kvs.set("key", 1, 60)
    kvs.incr("counter", 1, 120)
    store.pass_time(59)
    assert 0 < kvs.ttl_of("key") <= 1
    store.pass_time(2)
    assert kvs.get_many(["key", "counter"]) == {"counter": 1}
    with pytest.raises(ValueError, match="expected 0 or more"):
        store.pass_time(-1)


READS: list[Callable[[KVS], Any]] = [
    lambda kvs: kvs.get("key"),
    lambda kvs: kvs.get_many(["key"]),
    lambda kvs: kvs.ttl_of("key"),
    lambda kvs: kvs.get_keys(),
    lambda kvs: kvs.delete("key"),
]
WRITES: list[Callable[[KVS], Any]] = [
    lambda kvs: kvs.set("key", 1),
    lambda kvs: kvs.add("other", 1),
    lambda kvs: kvs.incr("counter"),
    lambda kvs: kvs.update("key", lambda old: 2),
    lambda kvs: kvs.expire("key", 5),
    lambda kvs: kvs.check(),
]


@pytest.mark.parametrize("call", READS + WRITES)
def test_nothing_works_on_an_unavailable_store(
    store: MockStore, kvs: KVS, call: Callable[[KVS], Any]
) -> None:
    kvs.set("key", 1)
    with store.unavailable(), pytest.raises(KVSUnavailable, match="the mock store is unavailable"):
        call(kvs)
    call(kvs)


@pytest.mark.parametrize("call", WRITES)
def test_no_write_works_on_a_full_store(
    store: MockStore, kvs: KVS, call: Callable[[KVS], Any]
) -> None:
    kvs.set("key", 1)
    with store.full(), pytest.raises(KVSUnavailable, match="the mock store is full"):
        call(kvs)
    assert kvs.get("key") == 1
    call(kvs)


@pytest.mark.parametrize("call", READS)
def test_reads_and_removals_work_on_a_full_store(
    store: MockStore, kvs: KVS, call: Callable[[KVS], Any]
) -> None:
    kvs.set("key", 1)
    with store.full():
        call(kvs)


def test_a_call_on_a_hung_store_waits(store: MockStore, kvs: KVS) -> None:
    with store.hung(0.2):
        began = time.monotonic()
        with pytest.raises(KVSUnavailable, match=r"did not answer within 0\.2 s"):
            kvs.get("key")
        assert time.monotonic() - began >= 0.2
    assert kvs.get("key") is None


def test_an_outage_inside_another_one_ends_with_it(store: MockStore, kvs: KVS) -> None:
    with store.full():
        with store.unavailable(), pytest.raises(KVSUnavailable):
            kvs.get("key")
        assert kvs.get("key") is None
        with pytest.raises(KVSUnavailable, match="full"):
            kvs.set("key", 1)


@pytest.mark.parametrize("strategy", ["fixed-window", "sliding-window", "gcra"])
def test_a_limit_refills_when_time_passes(store: MockStore, strategy: str) -> None:
    limit = {"kvs": "mock", "by": "address", "limit": 2, "window": DAYS, "strategy": strategy}
    config = Configurator(settings={"kvs.ratelimit": limit})
    config.include("pyramid_kvs.testing")
    config.add_route("home", "/")
    config.add_view(lambda request: "ok", route_name="home", renderer="string")
    app = TestApp(config.make_wsgi_app())
    for _ in range(2):
        for status in (200, 200, 429):
            app.get("/", status=status)
        store.pass_time(3 * DAYS)
    store.clear()
    app.get("/", status=200)

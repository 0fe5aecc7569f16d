"""The pool of the postgresql driver, with threads and processes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pyramid_kvs.exceptions import KVSUnavailable
from pyramid_kvs.kvs import KVS
from tests.children import FORKS, is_true_in_child
from tests.drivers.postgresql.helpers import (
    Make,
    PostgresqlKVS,
    backends,
    count_at_once,
    locked,
    wait_for_blocked,
)
from tests.servers import PostgresServer, wait_until


def test_connections_are_bounded(
    store: PostgresqlKVS, make: Make, postgres_server: PostgresServer
) -> None:
    driver = make(postgres_server, pool_size=2, max_overflow=1, pool_timeout=5)
    store.close()
    wait_until(lambda: not backends(postgres_server), "the end of other connections")
    with ThreadPoolExecutor(8) as pool:
        with locked(postgres_server, "LOCK TABLE kvs"):
            calls = [pool.submit(driver.incr, "n") for _ in range(8)]
            wait_for_blocked(postgres_server, 3)
            assert len(backends(postgres_server)) == 3
        assert sorted(call.result() for call in calls) == list(range(1, 9))
    wait_until(lambda: len(backends(postgres_server)) == 2, "the end of the overflow", 5)


@contextlib.contextmanager
def full_pool(
    make: Make, server: PostgresServer, **kvs_kwargs: Any
) -> Iterator[tuple[KVS, ThreadPoolExecutor]]:
    """Make a driver whose only connection is busy until the block ends."""
    driver = make(server, pool_size=1, max_overflow=0, **kvs_kwargs)
    driver.set("key", 0)
    with ThreadPoolExecutor(4) as pool, locked(server):
        pool.submit(driver.set, "key", 1)
        wait_for_blocked(server)
        yield driver, pool


def test_full_pool(store: PostgresqlKVS, make: Make, postgres_server: PostgresServer) -> None:
    none_free = pytest.raises(KVSUnavailable, match="all 1 connections are in use; none came free")
    with full_pool(make, postgres_server, pool_timeout=0.1) as (driver, _), none_free:
        driver.get("other")
    assert driver.get("other") is None


def test_backlog_of_zero(store: PostgresqlKVS, make: Make, postgres_server: PostgresServer) -> None:
    with full_pool(make, postgres_server, max_backlog=0, pool_timeout=60) as (driver, _):
        started = time.monotonic()
        with pytest.raises(KVSUnavailable, match="0 callers wait"):
            driver.get("other")
        assert time.monotonic() - started < 30
    assert driver.get("other") is None


def test_backlog_of_one(store: PostgresqlKVS, make: Make, postgres_server: PostgresServer) -> None:
    with full_pool(make, postgres_server, max_backlog=1, pool_timeout=30) as (driver, pool):
        waiting = [pool.submit(driver.get, "key") for _ in range(2)]
        wait_until(lambda: any(call.done() for call in waiting), "a call that is refused")
        (refused,) = [call for call in waiting if call.done()]
        assert isinstance(refused.exception(), KVSUnavailable)
        waiting.remove(refused)
    assert waiting[0].result() == 1


def test_backlog_of_zero_opens_all_connections(
    store: PostgresqlKVS, make: Make, postgres_server: PostgresServer
) -> None:
    """A call that opens a connection does not wait."""
    driver = make(postgres_server, pool_size=1, max_overflow=4, max_backlog=0)
    with ThreadPoolExecutor(5) as pool:
        with locked(postgres_server, "LOCK TABLE kvs"):
            calls = [pool.submit(driver.incr, "n") for _ in range(5)]
            wait_for_blocked(postgres_server, 5)
        assert sorted(call.result() for call in calls) == [1, 2, 3, 4, 5]


def test_a_connection_is_recycled(
    store: PostgresqlKVS, make: Make, postgres_server: PostgresServer
) -> None:
    driver = make(postgres_server, pool_recycle=0.001)
    store.close()
    wait_until(lambda: not backends(postgres_server), "the end of other connections")
    driver.get("key")
    first = backends(postgres_server)
    driver.get("key")
    wait_until(lambda: first.isdisjoint(backends(postgres_server)), "the end of the first", 5)


def test_close_and_go_on(store: PostgresqlKVS, postgres_server: PostgresServer) -> None:
    store.set("key", 1)
    store.close()
    wait_until(lambda: not backends(postgres_server), "the end of all connections", 5)
    assert store.get("key") == 1


def test_threads_count_exactly(store: PostgresqlKVS) -> None:
    count_at_once(store)


@pytest.mark.parametrize("fork", FORKS)
def test_fork(
    fork: Callable[[], int], store: PostgresqlKVS, postgres_server: PostgresServer
) -> None:
    """Children open their own connections. The parent's still work after the children's end."""
    store.incr("n")
    before = backends(postgres_server)

    def work(name: str) -> bool:
        store.set(name, name)
        for _ in range(20):
            store.incr("n")
            assert store.get(name) == name
        return True

    def child(name: str) -> bool:
        return is_true_in_child(lambda: work(name), fork)

    with ThreadPoolExecutor(1) as pool:
        parent = pool.submit(work, "parent")
        assert all(child(name) for name in ("a", "b", "c"))
        assert parent.result()
    assert store.get("n") == 81
    assert before <= backends(postgres_server)

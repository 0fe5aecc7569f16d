"""Failovers by sentinels while an application works."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from webtest import TestApp

from pyramid_kvs.drivers.redis.deadline import OutOfTime
from pyramid_kvs.exceptions import KVSError, KVSUnavailable
from pyramid_kvs.kvs import KVS
from tests.drivers.redis.support import pool_of
from tests.outages.apps import build
from tests.servers import RedisSentinel, RedisServer, wait_until

#: Seconds that a connection and a reply may take. A busy machine stops for a while.
TIMEOUT = 2.0
#: Seconds that a machine may take longer than a call.
SLACK = 1.5

Group = Callable[..., RedisSentinel]


def driver_of(group: RedisSentinel, prefix: str = "", **kwargs: Any) -> KVS:
    return KVS("redis", kwargs_of(group, **kwargs), prefix)


def kwargs_of(group: RedisSentinel, **kwargs: Any) -> dict[str, Any]:
    timeouts = {"socket_timeout": TIMEOUT, "socket_connect_timeout": TIMEOUT}
    return {"url": group.url, **timeouts, **kwargs}


class Call(NamedTuple):
    began: float
    seconds: float
    error: KVSError | None


class Load:
    """Operations that threads repeat until the end of the ``with`` statement."""

    def __init__(self, group: RedisSentinel, **kwargs: Any) -> None:
        self.driver = driver_of(group, "load::", **kwargs)
        store = {"kvs": "redis", "kvs_kwargs": kwargs_of(group, **kwargs)}
        self.app = build(session={**store, "key_prefix": "s::"}, cache={**store}).app
        self.acknowledged: list[str] = []
        self.calls: dict[str, list[Call]] = {name: [] for name in self.operations()}
        self._end = threading.Event()
        self._threads = [
            threading.Thread(target=self._repeat, args=item) for item in self.operations().items()
        ]

    def operations(self) -> dict[str, Callable[[int], Any]]:
        driver, browser = self.driver, TestApp(self.app)
        return {
            "get": lambda number: driver.get("key"),
            "set": self._set,
            "set_many": lambda number: driver.set_many({f"m{n}": number for n in range(9)}),
            "update": lambda number: driver.update("update", lambda count: (count or 0) + 1),
            "add": lambda number: driver.add(f"add{number}", 1),
            "session": lambda number: _visit(browser),
            "incr": lambda number: driver.incr("count"),
        }

    def _set(self, number: int) -> None:
        self.driver.set(f"set{number}", number, 3600)
        self.acknowledged.append(f"set{number}")

    def _repeat(self, name: str, operation: Callable[[int], Any]) -> None:
        for number in range(100_000):
            if self._end.is_set():
                return
            began, error = time.monotonic(), None
            try:
                operation(number)
            except KVSError as raised:
                error = raised
            self.calls[name].append(Call(began, time.monotonic() - began, error))
            time.sleep(0.005)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        self.wait_for_calls()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def wait_for_calls(self) -> None:
        """Wait until each thread made some more calls."""
        wanted = {name: len(calls) + 20 for name, calls in self.calls.items()}
        wait_until(lambda: all(len(self.calls[name]) >= wanted[name] for name in wanted), "calls")

    def errors(self, name: str, since: float = 0) -> list[str]:
        return [str(call.error) for call in self.calls[name] if call.error and call.began >= since]

    def slowest(self) -> float:
        return max(call.seconds for calls in self.calls.values() for call in calls)

    def lost(self) -> int:
        """Return how many acknowledged values are not there.

        Replication is in order. So a replica that became the primary has all that was acknowledged
        before some moment, and the values that are not there follow each other.
        """
        found = self.driver.get_many(self.acknowledged)
        marks = "".join("1" if key in found else "0" for key in self.acknowledged)
        assert re.fullmatch("1+0*1+", marks), marks
        return marks.count("0")


def _visit(browser: TestApp) -> None:
    response = browser.get("/visited", status="*")
    if response.status_int == 503:
        raise KVSUnavailable("503")
    assert response.status_int == 200


@pytest.mark.parametrize("version", ["", "valkey-9.1"])
def test_a_graceful_failover(own_redis_sentinel: Group, version: str) -> None:
    """No call fails but counters whose reply was lost, and each ends within its deadline.

    On a busy machine, a failover takes seconds, and a call needs as many.
    """
    group = own_redis_sentinel(version=version)
    before = group.primary()
    patience = 3 * TIMEOUT
    with Load(group, socket_timeout=patience, socket_connect_timeout=patience) as load:
        group.fail_over()
        wait_until(group.is_settled, "the old primary as a replica")
        load.wait_for_calls()
    assert group.primary() is not before
    lost_replies = load.errors("incr")
    assert all(re.search("closed|reset|pipe", error, re.I) for error in lost_replies)
    assert {name: load.errors(name) for name in load.calls if name != "incr"} == {
        name: [] for name in load.calls if name != "incr"
    }
    assert load.slowest() < 2 * patience + SLACK
    print(f"lost: {load.lost()} of {len(load.acknowledged)}, {len(lost_replies)} replies of incr")


@pytest.mark.parametrize("version", ["", "valkey-9.1"])
def test_a_crash(own_redis_sentinel: Group, version: str) -> None:
    """Calls fail within their deadline, and none does that begins when the promotion is known."""
    group = own_redis_sentinel(version=version, down_after=2)
    before = group.primary()
    with Load(group) as load:
        before.kill()
        group.wait_for_promotion(before)
        known = time.monotonic()
        load.wait_for_calls()
    assert {name: load.errors(name, known) for name in load.calls} == {
        name: [] for name in load.calls
    }
    assert load.slowest() < 2 * TIMEOUT + SLACK
    failed = {name: len(load.errors(name)) for name in load.calls}
    print(f"lost: {load.lost()} of {len(load.acknowledged)}; failed before: {failed}")


def test_a_primary_that_hangs(own_redis_sentinel: Group, caplog: pytest.LogCaptureFixture) -> None:
    """It is left alone after a timeout, until the sentinels know another one."""
    group = own_redis_sentinel(down_after=2)
    driver = driver_of(group, socket_timeout=0.5)
    driver.set("key", 1)
    group.wait_for_copies()
    before = group.primary()
    before.pause()
    with pytest.raises(KVSUnavailable):
        driver.get("key")
    started = time.monotonic()
    with pytest.raises(KVSUnavailable, match="is left alone"):
        driver.get("key")
    assert time.monotonic() - started < 1
    group.wait_for_promotion(before)
    driver._transport.breaker.timed_out()  # as if it had just happened
    assert driver.get("key") == 1
    place = f"127.0.0.1:{group.primary().port}"
    assert f"the primary is at {place} now, not at 127.0.0.1:{before.port}" in caplog.text
    assert f"redis at {place} is back; it was unavailable for" in caplog.text
    before.resume()
    wait_until(group.is_settled, "the old primary as a replica")
    assert driver.incr("count") == 1


def test_a_late_failure(own_redis_sentinel: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that could not connect to the old primary does not count against the new one."""
    group = own_redis_sentinel()
    driver, new = driver_of(group), group.replicas()[0]
    driver.get("key")
    driver.close()
    transport = driver._transport
    old = transport.breaker

    def attempt(*_: Any) -> None:
        transport._move_to((new.host, new.port))  # as another thread does
        raise OutOfTime

    monkeypatch.setattr(transport, "_attempt", attempt)
    with pytest.raises(KVSUnavailable):
        driver.get("key")
    assert old.is_open
    assert not transport.breaker.is_open


def test_a_demoted_primary(own_redis_sentinel: Group, redis_version: str) -> None:
    """Its connections work, and it refuses what would write. That is sent to the new one."""
    group = own_redis_sentinel(version=redis_version)
    driver = driver_of(group)
    assert driver.incr("count") == 1
    before = group.primary()
    group.wait_for_copies()
    group.fail_over()
    new = group.primary()
    before.command("REPLICAOF", new.host, new.port)  # sooner than a sentinel, and closing nothing
    connections = new.command("INFO", "stats")["total_connections_received"]
    assert [driver.incr("count") for _ in range(3)] == [2, 3, 4]
    driver.set_many({f"k{number}": number for number in range(9)})
    assert driver.get_many([f"k{number}" for number in range(9)])["k8"] == 8
    assert new.command("INFO", "stats")["total_connections_received"] >= connections + 1
    assert pool_of(driver).counts().in_use == 0


def test_a_primary_without_its_replicas(own_redis_sentinel: Group) -> None:
    """``min-replicas-to-write`` lets it refuse as soon as its replicas follow another one.

    Without it, an old primary acknowledges changes until a sentinel demotes it.
    """
    group = own_redis_sentinel("--min-replicas-to-write", "1", replicas=2)
    driver = driver_of(group)
    assert driver.incr("count") == 1
    group.wait_for_copies()
    before = group.primary()
    group.fail_over()
    new = group.primary()
    wait_until(lambda: new.command("INFO", "replication")["connected_slaves"], "a replica")
    wait_until(lambda: is_refused(before), "an old primary without replicas")
    wait_until(lambda: not is_refused(new), "a new primary with a replica")
    assert driver.incr("count") == 2
    assert new.command("GET", "count") == b"2"


def is_refused(server: RedisServer) -> bool:
    import redis

    try:
        server.command("SET", "other", 1)
    except redis.RedisError:
        return True
    return False


def test_an_old_primary_that_returns(own_redis_sentinel: Group) -> None:
    """It starts as a primary without data. Nobody is sent there, because the sentinels know."""
    group = own_redis_sentinel(down_after=2)
    driver = driver_of(group)
    driver.set("key", 1)
    group.wait_for_copies()
    before = group.primary()
    before.kill()
    group.wait_for_promotion(before)
    assert driver.get("key") == 1
    before.start()
    driver.close()
    assert driver.get("key") == 1
    driver.set("other", 2)
    wait_until(group.is_settled, "the old primary as a replica")
    assert driver.get("other") == 2

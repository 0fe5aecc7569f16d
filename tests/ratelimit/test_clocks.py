"""Application servers whose clocks differ: what they admit together, and how long they refuse."""

from __future__ import annotations

import itertools
import multiprocessing
import random
import time
from collections.abc import Iterator
from typing import Any

import pytest

from pyramid_kvs.kvs import KVS
from pyramid_kvs.ratelimit.counting import LimitCheck, LimitResult, Rule, count, request_counter
from pyramid_kvs.ratelimit.counting.swaps import CLOCK_MARGIN
from tests.ratelimit.stores import STRATEGY_NAMES, Settings, store_settings
from tests.ratelimit.test_other_drivers import OldKVS
from tests.servers import PostgresServer

LIMIT = 100
START = 1_700_000_000_000
DIFFERENCES = [2, 10, 150, 1_000, 10_000, 120_000]
_keys = itertools.count()


def window_for(difference: int) -> int:
    """Return a window in which the difference matters."""
    return max(1_000, difference)


def most(strategy: str, duration: int, window: int) -> float:
    """Return how many requests a strategy admits in some milliseconds."""
    if strategy == "gcra":
        return LIMIT + LIMIT * duration / window
    return LIMIT * (duration // window + 1)


class Servers:
    """Application servers with one store, each with a clock that the test sets."""

    def __init__(self, driver: KVS, strategy: str, window: int, shifts: list[int]) -> None:
        rule = Rule(strategy, LIMIT, window, LIMIT)
        key = f"clocks{next(_keys)}"
        self.now, self.shifts = START, shifts
        self._checks = [LimitCheck(rule, key, key)]
        self._counters = [request_counter(driver) for _ in shifts]
        self._shift = 0

    def time_ns(self) -> int:
        return (self.now + self._shift) * 1_000_000

    def hit(self, server: int) -> LimitResult:
        self._shift = self.shifts[server]
        result = self._counters[server](self._checks).results[0]
        assert result is not None
        return result


@pytest.fixture(params=["memcache", "a driver for 1.0"])
def driver(request: pytest.FixtureRequest) -> Iterator[KVS]:
    """A driver whose store does not tell the time."""
    if request.param == "memcache":
        settings = store_settings("memcache", request)
        driver = KVS("memcache", settings["kvs_kwargs"])
    else:
        driver = OldKVS("old")
    yield driver
    driver.close()


@pytest.mark.parametrize("difference", DIFFERENCES)
@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
def test_servers_admit_at_most_what_their_difference_allows_more(
    driver: KVS, monkeypatch: pytest.MonkeyPatch, strategy: str, difference: int
) -> None:
    window = window_for(difference)
    servers = Servers(driver, strategy, window, [0, difference, difference // 2])
    monkeypatch.setattr(time, "time_ns", servers.time_ns)
    chance = random.Random(difference)
    admitted = 0
    while servers.now - START < 3 * window:
        admitted += sum(servers.hit(chance.randrange(3)).allowed for _ in range(4))
        servers.now += window // 150
    assert admitted <= most(strategy, servers.now - START + difference, window)
    assert admitted >= 2 * LIMIT


@pytest.mark.parametrize("difference", DIFFERENCES)
@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
def test_a_server_refuses_for_no_longer_than_its_difference_more(
    driver: KVS, monkeypatch: pytest.MonkeyPatch, strategy: str, difference: int
) -> None:
    """A server that is ahead admits all that the limit allows; then one that is behind refuses."""
    window = window_for(difference)
    servers = Servers(driver, strategy, window, [0, difference])
    monkeypatch.setattr(time, "time_ns", servers.time_ns)
    while servers.hit(1).allowed:
        pass
    alone = servers.hit(1).retry_ms
    behind = servers.hit(0)
    assert (behind.allowed, behind.retry_ms) == (False, alone + difference)
    servers.now += behind.retry_ms - 1
    assert not servers.hit(0).allowed
    servers.now += 1
    assert servers.hit(0).allowed


@pytest.mark.parametrize("difference", DIFFERENCES)
@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
def test_a_state_that_expires_does_not_forget_the_later_clock(
    strategy: str, difference: int
) -> None:
    """A client that waits until its counter expires gains nothing from the difference either."""
    window = window_for(difference)
    rule = Rule(strategy, LIMIT, window, LIMIT)
    state, expires, now, admitted = None, 0, START, 0
    for _ in range(20):
        for shift in (0, difference):
            allowed = True
            while allowed:
                found = count(state if now < expires else None, now + shift, rule)
                allowed = found.result.allowed
                if allowed:
                    state, expires = found.state, now + found.lives_ms + CLOCK_MARGIN * 1000
                    admitted += 1
        now = expires
    assert admitted <= most(strategy, now - START + difference, window)


_shared: dict[str, Any] = {}


def _ask(shift: int) -> int:
    """Send requests for a second, in a process whose clock is shifted."""
    real = time.time_ns
    time.time_ns = lambda: real() + shift * 1_000_000
    count = request_counter(_shared["driver"])
    _shared["barrier"].wait(60)
    deadline, admitted = time.monotonic() + 1, 0
    while time.monotonic() < deadline:
        admitted += count(_shared["checks"]).allowed
    return admitted


@pytest.mark.parametrize("difference", [10, 150, 120_000])
@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
@pytest.mark.parametrize("name", ["memcache", "postgresql"])
def test_two_processes_hold_the_limit_together(
    request: pytest.FixtureRequest, name: str, strategy: str, difference: int
) -> None:
    """On PostgreSQL, whose clock counts, the difference does not matter at all."""
    settings = store_settings(name, request)
    context = multiprocessing.get_context("fork")
    rule = Rule(strategy, LIMIT, 200, LIMIT)
    _shared.update(
        driver=KVS(settings["kvs"], settings["kvs_kwargs"]),
        barrier=context.Barrier(2),
        checks=[LimitCheck(rule, "k", "k")],
    )
    started = time.monotonic()
    with context.Pool(2) as pool:
        admitted = sum(pool.map(_ask, [0, difference], chunksize=1))
    took = round((time.monotonic() - started) * 1000)
    extra = 0 if name == "postgresql" else difference
    assert LIMIT <= admitted <= most(strategy, took + extra, 200)


def test_postgresql_tells_its_own_time(postgres_server: PostgresServer) -> None:
    driver = KVS("postgresql", {"url": postgres_server.url})
    driver.initialize_schema()
    driver.raw_set("s", "{}", 60)
    for key, renew in ((None, None), ("s", None), ("s", 60), ("absent", 60)):
        before = time.time_ns() // 1_000_000
        found, others, now_ms = driver.raw_load_timed(key, renew, ["x"])
        assert before - 1 <= now_ms <= time.time_ns() // 1_000_000 + 1
        assert (found is not None, others) == (key == "s", {})
    driver.close()


@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
def test_counters_are_kept_for_two_minutes_more_where_clocks_may_differ(
    store: Settings, strategy: str
) -> None:
    driver = KVS(store["kvs"], store["kvs_kwargs"])
    request_counter(driver)([LimitCheck(Rule(strategy, 1, 1000, 1), "k", "k")])
    left = driver.raw_ttl("k")
    assert (left > CLOCK_MARGIN - 5) == (store["kvs"] == "memcache")
    assert 0 < left < CLOCK_MARGIN + 5
    driver.close()

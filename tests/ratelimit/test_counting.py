"""Counting requests on each store, by what a limit asks of the counters."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from pyramid_kvs.kvs import KVS, RunsScriptsBySlot
from pyramid_kvs.ratelimit.counting import (
    COUNT,
    FORCE,
    LOOK,
    MOST,
    Hit,
    LimitCheck,
    Rule,
    request_counter,
)
from tests.ratelimit.stores import STRATEGY_NAMES, Settings
from tests.servers import MemcachedServer, RedisServer


@pytest.fixture
def driver(store: Settings) -> Iterator[KVS]:
    driver = KVS(store["kvs"], store["kvs_kwargs"], key_prefix="p:")
    yield driver
    driver.close()


def of_session(driver: KVS, key: str) -> str:
    """Return the key of a counter of the session at the key ``session``."""
    return driver.companion("session", key) if isinstance(driver, RunsScriptsBySlot) else key


def allowed(hit: Hit) -> list[bool | None]:
    return [result and result.allowed for result in hit.results]


def test_the_session_decides_which_counter_counts(driver: KVS) -> None:
    rule = Rule("fixed-window", 5, 60_000, 5)
    check = LimitCheck(rule, of_session(driver, "by session"), "by address")
    only_known = LimitCheck(rule, of_session(driver, "known only"), None)
    count = request_counter(driver)
    unknown = count([check, only_known], "session", 60)
    driver.raw_set("session", "{}", 60)
    known = count([check, only_known], "session", 60)
    assert [unknown.session, unknown.results[1]] == [None, None]
    assert known.session is not None
    assert [result.remaining for result in known.results if result] == [4, 4]
    assert unknown.results[0] is not None
    assert unknown.results[0].remaining == 4


@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
def test_the_session_decides_which_counter_a_single_limit_counts(
    driver: KVS, strategy: str
) -> None:
    key = of_session(driver, "by session")
    check = LimitCheck(Rule(strategy, 2, 60_000, 2), key, "by address")
    count = request_counter(driver)
    unknown = [count([check], "session", 60) for _ in range(3)]
    assert [allowed(hit) for hit in unknown] == [[True], [True], [False]]
    driver.raw_set("session", "{}", 10)
    known = count([check], "session", 60)
    assert allowed(known) == [True]
    assert known.session is not None
    assert driver.raw_ttl("session") > 50
    assert allowed(count([check], "session")) == [True]
    assert allowed(count([check])) == [False]


@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
def test_every_counter_has_an_expiry(driver: KVS, strategy: str) -> None:
    """Also one with a window of a year, which memcached would take for a date."""
    year = 365 * 86400
    count = request_counter(driver)
    for number in range(4):
        for cost in (1, 1, 5, -1, 2):
            rule = Rule(strategy, 3, year * 1000, 3, cost)
            count([LimitCheck(rule, f"k{number}", f"k{number}")])
        left = driver.raw_ttl(f"k{number}")
        assert year / 2 < left <= 2 * year + 130  # two minutes more for clocks that differ
    assert allowed(count([LimitCheck(Rule(strategy, 3, year * 1000, 3), "k1", "k1")])) == [False]


def test_a_redis_counter_found_without_expiry_gets_one(redis_server: RedisServer) -> None:
    """1.0 left such counters. A full one would otherwise lock its client out forever."""
    driver = KVS("redis", {"url": redis_server.url})
    for found, is_allowed in (("2", True), ("3", False), ("99", False)):
        redis_server.client.set("k", found)
        check = LimitCheck(Rule("fixed-window", 3, 60_000, 3), "k", "k")
        assert allowed(request_counter(driver)([check])) == [is_allowed]
        assert 59 < driver.raw_ttl("k") <= 60


def test_a_shorter_window_applies_at_once(redis_server: RedisServer) -> None:
    driver = KVS("redis", {"url": redis_server.url})
    redis_server.client.set("k", "3", ex=86400)
    check = LimitCheck(Rule("fixed-window", 3, 60_000, 3), "k", "k")
    request_counter(driver)([check])
    assert 59 < driver.raw_ttl("k") <= 60


def test_a_fixed_window_on_redis_is_a_number_as_in_1_0(redis_server: RedisServer) -> None:
    driver = KVS("redis", {"url": redis_server.url})
    check = LimitCheck(Rule("fixed-window", 5, 60_000, 5), "k", "k")
    count = request_counter(driver)
    count([check]), count([check])
    assert redis_server.client.get("k") == b"2"
    assert driver.get("k") == 2


def test_memcached_counts_several_limits_in_two_trips(memcached_server: MemcachedServer) -> None:
    driver = KVS("memcache", {"servers": [memcached_server.url]})
    driver.raw_set("session", "{}", 60)
    checks = [LimitCheck(Rule("fixed-window", 50, 60_000, 50), f"a{n}", f"b{n}") for n in range(3)]
    count = request_counter(driver)
    count(checks, "session", 60)
    before = memcached_server.stats()
    count(checks, "session", 60)
    after = memcached_server.stats()
    counted = {name: int(after[name]) - int(before[name]) for name in ("cmd_set", "cas_hits")}
    assert counted == {"cmd_set": 3, "cas_hits": 3}


# -- modes -------------------------------------------------------------------------------------


def ask(driver: KVS, *rules: Rule) -> Hit:
    checks = [LimitCheck(rule, f"k{number}", f"k{number}") for number, rule in enumerate(rules)]
    return request_counter(driver)(checks)


def remaining(driver: KVS, *rules: Rule) -> list[int | None]:
    looks = [rule._replace(cost=0, mode=COUNT) for rule in rules]
    return [result and result.remaining for result in ask(driver, *looks).results]


@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
def test_a_look_counts_nothing_and_refuses_what_a_count_would(driver: KVS, strategy: str) -> None:
    rule = Rule(strategy, 2, 60_000, 2)
    look = rule._replace(mode=LOOK)
    for left in (2, 2):
        hit = ask(driver, look)
        assert (allowed(hit), hit.results[0] and hit.results[0].remaining) == ([True], left)
    ask(driver, rule), ask(driver, rule)
    hit = ask(driver, look)
    assert (hit.allowed, allowed(hit)) == (False, [False])
    assert hit.results[0] is not None
    assert hit.results[0].retry_ms > 0


@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
def test_a_look_that_refuses_lets_no_other_limit_count(driver: KVS, strategy: str) -> None:
    look, other = Rule(strategy, 1, 60_000, 1, mode=LOOK), Rule("fixed-window", 9, 60_000, 9)
    assert ask(driver, look, other).allowed
    ask(driver, look._replace(mode=COUNT))
    assert not ask(driver, look, other).allowed
    assert remaining(driver, look, other) == [0, 8]


@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
def test_a_forced_count_never_refuses(driver: KVS, strategy: str) -> None:
    rule = Rule(strategy, 2, 60_000, 2)
    hits = [ask(driver, rule._replace(mode=FORCE, cost=3)) for _ in range(2)]
    assert [hit.allowed for hit in hits] == [True, True]
    assert not ask(driver, rule).allowed
    assert ask(driver, rule._replace(cost=-5)).results[0] is not None
    assert remaining(driver, rule) == [1]


@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
def test_a_limit_in_shadow_mode_stops_no_other_limit(driver: KVS, strategy: str) -> None:
    shadow = Rule(strategy, 1, 60_000, 1, is_shadow=True)
    other = Rule("fixed-window", 9, 60_000, 9)
    hits = [ask(driver, shadow, other) for _ in range(3)]
    assert [allowed(hit) for hit in hits] == [[True, True], [False, True], [False, True]]
    assert all(hit.allowed for hit in hits)
    assert remaining(driver, shadow, other) == [0, 6]
    alone = ask(driver, shadow)
    assert (alone.allowed, allowed(alone)) == (True, [False])


@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
def test_a_limit_in_shadow_mode_does_not_count_what_others_refuse(
    driver: KVS, strategy: str
) -> None:
    shadow = Rule(strategy, 9, 60_000, 9, is_shadow=True)
    other = Rule("fixed-window", 1, 60_000, 1)
    assert [ask(driver, shadow, other).allowed for _ in range(3)] == [True, False, False]
    assert remaining(driver, shadow, other) == [8, 0]


def test_units_that_are_returned_late_begin_no_window(driver: KVS) -> None:
    rule = Rule("fixed-window", 9, 300, 9)
    ask(driver, rule)
    time.sleep(0.35)
    ask(driver, rule._replace(cost=-1, age_ms=350))
    time.sleep(0.2)
    ask(driver, rule)
    time.sleep(0.2)
    assert remaining(driver, rule) == [8]


@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
def test_the_largest_numbers_count(driver: KVS, strategy: str) -> None:
    rule = Rule(strategy, MOST, 10**12, MOST, cost=MOST)
    for _ in range(3):
        assert ask(driver, rule._replace(mode=FORCE)).allowed
        assert not ask(driver, rule).allowed
    assert ask(driver, rule._replace(cost=-MOST)).allowed
    assert remaining(driver, rule) == [MOST]

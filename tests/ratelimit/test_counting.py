"""Counting requests on each store, by what a limit asks of the counters."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pyramid_kvs.kvs import KVS
from pyramid_kvs.ratelimit.counting import Hit, LimitCheck, Rule, request_counter
from tests.ratelimit.stores import STRATEGY_NAMES, Settings
from tests.servers import MemcachedServer, RedisServer


@pytest.fixture
def driver(store: Settings) -> Iterator[KVS]:
    driver = KVS(store["kvs"], store["kvs_kwargs"], key_prefix="p:")
    yield driver
    driver.close()


def allowed(hit: Hit) -> list[bool | None]:
    return [result and result.allowed for result in hit.results]


def test_the_session_decides_which_counter_counts(driver: KVS) -> None:
    check = LimitCheck(Rule("fixed-window", 5, 60_000, 5), "by session", "by address")
    only_known = LimitCheck(Rule("fixed-window", 5, 60_000, 5), "known only", None)
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
    check = LimitCheck(Rule(strategy, 2, 60_000, 2), "by session", "by address")
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
        assert year / 2 < left <= 2 * year + 4  # memcached's date may be some seconds behind
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

"""The hooks of drivers that limits stand on: several swaps, and a session with other keys."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pyramid_kvs.kvs import KVS
from pyramid_kvs.limits import LimitCheck, Rule
from tests.ratelimit.stores import STRATEGY_NAMES, Settings
from tests.servers import MemcachedServer, RedisServer


@pytest.fixture
def driver(store: Settings) -> Iterator[KVS]:
    driver = KVS(store["kvs"], store["kvs_kwargs"], key_prefix="p:")
    yield driver
    driver.close()


def test_swaps_several_each_by_itself(driver: KVS) -> None:
    driver.raw_set("changed", "before", 60)
    driver.raw_set("kept", "before", 60)
    loaded = driver.raw_load_many(["changed", "kept"])
    driver.raw_set("kept", "by another", 60)
    driver.raw_set("there", "by another", 60)
    swaps = driver.raw_swap_many(
        [
            ("changed", loaded["changed"], "after", 60),
            ("kept", loaded["kept"], "after", 60),
            ("new", None, "after", 60),
            ("there", None, "after", 60),
            ("gone", loaded["kept"], "after", 60),
        ]
    )
    assert [swap.done for swap in swaps] == [True, False, True, False, False]
    values = driver.raw_get_many(["changed", "kept", "new", "there", "gone"])
    assert {key: text(data) for key, data in values.items()} == {
        "changed": "after",
        "kept": "by another",
        "new": "after",
        "there": "by another",
    }
    assert 0 < driver.raw_ttl("new") <= 60
    assert [swap.current and text(swap.current.data) for swap in swaps] == [
        *(None, "by another", None, "by another", None)
    ]


def test_a_conflict_gives_what_the_next_swap_needs(driver: KVS) -> None:
    driver.raw_set("a", "by another", 60)
    driver.raw_set("b", "by another", 60)
    lost = driver.raw_swap_many([("a", None, "mine", 60), ("b", None, "mine", 60)])
    again = driver.raw_swap_many(
        [("a", lost[0].current, "mine", 60), ("b", lost[1].current, "mine", 60)]
    )
    assert [swap.done for swap in again] == [True, True]


@pytest.mark.parametrize("renew", [None, 100, 100.5])
def test_loads_a_session_with_other_keys(driver: KVS, renew: float | None) -> None:
    driver.raw_set("session", "s", 10)
    driver.raw_set("a", "1", 10)
    session, others = driver.raw_load_session("session", renew, ["a", "b"])
    assert session is not None
    assert text(session.data) == "s"
    assert {key: text(stored.data) for key, stored in others.items()} == {"a": "1"}
    assert (driver.raw_ttl("session") > 90) is (renew is not None)
    assert driver.raw_ttl("a") <= 10
    assert driver.raw_swap("session", session, "new", 10).done


@pytest.mark.parametrize("renew", [None, 100, 100.5])
def test_a_missing_session_is_not_made(driver: KVS, renew: float | None) -> None:
    driver.raw_set("a", "1", 10)
    session, others = driver.raw_load_session("session", renew, ["a"])
    assert session is None
    assert list(others) == ["a"]
    assert driver.raw_get("session") is None
    assert driver.raw_load_session(None, renew, ["a"])[1].keys() == {"a"}


def test_the_session_decides_which_counter_counts(driver: KVS) -> None:
    check = LimitCheck(Rule("fixed-window", 5, 60_000, 5), "by session", "by address")
    free = LimitCheck(Rule("fixed-window", 5, 60_000, 5), "known only", None)
    unknown = driver.raw_hit([check, free], "session", 60)
    driver.raw_set("session", "{}", 60)
    known = driver.raw_hit([check, free], "session", 60)
    assert [unknown.session, unknown.results[1]] == [None, None]
    assert known.session is not None
    assert [result.remaining for result in known.results if result] == [4, 4]
    assert unknown.results[0] is not None
    assert unknown.results[0].remaining == 4


@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
def test_no_counter_is_ever_without_expiry(driver: KVS, strategy: str) -> None:
    """A window of a year too, which memcached would take for a date."""
    year = 365 * 86400
    for number in range(4):
        for cost in (1, 1, 5, -1, 2):
            rule = Rule(strategy, 3, year * 1000, 3, cost)
            driver.raw_hit([LimitCheck(rule, f"k{number}", f"k{number}")], None, None)
        left = driver.raw_ttl(f"k{number}")
        assert year / 2 < left <= 2 * year + 2
    hit = driver.raw_hit([LimitCheck(Rule(strategy, 3, year * 1000, 3), "k1", "k1")], None, None)
    assert [result and result.allowed for result in hit.results] == [False]


def test_a_redis_counter_found_without_expiry_gets_one(redis_server: RedisServer) -> None:
    """1.0 left such; the one that is full too, or its client would be locked out for ever."""
    driver = KVS("redis", {"url": redis_server.url})
    for found, allowed in (("2", True), ("3", False), ("99", False)):
        redis_server.client.set("k", found)
        check = LimitCheck(Rule("fixed-window", 3, 60_000, 3), "k", "k")
        hit = driver.raw_hit([check], None, None)
        assert [result and result.allowed for result in hit.results] == [allowed]
        assert 59 < driver.raw_ttl("k") <= 60


def test_a_shrunk_window_holds_at_once(redis_server: RedisServer) -> None:
    driver = KVS("redis", {"url": redis_server.url})
    redis_server.client.set("k", "3", ex=86400)
    check = LimitCheck(Rule("fixed-window", 3, 60_000, 3), "k", "k")
    driver.raw_hit([check], None, None)
    assert 59 < driver.raw_ttl("k") <= 60


def test_a_fixed_window_on_redis_is_the_number_that_1_0_kept(redis_server: RedisServer) -> None:
    driver = KVS("redis", {"url": redis_server.url})
    check = LimitCheck(Rule("fixed-window", 5, 60_000, 5), "k", "k")
    driver.raw_hit([check], None, None)
    driver.raw_hit([check], None, None)
    assert redis_server.client.get("k") == b"2"
    assert driver.get("k") == 2


def test_memcached_counts_several_limits_in_two_trips(memcached_server: MemcachedServer) -> None:
    driver = KVS("memcache", {"servers": [memcached_server.url]})
    driver.raw_set("session", "{}", 60)
    checks = [LimitCheck(Rule("fixed-window", 50, 60_000, 50), f"a{n}", f"b{n}") for n in range(3)]
    driver.raw_hit(checks, "session", 60)
    before = memcached_server.stats()
    driver.raw_hit(checks, "session", 60)
    after = memcached_server.stats()
    counted = {name: int(after[name]) - int(before[name]) for name in ("cmd_set", "cas_hits")}
    assert counted == {"cmd_set": 3, "cas_hits": 3}


def text(data: str | bytes) -> str:
    return data if isinstance(data, str) else data.decode()

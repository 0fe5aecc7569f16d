"""Clients that are known to be over a limit are refused without asking the store."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from pyramid.request import Request

from pyramid_kvs.kvs import KVS, Stored, Swap
from pyramid_kvs.ratelimit import outage
from pyramid_kvs.ratelimit.counting import FORCE, LOOK, Hit, LimitCheck, LimitResult, Rule
from pyramid_kvs.ratelimit.counting.offenders import CLIENTS, Offenders
from pyramid_kvs.ratelimit.decision import Counters
from pyramid_kvs.ratelimit.store import LimitStore
from tests.ratelimit.stores import STRATEGY_NAMES, Settings, make_app, statuses
from tests.ratelimit.test_other_drivers import OldKVS
from tests.servers import MemcachedServer, RedisServer

FLOOD = 10_000
MINUTE = 60_000


@pytest.fixture
def store(store: Settings) -> Iterator[LimitStore]:
    driver = KVS(store["kvs"], store["kvs_kwargs"])
    yield LimitStore(driver)
    driver.close()


@pytest.fixture
def on_redis(redis_server: RedisServer) -> Iterator[LimitStore]:
    driver = KVS("redis", {"url": redis_server.url})
    yield LimitStore(driver)
    driver.close()


def ask(store: LimitStore, *rules: Rule, session_key: str | None = None) -> Hit:
    checks = [LimitCheck(rule, f"k{number}", f"k{number}") for number, rule in enumerate(rules)]
    hit = outage.count(store, [], checks, session_key)[0]
    assert hit is not None
    return hit


def give_back(store: LimitStore, *rules: Rule, left: int = 0) -> None:
    """Return the units that each rule has just counted.

    :param left: how many units of each limit remained afterwards.
    """
    checks = [LimitCheck(rule, f"k{number}", f"k{number}") for number, rule in enumerate(rules)]
    limits: list[Any] = [object() for _ in rules]
    remaining = dict.fromkeys(limits, left)
    assert Counters(store, limits, checks, is_known=True).give_back(None, 0, remaining)


# -- how often the store is asked --------------------------------------------------------------


def flood(app: Any) -> float:
    """Send refused requests; return the seconds that they took."""
    started = time.monotonic()
    for _ in range(FLOOD):
        response = Request.blank("/", remote_addr="192.0.2.1").get_response(app)
        assert response.status_int == 429
        assert int(response.headers["Retry-After"]) >= 1
    return time.monotonic() - started


def test_a_flood_of_refused_requests_asks_redis_once_a_second(redis_server: RedisServer) -> None:
    kvs = {"kvs": "redis", "kvs_kwargs": {"url": redis_server.url}}
    app = make_app({"limit": 1, "window": 3600, **kvs})
    assert statuses(app, 2) == [200, 429]
    redis_server.reset_calls()
    took = flood(app.app)
    assert redis_server.calls().get("evalsha", 0) <= took + 1


def test_a_flood_of_refused_requests_asks_memcached_once_a_second(
    memcached_server: MemcachedServer,
) -> None:
    kvs = {"kvs": "memcache", "kvs_kwargs": {"servers": [memcached_server.url]}}
    app = make_app({"limit": 1, "window": 3600, **kvs})
    assert statuses(app, 2) == [200, 429]
    before = int(memcached_server.stats()["cmd_get"])
    took = flood(app.app)
    assert int(memcached_server.stats()["cmd_get"]) - before <= took + 1


def test_a_flood_asks_no_other_store_either(
    redis_server: RedisServer, memcached_server: MemcachedServer
) -> None:
    """A store that comes first would count each request, and take it back."""
    first = {"kvs": "redis", "kvs_kwargs": {"url": redis_server.url}}
    second = {"kvs": "memcache", "kvs_kwargs": {"servers": [memcached_server.url]}}
    app = make_app([{"limit": 9, "window": 600, **first}, {"limit": 1, "window": 600, **second}])
    assert statuses(app, 3) == [200, 429, 429]
    redis_server.reset_calls()
    before, started = int(memcached_server.stats()["cmd_get"]), time.monotonic()
    assert set(statuses(app, 100)) == {429}
    took = time.monotonic() - started
    assert redis_server.calls() == {}
    assert int(memcached_server.stats()["cmd_get"]) - before <= took + 1
    time.sleep(1)
    assert app.get("/", status=429).headers["X-RateLimit-Limit"] == "1"


@pytest.mark.parametrize("has_own_store", [True, False])
def test_a_flood_looks_for_its_session_once_a_second(
    redis_server: RedisServer, has_own_store: bool
) -> None:
    """The session is looked for on its own: on another store, or for the second cookie."""
    session = {"kvs": "redis", "kvs_kwargs": {"url": redis_server.url}}
    own = {"kvs": "memory"} if has_own_store else {}
    app = make_app({"limit": 2, "window": 600, **own}, session)
    app.get("/visit")
    cookies = f"session_id={app.cookies['session_id']}"
    if not has_own_store:
        cookies = f"session_id={'0' * 40}; {cookies}"
    app.reset()
    headers = {"Cookie": cookies}
    assert statuses(app, 3, headers=headers) == [200, 200, 429]
    redis_server.reset_calls()
    started = time.monotonic()
    assert set(statuses(app, 50, headers=headers)) == {429}
    took = time.monotonic() - started
    assert redis_server.calls().get("getex", 0) <= took * 2 + 2
    time.sleep(1.1)
    assert statuses(app, 1, headers=headers) == [429]
    assert redis_server.calls()["getex"] >= 1


@pytest.mark.parametrize(
    "refusing", [{}, {"mode": LOOK}, {"is_shadow": True}, {"mode": LOOK, "is_shadow": True}]
)
def test_every_kind_of_refusal_is_remembered(
    on_redis: LimitStore, redis_server: RedisServer, refusing: dict[str, Any]
) -> None:
    rule = Rule("fixed-window", 1, MINUTE, 1)
    ask(on_redis, rule)
    redis_server.reset_calls()
    started = time.monotonic()
    results = [ask(on_redis, rule._replace(**refusing)).results[0] for _ in range(50)]
    assert not any(result is None or result.allowed for result in results)
    assert redis_server.calls()["evalsha"] <= time.monotonic() - started + 1


def test_a_limit_in_shadow_mode_does_not_stop_others_from_counting(on_redis: LimitStore) -> None:
    shadow = Rule("fixed-window", 1, MINUTE, 1, is_shadow=True)
    other = Rule("fixed-window", 9, MINUTE, 9)
    results = [ask(on_redis, shadow, other).results[1] for _ in range(5)]
    assert [result and result.remaining for result in results] == [8, 7, 6, 5, 4]


def test_another_cost_is_asked_for(on_redis: LimitStore) -> None:
    rule = Rule("fixed-window", 5, MINUTE, 5)
    assert not ask(on_redis, rule._replace(cost=6)).allowed
    assert [ask(on_redis, rule).allowed for _ in range(6)] == [True] * 5 + [False]
    assert ask(on_redis, rule._replace(mode=FORCE)).allowed


def test_returned_units_count_at_once_in_this_process(store: LimitStore) -> None:
    rule = Rule("fixed-window", 1, MINUTE, 1)
    assert [ask(store, rule).allowed for _ in range(3)] == [True, False, False]
    give_back(store, rule)
    assert ask(store, rule).allowed


def test_returned_units_count_at_once_although_other_limits_get_none_back(
    on_redis: LimitStore,
) -> None:
    drained, full = Rule("gcra", 1000, 1000, 1000), Rule("fixed-window", 1, MINUTE, 1)
    assert [ask(on_redis, drained, full).allowed for _ in range(2)] == [True, False]
    give_back(on_redis, drained, full, left=1000)
    assert ask(on_redis, drained, full).allowed


def test_a_contended_counter_is_not_remembered() -> None:
    """Its client may be far below the limit."""

    class Busy(OldKVS):
        update_attempts = 2
        is_busy = True

        def raw_swap(self, *args: Any, **options: Any) -> Swap:
            return Swap(False, Stored("f:1:1")) if self.is_busy else super().raw_swap(*args)

    driver = Busy("busy")
    store, rule = LimitStore(driver), Rule("fixed-window", 1000, MINUTE, 1000)
    assert not ask(store, rule).allowed
    driver.is_busy = False
    assert ask(store, rule).allowed


# -- what is answered --------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
def test_no_client_is_refused_for_longer_than_it_was_told(store: LimitStore, strategy: str) -> None:
    rule = Rule(strategy, 1, 200, 1)
    for _ in range(2):
        assert ask(store, rule).allowed
        result = ask(store, rule).results[0]
        assert result is not None
        while not result.allowed:
            time.sleep(result.retry_ms / 1000)
            told, result = result, ask(store, rule).results[0]
            assert result is not None
            # The clock of memcached's counters is cut to milliseconds.
            assert result.allowed or result.retry_ms <= 2 < told.retry_ms
        time.sleep(0.4)


def test_the_time_to_wait_goes_on(on_redis: LimitStore) -> None:
    rule = Rule("fixed-window", 1, MINUTE, 1)
    other = Rule("fixed-window", 9, MINUTE, 9)
    ask(on_redis, rule, other)
    first = ask(on_redis, rule, other).results
    time.sleep(0.3)
    second = ask(on_redis, rule, other).results
    for before, after in zip(first, second, strict=True):
        assert before is not None
        assert after is not None
        assert (after.allowed, after.remaining) == (before.allowed, before.remaining)
        assert 0 < after.reset_ms <= before.reset_ms - 300
    assert first[0] is not None
    assert second[0] is not None
    assert second[0].retry_ms <= first[0].retry_ms - 300


def test_a_known_session_stays_known(on_redis: LimitStore) -> None:
    on_redis.driver.raw_set("session", "{}", 60)
    shadow = Rule("fixed-window", 1, MINUTE, 1, is_shadow=True)
    known = [ask(on_redis, shadow, session_key="session").is_known for _ in range(3)]
    assert known == [True, True, True]
    assert ask(on_redis, shadow, session_key="session").session is None


def test_a_limit_that_would_no_longer_refuse_is_not_named(on_redis: LimitStore) -> None:
    soon, late = Rule("fixed-window", 1, 200, 1), Rule("fixed-window", 1, MINUTE, 1)
    ask(on_redis, soon, late)
    first = ask(on_redis, soon, late)
    time.sleep(0.25)
    second = ask(on_redis, soon, late)
    allowed = [[r and r.allowed for r in hit.results] for hit in (first, second)]
    assert (first.allowed, second.allowed) == (False, False)
    assert allowed == [[False, False], [True, False]]


# -- memory and threads ------------------------------------------------------------------------


def refusal(number: int) -> tuple[list[LimitCheck], Hit]:
    key = f"@address::2001:db8:{number:x}::/64::ratelimit"
    check = LimitCheck(Rule("fixed-window", 1, MINUTE, 1), key, key)
    return [check], Hit([LimitResult(False, 0, MINUTE, MINUTE)], None, False, False)


def deep_size(*roots: object) -> int:
    """Return the bytes of objects and of all that they refer to, but classes."""
    seen: set[int] = set()
    waiting, total = list(roots), 0
    while waiting:
        one = waiting.pop()
        if id(one) not in seen and not isinstance(one, type):
            seen.add(id(one))
            total += sys.getsizeof(one)
            waiting += gc.get_referents(one)
    return total


def test_two_hundred_thousand_clients_take_less_than_eight_megabytes() -> None:
    """The memory is largest when two seconds have each had as many clients as are remembered."""
    offenders = Offenders()
    for number in range(200_000):
        offenders.note(*refusal(number), time.monotonic())
        if number == 100_000:
            time.sleep(1)
    assert sum(map(len, (offenders._new, offenders._old))) <= 2 * CLIENTS
    assert deep_size(offenders._new, offenders._old) < 8 << 20


def test_threads_may_refuse_and_forget_at_the_same_time() -> None:
    offenders = Offenders(clients=50)
    errors: list[Exception] = []

    def run(start: int) -> None:
        try:
            for number in range(start, start + 3000):
                checks, hit = refusal(number % 100)
                offenders.note(checks, hit, time.monotonic())
                found = offenders.find(checks)
                assert found is None or not found.allowed
                if number % 50 == 0:
                    offenders.forget()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number * 13,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []

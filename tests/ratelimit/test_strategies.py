"""The strategies as pure functions, compared with models, and the same strategies in Lua."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pyramid_kvs.drivers.redis import RedisKVS
from pyramid_kvs.kvs import KVS, PackedArguments, RunsScripts, Script
from pyramid_kvs.ratelimit.counting import (
    COUNT,
    FORCE,
    LOOK,
    MOST,
    Hit,
    LimitCheck,
    LimitResult,
    Rule,
    count,
    request_counter,
)
from tests.ratelimit.stores import STRATEGY_NAMES
from tests.ratelimit.test_other_drivers import OldKVS
from tests.servers import RedisServer

START = 1_700_000_000_000


def rule(
    strategy: str, limit: int, window_ms: int, burst: int | None = None, cost: int = 1
) -> Rule:
    return Rule(strategy, limit, window_ms, burst or limit, cost)


class Clocked:
    """A counter in a variable, with a clock that the test sets. An expired state is forgotten."""

    def __init__(self, rule: Rule, now: int = START) -> None:
        self.rule = rule
        self.now = now
        self.state: str | None = None
        self.expires = 0

    def hit(self, cost: int = 1, mode: str = COUNT, age: int = 0) -> LimitResult:
        if self.now >= self.expires:
            self.state = None
        asked = self.rule._replace(cost=cost, mode=mode, age_ms=age)
        counted = count(self.state, self.now, asked)
        if counted.result.allowed and counted.state:
            self.state, self.expires = counted.state, self.now + counted.lives_ms
        return counted.result

    def admitted(self, tries: int) -> int:
        return sum(self.hit().allowed for _ in range(tries))


steps = st.lists(st.tuples(st.integers(0, 700), st.integers(1, 4)), min_size=1, max_size=60)
limits = st.integers(1, 12)


# -- what each strategy admits -----------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
def test_exactly_the_limit_is_admitted_at_once(strategy: str) -> None:
    counter = Clocked(rule(strategy, 7, 1000))
    assert counter.admitted(20) == 7
    assert counter.hit() == LimitResult(False, 0, *[counter.hit().retry_ms] * 2)


@given(steps, limits)
def test_fixed_window_never_passes_its_limit(steps: list[tuple[int, int]], limit: int) -> None:
    counter = Clocked(rule("fixed-window", limit, 1000))
    windows: list[list[int]] = []
    for wait, cost in steps:
        counter.now += wait
        if counter.hit(cost).allowed:
            if not windows or counter.now - windows[-1][0] >= 1000:
                windows.append([counter.now, 0])
            windows[-1][1] += cost
    assert all(total <= limit for _, total in windows)


@given(steps, limits, limits)
def test_gcra_never_passes_burst_and_rate(
    steps: list[tuple[int, int]], limit: int, burst: int
) -> None:
    counter = Clocked(rule("gcra", limit, 1000, burst))
    admitted: list[tuple[int, int]] = []
    for wait, cost in steps:
        counter.now += wait
        if counter.hit(cost).allowed:
            admitted.append((counter.now, cost))
    for first, (since, _) in enumerate(admitted):
        total = 0
        for now, cost in admitted[first:]:
            total += cost
            assert total <= burst + (now - since) * limit / 1000 + 1e-3


@given(steps, limits)
def test_sliding_window_counts_the_previous_window_in_part(
    steps: list[tuple[int, int]], limit: int
) -> None:
    counter = Clocked(rule("sliding-window", limit, 1000))
    start, current, previous = 0, 0, 0
    for wait, cost in steps:
        counter.now += wait
        if counter.now - start >= 2000:
            start, current, previous = counter.now, 0, 0
        elif counter.now - start >= 1000:
            start, current, previous = start + 1000, 0, current
        if not current and not previous:
            start = counter.now
        weighed = previous * (1000 - (counter.now - start)) / 1000 + current
        allowed = counter.hit(cost).allowed
        assert allowed == (weighed + cost <= limit)
        if allowed:
            current += cost
        assert current <= limit


# -- what each strategy reports ----------------------------------------------------------------


@given(st.sampled_from(STRATEGY_NAMES), steps, limits, limits)
def test_retry_is_exact_to_the_millisecond(
    strategy: str, steps: list[tuple[int, int]], limit: int, burst: int
) -> None:
    """The same request is refused a millisecond earlier, and admitted at that time."""
    counter = Clocked(rule(strategy, limit, 1000, burst if strategy == "gcra" else None))
    for wait, cost in steps:
        counter.now += wait
        result = counter.hit(cost)
        if not result.allowed and cost <= counter.rule.burst:
            counter.now += result.retry_ms - 1
            assert not counter.hit(cost).allowed
            counter.now += 1
            assert counter.hit(cost).allowed


@given(st.sampled_from(STRATEGY_NAMES), steps, limits)
def test_more_remains_at_the_reset(strategy: str, steps: list[tuple[int, int]], limit: int) -> None:
    counter = Clocked(rule(strategy, limit, 1000))
    for wait, cost in steps:
        counter.now += wait
        counter.hit(cost)
        seen = counter.hit(0)
        if seen.remaining < limit:
            before = Clocked(counter.rule, counter.now + seen.reset_ms - 1)
            after = Clocked(counter.rule, counter.now + seen.reset_ms)
            for later in (before, after):
                later.state, later.expires = counter.state, counter.expires
            assert seen.reset_ms == 0 or before.hit(0).remaining <= seen.remaining
            assert after.hit(0).remaining > seen.remaining


@given(st.sampled_from(STRATEGY_NAMES), steps, limits)
def test_as_many_requests_are_admitted_as_remain(
    strategy: str, steps: list[tuple[int, int]], limit: int
) -> None:
    counter = Clocked(rule(strategy, limit, 1000))
    for wait, cost in steps:
        counter.now += wait
        counter.hit(cost)
    remaining = counter.hit(0).remaining
    assert counter.admitted(limit + 1) == remaining


@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
def test_units_can_be_returned(strategy: str) -> None:
    counter = Clocked(rule(strategy, 5, 1000))
    counter.hit(4)
    assert counter.hit(-3).remaining == 4
    assert counter.hit(-30).remaining == 5
    assert counter.admitted(9) == 5


def test_units_of_an_earlier_window_do_not_lower_a_later_one() -> None:
    fixed = Clocked(rule("fixed-window", 9, 1000))
    fixed.hit(4)
    fixed.now += 1000
    fixed.hit(3)
    fixed.now += 10
    assert fixed.hit(-4, age=1010).remaining == 6
    assert fixed.hit(-2, age=10).remaining == 8


def test_returned_units_of_the_previous_sliding_window_lower_that_one() -> None:
    sliding = Clocked(rule("sliding-window", 9, 1000))
    sliding.hit(4)
    sliding.now += 1500
    assert sliding.hit(3).remaining == 4
    assert sliding.hit(-4, age=1500).remaining == 6
    assert sliding.hit(-4, age=2600).remaining == 6
    assert sliding.hit(-3, age=0).remaining == 9


@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
def test_a_forced_count_passes_the_limit(strategy: str) -> None:
    counter = Clocked(rule(strategy, 5, 1000))
    assert counter.hit(8, mode=FORCE) == (True, 0, counter.hit(0).reset_ms, 0)
    assert not counter.hit().allowed
    counter.now += 1000
    # The fixed window is over. The others still count some of the eight units.
    assert counter.hit(0).remaining == {"fixed-window": 5, "sliding-window": 0, "gcra": 2}[strategy]


@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
def test_the_largest_counts_do_not_overflow(strategy: str) -> None:
    counter = Clocked(rule(strategy, 5, 10**12))
    for _ in range(3):
        assert counter.hit(MOST, mode=FORCE).allowed
        refused = counter.hit(MOST)
        assert not refused.allowed
        assert max(refused) <= 2 * MOST
    assert counter.expires <= START + MOST


def test_a_burst_above_the_limit_never_shows_more_than_the_limit() -> None:
    counter = Clocked(rule("gcra", 10, 1000, burst=100))
    seen = [counter.hit() for _ in range(101)]
    assert [result.remaining for result in seen] == [10] * 90 + list(range(9, -1, -1)) + [0]
    assert [result.allowed for result in seen] == [True] * 100 + [False]
    assert seen[0].reset_ms == 0
    assert seen[95].reset_ms == 100


@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
@pytest.mark.parametrize(
    "state",
    ["", "17", "{}", "f:1", "g:x:1", "g:1e999:1", "g:nan:3", "s:1:2", "f:-1:9", "\u0663", "f:٣:٣"],
)
def test_an_invalid_state_is_as_if_absent(strategy: str, state: str) -> None:
    fresh = count(None, START, rule(strategy, 3, 1000))
    assert count(state, START, rule(strategy, 3, 1000)) == fresh


@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
def test_a_clock_that_is_behind_waits_longer_by_its_difference(strategy: str) -> None:
    """And it counts at the time of the state, so that the state does not go back."""
    counter = Clocked(rule(strategy, 3, 1000))
    counter.admitted(3)
    refused = counter.hit()
    counter.now -= 60_000
    assert counter.hit().retry_ms == refused.retry_ms + 60_000
    counter.now += 60_000
    assert counter.hit() == refused


@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
def test_a_window_of_a_year_counts_exactly(strategy: str) -> None:
    year = 365 * 86_400_000
    counter = Clocked(rule(strategy, 1_000_000, year))
    assert counter.hit(999_999).allowed
    assert counter.admitted(3) == 1


# -- the same in Lua ---------------------------------------------------------------------------


class ClockedRedis(RedisKVS):
    """Its scripts read the time from a key, which the test sets."""

    def run_packed(self, script: Script, keys: Sequence[bytes], args: PackedArguments) -> Any:
        source = script.source.decode()
        self.has_clock = "redis.call('TIME')" in source
        clocked = source.replace("redis.call('TIME')", "redis.call('HMGET', 'clock', 's', 'us')")
        # The keys must not expire by the clock of the server.
        lasting = clocked.replace("'PX', ttl)", "'PX', 3600000)")
        lasting = lasting.replace("'PX', write[3])", "'PX', 3600000)")
        return super().run_packed(Script(lasting), keys, args)

    run_prepared = RunsScripts.run_prepared

    def set_clock(self, now: int) -> None:
        self._client.hset("clock", mapping={"s": now // 1000, "us": now % 1000 * 1000})


@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
@pytest.mark.parametrize("copies", [1, 2])
def test_lua_counts_as_python_does(
    redis_session: RedisServer, monkeypatch: pytest.MonkeyPatch, strategy: str, copies: int
) -> None:
    """The keys live for an hour by the clock of the server, which the test cannot set.

    Therefore the windows of fixed windows do not end here, and their times differ a little.
    """
    driver, clock = ClockedRedis("redis", {"url": redis_session.url}), [START]
    in_lua, hour = request_counter(driver), 3_600_000
    is_fixed = strategy == "fixed-window"
    waits = st.just(0) if is_fixed else st.integers(-hour // 4, hour)
    ages = st.sampled_from([0, hour]) if is_fixed else st.integers(0, 2 * hour)
    modes = st.tuples(st.sampled_from([COUNT, LOOK, FORCE]), st.booleans(), ages)
    requests = st.tuples(waits, st.integers(-2, 4), *[modes] * copies)
    monkeypatch.setattr(time, "time_ns", lambda: clock[0] * 1_000_000)

    @hypothesis_settings(max_examples=150, deadline=None)
    @given(st.lists(requests, max_size=15), limits, limits)
    def compare(requests: list[Any], limit: int, burst: int) -> None:
        asked = rule(strategy, limit, hour, None if is_fixed else burst)
        in_python = request_counter(OldKVS("old"))
        driver.raw_delete_many([f"lua {n}" for n in range(copies)])
        clock[0] = START
        for wait, cost, *modes in requests:
            clock[0] += wait
            driver.set_clock(clock[0])
            checks = [
                LimitCheck(asked._replace(cost=cost, mode=mode, is_shadow=shadow, age_ms=age), k, k)
                for k, (mode, shadow, age) in zip(["lua 0", "lua 1"], modes, strict=False)
            ]
            assert seen(in_lua(checks)) == seen(in_python(checks))

    def seen(hit: Hit) -> Any:
        results = [result and (result[:2] if is_fixed else result) for result in hit.results]
        return hit.allowed, results

    compare()
    assert driver.has_clock or is_fixed
    driver.close()


# -- every answer, by brute force --------------------------------------------------------------


def states(strategy: str, chance: random.Random) -> Any:
    """Return a random rule, and a state that some requests have left."""
    window = chance.choice([1, 10, 999, 1000, 60_000, 3_600_000])
    limit, burst = (chance.choice([1, 2, 3, 7, 100, 9999]) for _ in range(2))
    counter = Clocked(rule(strategy, limit, window, burst if strategy == "gcra" else None))
    for _ in range(chance.randrange(1, 12)):
        counter.now += chance.randrange(window)
        mode = FORCE if chance.random() < 0.2 else COUNT
        counter.hit(chance.randrange(1, counter.rule.burst + 1), mode=mode)
    counter.now += chance.randrange(window)
    return counter


@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
def test_retry_is_exact_for_thousands_of_refusals(strategy: str) -> None:
    """Waiting exactly as long admits the request; one millisecond less does not."""
    chance, refused = random.Random(strategy), 0
    while refused < 15_600:
        counter = states(strategy, chance)
        cost = chance.randrange(1, counter.rule.burst + 1)
        result = counter.hit(cost)
        if result.allowed:
            continue
        refused += 1
        assert min(result.reset_ms, result.retry_ms) >= 1
        assert 0 <= result.remaining <= counter.rule.limit
        asked, at = counter.rule._replace(cost=cost), counter.now + result.retry_ms
        assert count(counter.state, at, asked).result.allowed
        assert not count(counter.state, at - 1, asked).result.allowed


@pytest.mark.parametrize("strategy", ["sliding-window", "gcra"])
def test_retry_is_exact_in_lua_too(redis_session: RedisServer, strategy: str) -> None:
    """And the answers are those of Python, for states that Python wrote."""
    driver = ClockedRedis("redis", {"url": redis_session.url})
    in_lua, chance, refused = request_counter(driver), random.Random(strategy), 0
    while refused < 600:
        counter = states(strategy, chance)
        cost = chance.randrange(1, counter.rule.burst + 1)
        if counter.state is None or counter.hit(cost).allowed:
            continue
        refused += 1
        asked = counter.rule._replace(cost=cost)
        driver.raw_set("brute", counter.state, 60)
        result = count(counter.state, counter.now, asked).result
        for wait, allowed in ((0, False), (result.retry_ms - 1, False), (result.retry_ms, True)):
            driver.set_clock(counter.now + wait)
            expected = count(counter.state, counter.now + wait, asked).result
            found = in_lua([LimitCheck(asked, "brute", "brute")]).results[0]
            assert (found, expected.allowed) == (expected, allowed)
    driver.close()


def test_a_fixed_window_in_lua_admits_again_when_its_key_has_no_time_left(
    redis_server: RedisServer,
) -> None:
    """Redis shows such a key for a millisecond; a refusal must not say that there is no wait."""
    driver = KVS("redis", {"url": redis_server.url})
    count_request, refused = request_counter(driver), 0
    check = LimitCheck(rule("fixed-window", 1, 2), "k", "k")
    for _ in range(3000):
        result = count_request([check]).results[0]
        assert result is not None
        refused += not result.allowed
        assert result.allowed or min(result.reset_ms, result.retry_ms) >= 1
    assert refused
    driver.close()

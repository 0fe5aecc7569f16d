"""The strategies as pure functions, compared with models, and the same strategies in Lua."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pyramid_kvs.drivers.redis import RedisKVS
from pyramid_kvs.kvs import PackedArguments, Script
from pyramid_kvs.ratelimit.counting import LimitCheck, LimitResult, Rule, count, request_counter
from tests.ratelimit.stores import STRATEGY_NAMES
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

    def hit(self, cost: int = 1) -> LimitResult:
        if self.now >= self.expires:
            self.state = None
        counted = count(self.state, self.now, self.rule._replace(cost=cost))
        if counted.result.allowed:
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


@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
@pytest.mark.parametrize(
    "state",
    ["", "17", "{}", "f:1", "g:x:1", "g:1e999:1", "g:nan:3", "s:1:2", "f:-1:9", "\u0663", "f:٣:٣"],
)
def test_an_invalid_state_is_as_if_absent(strategy: str, state: str) -> None:
    fresh = count(None, START, rule(strategy, 3, 1000))
    assert count(state, START, rule(strategy, 3, 1000)) == fresh


@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
def test_a_clock_that_goes_back_causes_no_wait_of_more_than_two_windows(strategy: str) -> None:
    counter = Clocked(rule(strategy, 3, 1000))
    counter.admitted(3)
    counter.now -= 3_600_000
    assert counter.hit().retry_ms <= 2000


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
        return super().run_packed(Script(clocked), keys, args)

    def set_clock(self, now: int) -> None:
        self._client.hset("clock", mapping={"s": now // 1000, "us": now % 1000 * 1000})


@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
@pytest.mark.parametrize("copies", [1, 2])
def test_lua_counts_as_python_does(redis_session: RedisServer, strategy: str, copies: int) -> None:
    """The keys live for an hour by the clock of the server, which the test cannot set.

    Therefore the windows of fixed windows do not end here, and their times differ a little.
    """
    driver = ClockedRedis("redis", {"url": redis_session.url})
    count_request = request_counter(driver)
    hour = 3_600_000
    waits = st.just(0) if strategy == "fixed-window" else st.integers(0, hour)

    @hypothesis_settings(max_examples=60, deadline=None)
    @given(st.lists(st.tuples(waits, st.integers(-2, 4)), max_size=15), limits, limits)
    def compare(steps: list[tuple[int, int]], limit: int, burst: int) -> None:
        asked = rule(strategy, limit, hour, burst if strategy == "gcra" else None)
        counters = [Clocked(asked) for _ in range(copies)]
        driver.raw_delete_many([f"lua {n}" for n in range(copies)])
        for wait, cost in steps:
            for counter in counters:
                counter.now += wait
            driver.set_clock(counters[0].now)
            check = asked._replace(cost=cost)
            checks = [LimitCheck(check, f"lua {n}", f"lua {n}") for n in range(copies)]
            results = count_request(checks).results
            assert list(map(seen, results)) == [seen(counter.hit(cost)) for counter in counters]

    def seen(result: LimitResult | None) -> Sequence[int]:
        assert result is not None
        return result[:2] if strategy == "fixed-window" else result

    compare()
    assert driver.has_clock or strategy == "fixed-window"
    driver.close()

"""The strategies: each is a pure function from a state to a result and the next state.

Times are integers in milliseconds, so that Python and Lua compute the same. Each state contains a
time, and no time before that one is used: a caller whose clock is behind counts at the time of the
state. So a state never goes back in time, whichever clocks write it in turn.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import NamedTuple

from .rules import FORCE, MOST, Count, LimitResult, Rule

#: A rounding error of this size must not cost a request its place in a full bucket.
EPSILON = 1e-6


def count(state: str | None, now_ms: int, rule: Rule) -> Count:
    """Count one request by the strategy of its rule.

    :param state: of an earlier count; any other string is treated like ``None``, no state.
    """
    return STRATEGIES[rule.strategy](state, now_ms, rule)


def fixed_window(state: str | None, now: int, rule: Rule) -> Count:
    """Count in a window that begins with its first request. State: ``f:count:start``."""
    counted, start = _numbers(_FIXED, state) or (0, now)
    if now - start >= rule.window_ms:
        counted, start = 0, now
    left = start + rule.window_ms - now
    is_late = rule.cost < 0 and rule.age_ms > max(0, now - start)
    cost = 0 if is_late else rule.cost
    if cost > 0 and counted + cost > rule.limit and rule.mode != FORCE:
        return _denied(rule.limit - counted, left, left)
    used = max(0, min(MOST, counted + cost))
    result = LimitResult(True, max(0, rule.limit - used), left, 0)
    state = "" if used == counted else f"f:{used}:{start}"
    return Count(result, state, min(left, rule.window_ms))


def sliding_window(state: str | None, now: int, rule: Rule) -> Count:
    """Count in a window, and the part of the previous window that still overlaps.

    A window begins with its first request, so that it contains the whole of a burst. State:
    ``s:start:current:previous``.
    """
    limit = rule.limit
    before = _Windows.of(state, now, rule.window_ms)
    room = limit - before.used()
    if rule.cost > room and rule.cost > 0 and rule.mode != FORCE:
        remaining = max(0, room)
        return _denied(
            remaining, before.wait(limit - remaining - 1), before.wait(limit - rule.cost)
        )
    after = before.with_cost(rule.cost, rule.age_ms)
    remaining = max(0, limit - after.used())
    result = LimitResult(True, remaining, after.wait(limit - remaining - 1), 0)
    state = "" if after == before else f"s:{after.start}:{after.current}:{after.previous}"
    return Count(result, state, 2 * rule.window_ms - after.elapsed)


class _Windows(NamedTuple):
    """The state of a sliding window at a time."""

    window: int
    start: int
    current: int
    previous: int
    #: How far the time is after the start, and before it by the clock that is behind.
    elapsed: int
    ahead: int

    @classmethod
    def of(cls, state: str | None, now: int, window: int) -> _Windows:
        start, current, previous = _numbers(_SLIDING, state) or (now, 0, 0)
        time = max(now, start)
        ahead = time - now
        if time - start >= 2 * window:
            start, current, previous = time, 0, 0
        elif time - start >= window:
            start, current, previous = start + window, 0, current
        return cls(window, start, current, previous, time - start, ahead)

    def used(self) -> int:
        """Return the units that count."""
        return self.current + _ceil(self.previous * (self.window - self.elapsed), self.window)

    def with_cost(self, cost: int, age: int) -> _Windows:
        """Return the state with more units, or with fewer in the window that counted them."""
        if cost > 0 or age <= self.elapsed:
            return self._replace(current=max(0, min(MOST, self.current + cost)))
        if age <= self.elapsed + self.window:
            return self._replace(previous=max(0, self.previous + cost))
        return self

    def wait(self, room: int) -> int:
        """Return the milliseconds until at most ``room`` units count.

        They are 0 if there is nothing to wait for, as with a ``room`` below 0.
        """
        found = self._until(room)
        return self.ahead + found if found > 0 else 0

    def _until(self, room: int) -> int:
        window, left = self.window, self.window - self.elapsed
        if room < 0 or room >= self.current + self.previous:
            return 0
        if room >= self.current:
            return left - (room - self.current) * window // self.previous
        return left + window - room * window // self.current


def gcra(state: str | None, now: int, rule: Rule) -> Count:
    """Count in a leaky bucket: the generic cell rate algorithm.

    State: ``g:level:time``, the level of the bucket in units at that time. The other formulation
    of the algorithm has an arrival time, which is ``time + level * window / limit``.
    """
    limit, burst, unit = rule.limit, rule.burst, rule.window_ms / rule.limit
    level, at = _level(state) or (0.0, now)
    time = max(now, at)
    level = max(0.0, level - (time - at) * limit / rule.window_ms)
    cost = max(rule.cost, -level)
    used = level + cost
    if cost > 0 and used > burst + EPSILON and rule.mode != FORCE:
        room = max(0, math.floor(burst - level + EPSILON))
        reset = max(1, _drained(level - (burst - room - 1), unit))
        retry = max(reset, _drained(used - burst, unit))
        return _denied(min(limit, room), time - now + reset, time - now + retry)
    used = min(float(MOST), used)
    room = max(0, math.floor(burst - used + EPSILON))
    reset = 0 if room >= limit else _drained(used - max(0, burst - room - 1), unit)
    result = LimitResult(True, min(limit, room), time - now + reset if reset else 0, 0)
    return Count(result, f"g:{used:.17g}:{time}" if cost else "", max(1, _drained(used, unit)))


def _drained(units: float, unit: float) -> int:
    """Return the milliseconds until the level is lower by some units, up to the rounding error."""
    return min(MOST, max(0, math.ceil((units - EPSILON) * unit)))


def _denied(remaining: int, reset: int, retry: int) -> Count:
    reset = max(1, reset)
    return Count(LimitResult(False, max(0, remaining), reset, max(reset, retry)), "", 0)


def _ceil(dividend: int, divisor: int) -> int:
    return -(-dividend // divisor)


_FIXED = re.compile(r"f:(\d{1,15}):(\d{1,15})", re.ASCII)
_SLIDING = re.compile(r"s:(\d{1,15}):(\d{1,15}):(\d{1,15})", re.ASCII)
_GCRA = re.compile(r"g:(\d[\d.e+-]{0,30}):(\d{1,15})", re.ASCII)


def _numbers(pattern: re.Pattern[str], state: str | None) -> tuple[int, ...] | None:
    match = pattern.fullmatch(state or "")
    return tuple(map(int, match.groups())) if match else None


def _level(state: str | None) -> tuple[float, int] | None:
    match = _GCRA.fullmatch(state or "")
    try:
        level, at = (float(match[1]), int(match[2])) if match else (math.inf, 0)
    except ValueError:
        return None
    return (level, at) if level <= MOST else None


STRATEGIES: dict[str, Callable[[str | None, int, Rule], Count]] = {
    "fixed-window": fixed_window,
    "sliding-window": sliding_window,
    "gcra": gcra,
}

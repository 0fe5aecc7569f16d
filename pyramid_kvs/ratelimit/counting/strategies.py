"""The strategies: each is a pure function from a state to a result and the next state.

Times are integers in milliseconds, so that Python and Lua compute the same.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from .rules import Count, LimitResult, Rule

#: A rounding error of this size must not cost a request its place in a full bucket.
EPSILON = 1e-6

#: Above any limit.
MOST = 1e15


def count(state: str | None, now_ms: int, rule: Rule) -> Count:
    """Count one request by the strategy of its rule.

    :param state: of an earlier count; any other string is treated like ``None``, no state.
    """
    return STRATEGIES[rule.strategy](state, now_ms, rule)


def fixed_window(state: str | None, now: int, rule: Rule) -> Count:
    """Count in a window that begins with its first request. State: ``f:count:end``."""
    counted, end = _numbers(_FIXED, state) or (0, now + rule.window_ms)
    if end <= now:
        counted, end = 0, now + rule.window_ms
    # The clock may have gone back, or the window may have become shorter.
    left = min(end - now, rule.window_ms)
    used = max(0, counted + rule.cost)
    if rule.cost > 0 and used > rule.limit:
        return _denied(rule.limit - counted, left, left)
    remaining = max(0, rule.limit - used)
    return Count(LimitResult(True, remaining, left, 0), f"f:{used}:{now + left}", left)


def sliding_window(state: str | None, now: int, rule: Rule) -> Count:
    """Count in a window, and the part of the previous window that still overlaps.

    A window begins with its first request, so that it contains the whole of a burst. State:
    ``s:start:current:previous``.
    """
    window = rule.window_ms
    start, current, previous = _windows(state, now, window)
    elapsed = now - start
    used = current + _ceil(previous * (window - elapsed), window)
    if rule.cost > 0 and used + rule.cost > rule.limit:
        remaining = max(0, rule.limit - used)
        reset = _until_room(rule.limit - remaining - 1, window, elapsed, current, previous)
        retry = _until_room(rule.limit - rule.cost, window, elapsed, current, previous)
        return _denied(remaining, reset, retry)
    current = max(0, current + rule.cost)
    remaining = max(0, min(rule.limit, rule.limit - used - rule.cost))
    reset = _until_room(rule.limit - remaining - 1, window, elapsed, current, previous)
    state = f"s:{start}:{current}:{previous}"
    return Count(LimitResult(True, remaining, reset, 0), state, 2 * window - elapsed)


def _windows(state: str | None, now: int, window: int) -> tuple[int, int, int]:
    start, current, previous = _numbers(_SLIDING, state) or (now, 0, 0)
    start = min(start, now)
    if now - start >= 2 * window:
        return now, 0, 0
    if now - start >= window:
        return start + window, 0, current
    return start, current, previous


def _until_room(room: int, window: int, elapsed: int, current: int, previous: int) -> int:
    """Return the milliseconds until at most ``room`` units count.

    They are 0 if there is nothing to wait for, as with a ``room`` below 0.
    """
    if room < 0 or room >= current + previous:
        return 0
    if room >= current:
        return max(0, window - elapsed - (room - current) * window // previous)
    return window - elapsed + window - room * window // current


def gcra(state: str | None, now: int, rule: Rule) -> Count:
    """Count in a leaky bucket: the generic cell rate algorithm.

    State: ``g:level:time``, the level of the bucket in units at that time. The other formulation
    of the algorithm has an arrival time, which is ``time + level * window / limit``.
    """
    level, at = _level(state) or (0.0, now)
    level = max(0.0, level - max(0, now - at) * rule.limit / rule.window_ms)
    unit = rule.window_ms / rule.limit
    used = max(0.0, level + rule.cost)
    if rule.cost > 0 and used > rule.burst + EPSILON:
        remaining = max(0, math.floor(rule.burst - level + EPSILON))
        reset = _up((level - (rule.burst - remaining - 1)) * unit)
        return _denied(remaining, reset, _up((used - rule.burst) * unit))
    remaining = max(0, math.floor(rule.burst - used + EPSILON))
    reset = _up((used - max(0, rule.burst - remaining - 1)) * unit)
    lives = max(1, math.ceil(used * unit))
    return Count(LimitResult(True, remaining, reset, 0), f"g:{used:.17g}:{now}", lives)


def _up(milliseconds: float) -> int:
    return max(0, math.ceil(milliseconds - EPSILON))


def _denied(remaining: int, reset: int, retry: int) -> Count:
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
    return (level, at) if level < MOST else None


STRATEGIES: dict[str, Callable[[str | None, int, Rule], Count]] = {
    "fixed-window": fixed_window,
    "sliding-window": sliding_window,
    "gcra": gcra,
}

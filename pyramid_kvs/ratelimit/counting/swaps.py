"""Counting by compare-and-set: load, compute in this process, write what is still unchanged.

Without conflicts this takes two round trips: one loads the session and all counters, and one
writes the counters. The states contain their times, because the clock of a store can be coarse:
memcached counts whole seconds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence

from ...kvs import KVS, Stored, SwapRequest, pause
from .rules import Count, Hit, LimitCheck, LimitResult, Rule
from .strategies import count

#: The result of a counter that other requests never stopped changing. All of them were admitted.
CONTENDED = LimitResult(False, 0, 1000, 1000)


class Counter:
    """One counter as it was loaded, and the answer of a rule to it."""

    def __init__(self, key: str, rule: Rule, stored: Stored | None) -> None:
        self.key = key
        self.rule = rule
        self.stored = stored
        self.written = False
        self.count: Count

    def evaluate(self) -> bool:
        """Count one request on what was seen last; return whether it is allowed."""
        self.count = count(_state(self.stored), _now_ms(), self.rule)
        return self.count.result.allowed

    def look(self) -> LimitResult:
        """Return the result of a request that is not counted."""
        if not self.count.result.allowed:
            return self.count.result
        return count(_state(self.stored), _now_ms(), self.rule._replace(cost=0)).result

    def swap_request(self) -> SwapRequest:
        """Return the swap that writes the count.

        Its ttl outlives the state on a clock that may be a second ahead.
        """
        ttl = math.ceil(self.count.lives_ms / 1000) + 1
        return SwapRequest(self.key, self.stored, self.count.state, ttl)


def hit(
    driver: KVS,
    checks: Sequence[LimitCheck],
    session_key: str | None = None,
    renew: float | None = None,
) -> Hit:
    """Count one request; see :class:`~pyramid_kvs.ratelimit.counting.RequestCounter`."""
    session, loaded = _load(driver, checks, session_key, renew)
    counters: list[Counter | None] = []
    for check in checks:
        key = check.unknown_key if session is None else check.key
        counters.append(None if key is None else Counter(key, check.rule, loaded.get(key)))
    present = [counter for counter in counters if counter is not None]
    refused = bool(present) and not _write(driver, present)
    return Hit([_result(counter, refused) for counter in counters], session)


def _load(
    driver: KVS, checks: Sequence[LimitCheck], session_key: str | None, renew: float | None
) -> tuple[Stored | None, dict[str, Stored]]:
    """Load the session, and all counters that may count."""
    keys = list({key for check in checks for key in check[1:] if key is not None})
    if session_key is not None:
        return driver.raw_load_with(session_key, renew, keys)
    return None, driver.raw_load_many(keys) if keys else {}


def _result(counter: Counter | None, refused: bool) -> LimitResult | None:
    if counter is None:
        return None
    return counter.look() if refused else counter.count.result


def _write(driver: KVS, counters: list[Counter]) -> bool:
    """Write all counters, or none if one of them refuses; return whether they are written."""
    waiting = counters
    for attempt in range(driver.update_attempts):
        allowed = [counter.evaluate() for counter in waiting]
        if not all(allowed):
            return _take_back(driver, counters)
        waiting = _swap(driver, waiting)
        if not waiting:
            return True
        pause(attempt)
    for counter in waiting:
        counter.count = counter.count._replace(result=CONTENDED)
    return _take_back(driver, counters)


def _swap(driver: KVS, counters: list[Counter]) -> list[Counter]:
    """Write those counters; return the ones that another process has changed since their load."""
    swaps = driver.raw_swap_many([counter.swap_request() for counter in counters])
    for counter, swap in zip(counters, swaps, strict=True):
        counter.written = swap.done
        if not swap.done:
            counter.stored = swap.current
    return [counter for counter in counters if not counter.written]


def _take_back(driver: KVS, counters: Iterable[Counter]) -> bool:
    """Return what was already counted for a request that is refused in the end."""
    for counter in counters:
        if counter.written and counter.rule.cost > 0:
            stored = driver.raw_load(counter.key)
            refund = counter.rule._replace(cost=-counter.rule.cost)
            _write(driver, [Counter(counter.key, refund, stored)])
    return False


def _state(stored: Stored | None) -> str | None:
    if stored is None:
        return None
    data = stored.data
    return data if isinstance(data, str) else data.decode("ascii", "replace")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

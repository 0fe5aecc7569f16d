"""Count requests on a store that has no script: load, compute here, compare and set.

Two round trips where nobody else writes the same counters: one that loads the session and all
counters, one that writes them. The states carry their own times, since a store's clock may be
coarse: memcached's counts whole seconds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from .limits import Count, Hit, LimitCheck, LimitResult, Rule, count

if TYPE_CHECKING:
    from .kvs import KVS, Stored

Pause = Callable[[int], None]

#: What is said of a counter that others never stopped changing: they all were let in.
CONTENDED = LimitResult(False, 0, 1000, 1000)


class Counter:
    """One counter of the store, as loaded, and what a rule says to it."""

    def __init__(self, key: str, rule: Rule, stored: Stored | None) -> None:
        self.key = key
        self.rule = rule
        self.stored = stored
        self.written = False
        self.count: Count

    def evaluate(self) -> bool:
        """Count once more on what was last seen; return whether it is allowed."""
        self.count = count(_text(self.stored), _now_ms(), self.rule)
        return self.count.result.allowed

    def look(self) -> LimitResult:
        """Return the result of a request that is not counted."""
        if not self.count.result.allowed:
            return self.count.result
        return count(_text(self.stored), _now_ms(), self.rule._replace(cost=0)).result


def hit(
    driver: KVS,
    checks: Sequence[LimitCheck],
    session_key: str | None,
    renew: float | None,
    pause: Pause,
) -> Hit:
    """Count one request; see :meth:`KVS.raw_hit`.

    :param pause: waits after a conflict, the longer the more there were.
    """
    candidates = {key for check in checks for key in check[1:] if key is not None}
    session, loaded = driver.raw_load_session(session_key, renew, sorted(candidates))
    counters: list[Counter | None] = []
    for check in checks:
        key = check.unknown_key if session is None else check.key
        counters.append(None if key is None else Counter(key, check.rule, loaded.get(key)))
    present = [counter for counter in counters if counter is not None]
    refused = bool(present) and not _write(driver, present, pause)
    return Hit([_result(counter, refused) for counter in counters], session)


def _result(counter: Counter | None, refused: bool) -> LimitResult | None:
    if counter is None:
        return None
    return counter.look() if refused else counter.count.result


def _write(driver: KVS, counters: list[Counter], pause: Pause) -> bool:
    """Write all counters or, when one of them refuses, none; return whether they are written."""
    waiting = counters
    for attempt in range(driver.update_attempts):
        allowed = [counter.evaluate() for counter in waiting]
        if not all(allowed):
            return _take_back(driver, counters, pause)
        waiting = _swap(driver, waiting)
        if not waiting:
            return True
        pause(attempt)
    for counter in waiting:
        counter.count = counter.count._replace(result=CONTENDED)
    return _take_back(driver, counters, pause)


def _swap(driver: KVS, counters: list[Counter]) -> list[Counter]:
    """Write those counters and return the ones that another process changed meanwhile."""
    swaps = driver.raw_swap_many(
        [(one.key, one.stored, one.count.state, _whole_seconds(one.count)) for one in counters]
    )
    for counter, swap in zip(counters, swaps, strict=True):
        counter.written = swap.done
        if not swap.done:
            counter.stored = swap.current
    return [counter for counter in counters if not counter.written]


def _take_back(driver: KVS, counters: Iterable[Counter], pause: Pause) -> bool:
    """Give back what was already counted for a request that is refused after all."""
    for counter in counters:
        if counter.written and counter.rule.cost > 0:
            stored = driver.raw_load(counter.key)
            refund = counter.rule._replace(cost=-counter.rule.cost)
            _write(driver, [Counter(counter.key, refund, stored)], pause)
    return False


def _whole_seconds(counted: Count) -> int:
    """Return a ttl that outlives the state on a clock that may be a second ahead."""
    return math.ceil(counted.lives_ms / 1000) + 1


def _text(stored: Stored | None) -> str | None:
    if stored is None:
        return None
    data = stored.data
    return data if isinstance(data, str) else data.decode("ascii", "replace")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

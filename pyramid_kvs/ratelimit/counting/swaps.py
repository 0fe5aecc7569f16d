"""Counting by compare-and-set: load, compute in this process, write what is still unchanged.

Without conflicts this takes two round trips: one loads the session and all counters, and one
writes the counters. The states contain their times, because the clock of a store can be coarse:
memcached counts whole seconds.

Of the threads of a process, only one at a time tries again at a counter that others change, see
``turns.py``. So few writers meet at a counter, whatever the number of threads. They do not pause,
because one that pauses loses to those that do not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext

from ...kvs import KVS, Stored, SwapRequest
from .rules import LOOK, Count, Hit, LimitCheck, LimitResult, Rule
from .strategies import count
from .turns import Turns

#: The result of a counter that other requests never stopped changing. All of them were admitted.
CONTENDED = LimitResult(False, 0, 1000, 1000)

#: How much longer a counter is kept than it is needed, in seconds. Application servers whose clocks
#: differ by less never lose the time of a state.
CLOCK_MARGIN = 120


Clock = Callable[[], int]
TakeTurn = Callable[[list[str]], AbstractContextManager[None]]


class Counter:
    """One counter as it was loaded, and the answer of a rule to it."""

    def __init__(self, key: str, rule: Rule, stored: Stored | None, clock: Clock) -> None:
        self.key = key
        self.rule = rule
        self.stored = stored
        self.written = False
        self.count: Count
        self._clock = clock

    def evaluate(self) -> bool:
        """Count one request on what was seen last; return whether it may pass."""
        self.count = count(_state(self.stored), self._clock(), self.rule)
        return self.count.result.allowed or self.rule.is_shadow

    @property
    def is_due(self) -> bool:
        """Whether there is something to write."""
        return self.count.state != "" and self.rule.mode is not LOOK and not self.written

    def result(self, refused: bool) -> LimitResult:
        """Return the result of the request, which is not counted if a limit refused it."""
        found = self.count.result
        if found.allowed and (refused or self.rule.mode is LOOK):
            return count(_state(self.stored), self._clock(), self.rule._replace(cost=0)).result
        return found


class SwapCounter:
    """Counts requests on a driver by compare-and-set."""

    def __init__(self, driver: KVS) -> None:
        self._driver = driver
        self._turns = Turns()
        # Every clock of an own store is this process's.
        self._margin = CLOCK_MARGIN if driver.is_shared and not driver.has_clock else 1

    def __call__(
        self,
        checks: Sequence[LimitCheck],
        session_key: str | None = None,
        renew: float | None = None,
    ) -> Hit:
        """Count one request; see :class:`~pyramid_kvs.ratelimit.counting.RequestCounter`."""
        keys = list({key for check in checks for key in check[1:] if key is not None})
        if not self._turns.is_contended(keys):
            return self._hit(checks, keys, session_key, renew, self._turns.take)
        with self._turns.take(keys):
            return self._hit(checks, keys, session_key, renew, _no_turn)

    def _hit(
        self,
        checks: Sequence[LimitCheck],
        keys: list[str],
        session_key: str | None,
        renew: float | None,
        turn: TakeTurn,
    ) -> Hit:
        session, loaded, clock = self._load(keys, session_key, renew)
        counters: list[Counter | None] = []
        for check in checks:
            key = check.unknown_key if session is None else check.key
            found = None if key is None else Counter(key, check.rule, loaded.get(key), clock)
            counters.append(found)
        present = [counter for counter in counters if counter is not None]
        refused = bool(present) and not self._write(present, turn)
        results = [None if one is None else one.result(refused) for one in counters]
        return Hit.of(checks, results, session)

    def _load(
        self, keys: list[str], session_key: str | None, renew: float | None
    ) -> tuple[Stored | None, dict[str, Stored], Clock]:
        """Load the session, all counters that may count, and the time."""
        if self._driver.has_clock:
            session, loaded, now_ms = self._driver.raw_load_timed(session_key, renew, keys)
            return session, loaded, _clock_from(now_ms)
        clock = _now_ms if self._driver.is_shared else _monotonic_ms
        if session_key is not None:
            return *self._driver.raw_load_with(session_key, renew, keys), clock
        return None, self._driver.raw_load_many(keys) if keys else {}, clock

    def _write(self, counters: list[Counter], turn: TakeTurn) -> bool:
        """Write all counters, or none if one of them refuses; return whether they are written."""
        waiting = self._try(counters)
        if waiting:
            with turn([counter.key for counter in waiting]):
                waiting = self._try_again(waiting)
        return waiting is not None or self._take_back(counters)

    def _try(self, counters: list[Counter]) -> list[Counter] | None:
        """Write counters; return those that are not written yet, or ``None`` if one refuses."""
        allowed = [counter.evaluate() for counter in counters]
        if not all(allowed):
            return None
        return self._swap([counter for counter in counters if counter.is_due])

    def _try_again(self, counters: list[Counter]) -> list[Counter] | None:
        """Write counters, however often others change them; see :meth:`_try`."""
        waiting: list[Counter] | None = counters
        for _ in range(self._driver.update_attempts - 1):
            self._reload(waiting or [])
            waiting = self._try(waiting or [])
            if not waiting:
                return waiting
        for counter in waiting or []:
            counter.count = counter.count._replace(result=CONTENDED)
        return [] if all(counter.rule.is_shadow for counter in waiting or []) else None

    def _reload(self, counters: list[Counter]) -> None:
        """Load counters again, which may have changed while this thread waited."""
        found = self._driver.raw_load_many([counter.key for counter in counters])
        for counter in counters:
            counter.stored = found.get(counter.key)

    def _swap(self, counters: list[Counter]) -> list[Counter]:
        """Write counters; return the ones that another request has changed since their load."""
        if not counters:
            return []
        swaps = self._driver.raw_swap_many([self._swap_request(counter) for counter in counters])
        for counter, swap in zip(counters, swaps, strict=True):
            counter.written = swap.done
        return [counter for counter in counters if not counter.written]

    def _swap_request(self, counter: Counter) -> SwapRequest:
        """Return the swap that writes a count."""
        ttl = math.ceil(counter.count.lives_ms / 1000) + self._margin
        return SwapRequest(counter.key, counter.stored, counter.count.state, ttl)

    def _take_back(self, counters: Iterable[Counter]) -> bool:
        """Return what was already counted for a request that is refused in the end."""
        for counter in counters:
            if counter.written and counter.rule.cost > 0:
                rule = counter.rule._replace(cost=-counter.rule.cost)
                check = LimitCheck(rule, counter.key, counter.key)
                self._hit([check], [counter.key], None, None, _no_turn)
        return False


def _no_turn(keys: list[str]) -> AbstractContextManager[None]:
    return nullcontext()


def _state(stored: Stored | None) -> str | None:
    if stored is None:
        return None
    data = stored.data
    return data if isinstance(data, str) else data.decode("ascii", "replace")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000


def _clock_from(now_ms: int) -> Clock:
    """Return a clock that goes on from a time."""
    since = _monotonic_ms() - now_ms
    return lambda: _monotonic_ms() - since

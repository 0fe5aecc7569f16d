"""Clients that are known to be over a limit."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import NamedTuple

from ...forks import ProcessLock
from .rules import Hit, LimitCheck, LimitResult
from .swaps import CONTENDED

#: How long a client is refused without asking the store, in seconds.
LONGEST = 1.0

#: How many clients are remembered from one second. A process refuses fewer requests in that time.
CLIENTS = 4096

Key = tuple[LimitCheck, ...]


class Refusal(NamedTuple):
    """What the store has answered, and by the monotonic clock when, and until when it holds."""

    hit: Hit
    since: float
    until: float


class Offenders:
    """Remembers refusals for up to a second, but no longer than the client has to wait.

    A refusal has counted nothing, so that the same answer holds until units become free. Others may
    free them earlier, by returning units or clearing counters; therefore not longer than a second.

    :param clients: how many to remember from one second; those of the second before are kept too.
    """

    def __init__(self, clients: int = CLIENTS) -> None:
        self._clients = clients
        self._lock = ProcessLock()
        self._began = 0.0
        #: When nobody is refused any more, by the monotonic clock.
        self.until = 0.0
        self._new: dict[Key, Refusal] = {}
        self._old: dict[Key, Refusal] = {}

    def find(self, checks: Sequence[LimitCheck]) -> Hit | None:
        """Return the refusal of a request, or ``None`` to ask the store."""
        now, key = monotonic(), tuple(checks)
        refusal = self._new.get(key) or self._old.get(key)
        if refusal is None or now >= refusal.until:
            return None
        passed = int((now - refusal.since) * 1000)
        results = [result and _later(result, passed) for result in refusal.hit.results]
        return refusal.hit._replace(results=results)

    def note(self, checks: Sequence[LimitCheck], hit: Hit, sent: float) -> None:
        """Remember a refusal, unless a limit has counted the request.

        :param sent: when the store was asked.
        """
        wait = _wait(checks, hit)
        if wait is None:
            return
        now = monotonic()
        refusal = Refusal(hit._replace(session=None), now, sent + min(LONGEST, wait / 1000))
        with self._lock:
            if now - self._began >= LONGEST:
                self._old = self._new if now - self._began < 2 * LONGEST else {}
                self._new, self._began = {}, now
            if len(self._new) < self._clients:
                self._new[tuple(checks)] = refusal
                self.until = max(self.until, refusal.until)

    def forget(self) -> None:
        """Ask the store again about every client, because units were returned."""
        with self._lock:
            self._new, self._old, self.until = {}, {}, 0.0


def _wait(checks: Sequence[LimitCheck], hit: Hit) -> int | None:
    """Return for how many milliseconds the answer holds, or ``None`` if it may change at once.

    If a limit refuses, the request waits for the last one that refuses. If all that refuse are in
    shadow mode, the first that would not refuse counts. Any other limit that lets the request pass
    counts it, now or by its response.
    """
    refused: list[int] = []
    shadow: list[int] = []
    for check, result in zip(checks, hit.results, strict=True):
        if result is CONTENDED:
            return None
        if result is not None and not result.allowed:
            (shadow if check.rule.is_shadow else refused).append(result.retry_ms)
        elif result is not None and hit.allowed:
            return None
    return max(refused) if refused else min(shadow)


def _later(result: LimitResult, passed: int) -> LimitResult:
    """Return a result as it is after some milliseconds, in which nothing was counted."""
    reset = max(1, result.reset_ms - passed) if result.reset_ms else 0
    left = max(0, result.retry_ms - passed)
    return LimitResult(not left, result.remaining, reset, max(left, reset) if left else 0)

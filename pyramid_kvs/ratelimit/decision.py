"""``request.ratelimit``: what was decided on a request, and charging it more."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, NoReturn

from pyramid.request import Request
from pyramid.response import Response

from .counting import Hit, LimitCheck, LimitResult, Rule
from .options import Limit
from .response import RateLimitError, add_headers
from .store import LimitStore


class LimitStatus:
    """What one limit says to a request."""

    __slots__ = ("_result", "is_counted", "policy")

    def __init__(self, limit: Limit, result: LimitResult, is_counted: bool = True) -> None:
        self.policy = limit
        self._result = result
        #: False while the store is away and ``on_error`` is ``"allow"``.
        self.is_counted = is_counted

    def __repr__(self) -> str:
        return f"<LimitStatus {self.name!r}: {self.remaining} of {self.limit} remain>"

    @property
    def name(self) -> str:
        return self.policy.name

    @property
    def allowed(self) -> bool:
        return self._result.allowed

    @property
    def limit(self) -> int:
        return self.policy.rule.limit

    @property
    def window(self) -> float:
        """In seconds."""
        return self.policy.window

    @property
    def remaining(self) -> int:
        return self._result.remaining

    @property
    def reset(self) -> float:
        """Seconds until more remains than now."""
        return self._result.reset_ms / 1000

    @property
    def retry_after(self) -> float:
        """Seconds until a request like this one is let in; 0 for one that was."""
        return self._result.retry_ms / 1000


class Counters(NamedTuple):
    """The counters of one store on which a request was counted."""

    store: LimitStore
    limits: list[Limit]
    checks: list[LimitCheck]
    is_known: bool  # the session

    def hit(self, cost: int | None = None, sign: int = 1) -> Hit | None:
        """Count ``cost`` units on each; ``None``: as many as the limit counts for a request."""
        checks = [
            check._replace(rule=_costing(check.rule, cost, sign))
            for check in settled(self.checks, self.is_known)
        ]
        return self.store.hit(self.limits, checks).hit


def settled(checks: Iterable[LimitCheck], is_known: bool) -> list[LimitCheck]:
    """Return checks whose counter no longer depends on the session."""
    keys = [(check.rule, check.key if is_known else check.unknown_key) for check in checks]
    return [LimitCheck(rule, key, key) for rule, key in keys]


def _costing(rule: Rule, cost: int | None, sign: int) -> Rule:
    return rule._replace(cost=sign * (rule.cost if cost is None else cost))


class RequestLimits:
    """What was decided on a request.

    ``results`` has a :class:`LimitStatus` for each limit that applies, and is empty on an exempt
    view. ``limit``, ``remaining`` and ``reset`` are those of the most restrictive one, or
    ``None``.
    """

    __slots__ = ("_counters", "_statuses")

    def __init__(self) -> None:
        self._statuses: dict[Limit, LimitStatus] = {}
        self._counters: list[Counters] = []

    def __repr__(self) -> str:
        return f"<RequestLimits {self.results!r}>"

    @property
    def results(self) -> list[LimitStatus]:
        return list(self._statuses.values())

    @property
    def allowed(self) -> bool:
        return all(status.allowed for status in self._statuses.values())

    @property
    def limit(self) -> int | None:
        status = most_restrictive(self.results)
        return None if status is None else status.limit

    @property
    def remaining(self) -> int | None:
        status = most_restrictive(self.results)
        return None if status is None else status.remaining

    @property
    def reset(self) -> float | None:
        """Seconds until more remains than now."""
        status = most_restrictive(self.results)
        return None if status is None else status.reset

    def charge(self, cost: int = 1) -> None:
        """Count more units for this request on all its limits; best before the work is done.

        :param cost: below zero gives units back.
        :raises RateLimitError: a limit has not so many left; then nothing is counted.
        :raises KVSUnavailable: the store is away, and ``on_error`` is ``"deny"``.
        """
        if isinstance(cost, bool) or not isinstance(cost, int):
            raise TypeError(f"a cost is a whole number, not {type(cost).__name__}")
        done: list[Counters] = []
        for counters in self._counters:
            hit = counters.hit(cost)
            if hit is not None:
                self.note(counters.limits, hit.results)
                if not hit.allowed:
                    self.refuse(done, cost)
                done.append(counters)

    # for the limiter

    @property
    def is_empty(self) -> bool:
        return not self._statuses

    def note(self, limits: Sequence[Limit], results: Iterable[LimitResult | None]) -> None:
        """Keep what a store said of the limits."""
        statuses = self._statuses
        for limit, result in zip(limits, results, strict=True):
            if result is not None:
                statuses[limit] = LimitStatus(limit, result)

    def note_uncounted(self, limits: Iterable[Limit]) -> None:
        """Keep that no store counted on the limits: all they allow remains."""
        for limit in limits:
            self._statuses[limit] = LimitStatus(
                limit, LimitResult(True, limit.rule.burst, 0, 0), is_counted=False
            )

    def add_counters(self, counters: Counters) -> None:
        """Keep where the request was counted."""
        self._counters.append(counters)

    def refuse(self, done: Iterable[Counters], cost: int | None = None) -> NoReturn:
        """Give back what other stores have counted already, and raise."""
        for counters in done:
            hit = counters.hit(cost, -1)
            if hit is not None:
                self.note(counters.limits, hit.results)
        raise RateLimitError([status for status in self.results if not status.allowed])

    def add_headers(self, request: Request, response: Response) -> None:
        """Tell the client; a response callback."""
        statuses = list(self._statuses.values())
        told = [status for status in statuses if status.policy.tells_x]
        add_headers(response, statuses, most_restrictive(told))


def most_restrictive(statuses: Sequence[LimitStatus]) -> LimitStatus | None:
    """Return the limit that refuses, or else the one with the fewest units left."""
    if len(statuses) < 2:
        return statuses[0] if statuses else None
    return min(statuses, key=lambda one: (one.allowed, one.remaining, -one.reset))

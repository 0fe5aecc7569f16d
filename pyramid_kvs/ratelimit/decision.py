"""``request.ratelimit``: what was decided about a request, and charging it more."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from time import monotonic
from typing import NamedTuple, NoReturn, Protocol

from pyramid.registry import Registry
from pyramid.request import Request

from ..events import RateLimitExceeded, current_request, notify
from . import outage
from .counting import FORCE, MOST, Hit, LimitCheck, LimitResult, Rule, returning
from .limits import Limit, LimitStatus, most_restrictive
from .response import RateLimitError, add_headers
from .store import LimitStore


class Counters(NamedTuple):
    """The counters of one store that counted a request."""

    store: LimitStore
    limits: list[Limit]
    checks: list[LimitCheck]
    #: Whether the store knows the session.
    is_known: bool

    def without_shadows(self, hit: Hit) -> Counters:
        """Return the counters without those in shadow mode that would have refused the request.

        These have counted nothing.
        """
        pairs = zip(self.limits, hit.results, strict=True)
        return self.of([limit for limit, result in pairs if result is None or result.allowed])

    def of(self, limits: Collection[Limit]) -> Counters:
        """Return the counters of some of the limits."""
        pairs = zip(self.limits, self.checks, strict=True)
        found = [(limit, check) for limit, check in pairs if limit in limits]
        return self._replace(
            limits=[limit for limit, _ in found], checks=[check for _, check in found]
        )

    def hit(self, cost: int | None = None, mode: str | None = None) -> Hit | None:
        """Count more units on each of them.

        :param cost: ``None`` means the units that the limit counts for a request.
        :param mode: ``None`` means that of the checks.
        """
        rules = [_costing(check.rule, cost, mode) for check in self.checks]
        return self._count(rules)

    def give_back(self, cost: int | None, age_ms: int, left: Mapping[Limit, int]) -> Hit | None:
        """Return units, unless they no longer count.

        :param cost: as for :meth:`hit`.
        :param age_ms: how long ago they were counted.
        :param left: how many units remained when they had been counted.
        """
        self.store.offenders.forget()
        pairs = zip(self.limits, self.checks, strict=True)
        rules = [returning(check.rule, cost, age_ms, left.get(limit)) for limit, check in pairs]
        return self._count(rules)

    def _count(self, rules: Sequence[Rule]) -> Hit | None:
        pairs = zip(resolved(self.checks, self.is_known), rules, strict=True)
        checks = [check._replace(rule=rule) for check, rule in pairs]
        return outage.count(self.store, self.limits, checks)[0]


def resolved(checks: Iterable[LimitCheck], is_known: bool) -> list[LimitCheck]:
    """Return checks whose counters no longer depend on the session."""
    keys = [(check.rule, check.key if is_known else check.unknown_key) for check in checks]
    return [LimitCheck(rule, key, key) for rule, key in keys]


def _costing(rule: Rule, cost: int | None, mode: str | None) -> Rule:
    return rule._replace(
        cost=rule.cost if cost is None else cost, mode=rule.mode if mode is None else mode
    )


class Awaited(Protocol):
    """What waits for the response to a request."""

    def watch(self, request: Request) -> None:
        """Wait for the response to a request, or to another attempt of it."""

    def cancel(self) -> None:
        """Do not count the request, because the limiter itself refuses it."""


class RequestLimits:
    """What was decided about a request.

    ``results`` has a :class:`LimitStatus` for each limit that applies, and is empty on an exempt
    view. ``limit``, ``remaining`` and ``reset`` are those of the most restrictive limit, or
    ``None``.
    """

    #: Adds the header fields to a response; a response callback.
    add_headers = add_headers
    #: Counts by the response; ``None`` means that no limit does.
    outcome: Awaited | None = None
    #: The limits in shadow mode.
    _shadows: frozenset[Limit] = frozenset()
    _charged = 0
    #: When units were last counted, and what remained of the limits.
    _counted_at = 0.0
    _left: dict[Limit, int] | None = None

    def __init__(self, request: object = None) -> None:
        """Begin without limits; the request is not kept, so that there is no reference cycle."""
        #: The result of each limit, ``None`` if nobody was counted.
        self.by_limit: dict[Limit, LimitResult | None] = {}
        self._counters: list[Counters] = []

    def __repr__(self) -> str:
        return f"<RequestLimits {self.results!r}>"

    @property
    def results(self) -> list[LimitStatus]:
        return [LimitStatus(*decided) for decided in self.by_limit.items()]

    @property
    def allowed(self) -> bool:
        return all(status.allowed for status in self.results)

    @property
    def limit(self) -> int | None:
        return most_restrictive(self.results).limit if self.by_limit else None

    @property
    def remaining(self) -> int | None:
        return most_restrictive(self.results).remaining if self.by_limit else None

    @property
    def reset(self) -> float | None:
        """The seconds until more units remain than now."""
        return most_restrictive(self.results).reset if self.by_limit else None

    def charge(self, cost: int = 1, refuse: bool = True) -> None:
        """Count more units for this request on all its limits, best before the work is done.

        :param cost: a negative number returns units. Those of a window that has ended, or that have
            drained in the meantime, change nothing.
        :param refuse: ``False`` counts past a limit, and refuses nothing now. Then the requests
            that follow pay.
        :raises RateLimitError: a limit does not have enough units left. Then nothing is counted.
        :raises ValueError: the cost has more than 15 digits.
        :raises KVSUnavailable: the store is unavailable, and ``on_error`` is ``"deny"``.
        """
        if isinstance(cost, bool) or not isinstance(cost, int):
            raise TypeError(f"a cost is an integer, not {type(cost).__name__}")
        if not -MOST <= cost <= MOST:
            raise ValueError(f"cost: expected a number from -{MOST} to {MOST}")
        if cost < 0:
            self._give_back(self._counters, -cost)
        else:
            self._charge(cost, None if refuse else FORCE)
        self._charged += cost

    def _charge(self, cost: int, mode: str | None) -> None:
        done: list[Counters] = []
        for counters in self._counters:
            hit = counters.hit(cost, mode)
            if hit is not None:
                self.note(counters.limits, hit.results)
                if not hit.allowed:
                    self.refuse(done, cost)
                done.append(counters)
        self._note_counted()

    # -- for the limiter -------------------------------------------------------------------

    @property
    def limits(self) -> Collection[Limit]:
        """The limits that have decided about the request."""
        return [*self.by_limit, *self._shadows]

    def begin_attempt(self, request: Request) -> None:
        """Go on with another attempt, and return what the one before was charged."""
        request.add_response_callback(self.add_headers)
        if self.outcome is not None:
            self.outcome.watch(request)
        charged, self._charged = self._charged, 0
        if charged > 0 or not self.allowed:
            self._give_back(self._counters, charged)
        elif charged:
            self._charge(-charged, FORCE)

    def note(
        self,
        limits: Sequence[Limit],
        results: Iterable[LimitResult | None],
        counters: Counters | None = None,
    ) -> None:
        """Keep the results of a store, or that it has counted nobody.

        :param counters: where the request was counted, without the limits that nothing is charged.
        """
        for limit, result in zip(limits, results):  # noqa: B905  # strict would take twice as long
            if limit.shadow is None:
                self.by_limit[limit] = result
            else:
                self._note_shadow(limit, result)
        if counters is not None and counters.limits:
            self._counters.append(counters)
            self._counted_at = monotonic()

    def note_uncounted(self, limits: Iterable[Limit]) -> None:
        """Note that no store has counted the request, so that all units of the limits remain."""
        self.by_limit.update({limit: None for limit in limits if limit.shadow is None})

    def _note_shadow(self, limit: Limit, result: LimitResult | None) -> None:
        """Log a request that a limit in shadow mode would have refused, and change nothing."""
        self._shadows |= {limit}
        if limit.shadow is not None and result is not None and not result.allowed:
            registry = limit.store.registry
            if registry is not None and registry.has_listeners:
                self._tell(registry, [LimitStatus(limit, result)])
            limit.shadow.warning(
                "rate limit %s is in shadow mode and would have refused a request: "
                "%d in %g s by %s",
                limit.name,
                limit.rule.limit,
                limit.window,
                limit.by,
            )

    def _note_counted(self) -> None:
        self._counted_at, self._left = monotonic(), None

    def _give_back(self, done: Iterable[Counters], cost: int | None) -> None:
        """Return units to some counters; see :meth:`Counters.hit` for the cost."""
        age_ms = int((monotonic() - self._counted_at) * 1000)
        if self._left is None:
            self._left = {status.policy: status.remaining for status in self.results}
        for counters in done:
            hit = counters.give_back(cost, age_ms, self._left)
            if hit is not None:
                self.note(counters.limits, hit.results)

    def refuse_request(self) -> NoReturn:
        """Refuse the request before its view is called: nothing counts it."""
        if self.outcome is not None:
            self.outcome.cancel()
        self.refuse(self._counters)

    def refuse(self, done: Iterable[Counters], cost: int | None = None) -> NoReturn:
        """Return the units that other stores have already counted, and raise."""
        self._give_back(done, cost)
        violated = [status for status in self.results if not status.allowed]
        registry = violated[0].policy.store.registry
        if registry is not None and registry.has_listeners:
            self._tell(registry, violated)
        raise RateLimitError(violated)

    def _tell(self, registry: Registry, violated: Sequence[LimitStatus]) -> None:
        """Notify the subscribers that a request is over some limits."""
        request = current_request(registry)
        if request is not None and request.__dict__.get("ratelimit") is not self:
            request = None
        for status in violated:
            limit, is_shadow = status.policy, status.policy.shadow is not None
            facts = (limit.name, limit.rule.limit, limit.window, limit.by, status.retry_after)
            notify(registry, RateLimitExceeded(request, *facts, is_shadow))

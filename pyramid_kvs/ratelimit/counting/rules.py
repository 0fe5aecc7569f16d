"""What counting takes and returns: rules, checks and results."""

from __future__ import annotations

from typing import NamedTuple

from ...kvs import Stored


class Rule(NamedTuple):
    """What is allowed: ``limit`` units in ``window_ms``, at most ``burst`` of them at once."""

    strategy: str
    limit: int
    window_ms: int
    burst: int
    #: A negative cost returns units, and a cost of 0 only looks.
    cost: int = 1


class LimitCheck(NamedTuple):
    """One limit for one request, and the keys of the counter if its session is known or not.

    A key is ``None`` if the limit does not apply in that case.
    """

    rule: Rule
    key: str | None
    unknown_key: str | None


class LimitResult(NamedTuple):
    """The answer of one limit to a request, which is only counted if all of its limits allow it."""

    allowed: bool
    remaining: int
    #: Milliseconds until more units remain than now.
    reset_ms: int
    #: Milliseconds until the same request would be allowed.
    retry_ms: int


class Hit(NamedTuple):
    """The results in the order of the checks, and the session that was loaded.

    A result is ``None`` if the limit does not apply.
    """

    results: list[LimitResult | None]
    session: Stored | None

    @property
    def allowed(self) -> bool:
        return all(result is None or result.allowed for result in self.results)


class Count(NamedTuple):
    """A result, the state to store if it is allowed, and how long the state is needed."""

    result: LimitResult
    state: str
    lives_ms: int

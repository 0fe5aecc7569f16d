"""What counting takes and returns: rules, checks and results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...kvs import Stored

#: The largest count, cost and number of milliseconds. Python and Lua compute exactly up to it, and
#: RFC 9651 has integers of up to 15 digits.
MOST = 10**15 - 1

#: Modes: count if the limit allows it; tell whether it would, and count nothing; count past the
#: limit.
COUNT, LOOK, FORCE = "count", "look", "force"


class Rule(NamedTuple):
    """What is allowed: ``limit`` units in ``window_ms``, at most ``burst`` of them at once."""

    strategy: str
    limit: int
    window_ms: int
    burst: int
    #: From ``-MOST`` to ``MOST``. A negative cost returns units, and a cost of 0 only looks.
    cost: int = 1
    mode: str = COUNT
    #: Whether other limits count a request that this one refuses.
    is_shadow: bool = False
    #: For a negative cost: at least how long ago the units were counted.
    age_ms: int = 0


def returning(rule: Rule, cost: int | None, age_ms: int, left: int | None) -> Rule:
    """Return the rule that returns units, as far as they still count.

    :param cost: how many; ``None`` means those of the rule.
    :param age_ms: how long ago they were counted.
    :param left: how many units remained when they had been counted.
    """
    units = min(MOST, rule.cost if cost is None else cost)
    if rule.strategy == "gcra" and left is not None and units > 0:
        # The units that were in the bucket when these had been counted drain first. A full bucket
        # with a large burst does not tell how many they were.
        level = rule.burst - left if left < rule.limit else units
        drained = age_ms * rule.limit // rule.window_ms
        units = max(0, min(units, level - drained))
    return rule._replace(cost=-units, mode=COUNT, age_ms=age_ms)


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
    #: Whether the session was there, also if it is not loaded again for a client that is refused.
    is_known: bool
    #: False if a limit that is not in shadow mode refuses. Then no limit has counted.
    allowed: bool
    #: Whether none refuses, not even one in shadow mode.
    all_allow: bool = False

    @classmethod
    def of(
        cls,
        checks: Sequence[LimitCheck],
        results: list[LimitResult | None],
        session: Stored | None,
    ) -> Hit:
        refusing = [
            check.rule
            for check, result in zip(checks, results, strict=True)
            if result is not None and not result.allowed
        ]
        allowed = all(rule.is_shadow for rule in refusing)
        return cls(results, session, session is not None, allowed, not refusing)


class Count(NamedTuple):
    """A result, the state to store if it is allowed, and how long the state is needed.

    An empty state means that there is nothing to store.
    """

    result: LimitResult
    state: str
    lives_ms: int

"""What the panel shows of the rate limit: what was counted, and what is left."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pyramid.request import Request

if TYPE_CHECKING:  # an application without limits does not load them
    from ..ratelimit.decision import RequestLimits
    from ..ratelimit.limits import Limit, LimitStatus


class LimitInfo(NamedTuple):
    """A limit that decided about a request. Who was counted is not shown."""

    name: str
    #: For example ``15 in 1 s``.
    rate: str
    by: str
    decision: str
    #: Empty if nothing was counted.
    remaining: str


def limits_of(request: Request) -> list[LimitInfo]:
    """Return the limits that decided about a request, those in shadow mode last."""
    decided: RequestLimits | None = vars(request).get("ratelimit")
    if decided is None:
        return []
    found = [
        LimitInfo(
            *(status.name, _rate(status.policy), status.policy.by, _decision(status)),
            str(status.remaining) if status.is_counted else "",
        )
        for status in decided.results
    ]
    known = {status.policy for status in decided.results}
    shadows = [limit for limit in decided.limits if limit not in known]
    return found + [
        LimitInfo(limit.name, _rate(limit), limit.by, "counted in shadow mode", "")
        for limit in shadows
    ]


def _rate(limit: Limit) -> str:
    return f"{limit.rule.limit} in {limit.window:g} s"


def _decision(status: LimitStatus) -> str:
    if not status.allowed:
        return f"refused; try again after {status.retry_after:.3g} s"
    return "passed" if status.is_counted else "passed without counting"

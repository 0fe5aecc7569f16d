"""Counting a request by the status of its response, for limits with ``count``.

Such a limit refuses before the view is called, and counts when the response is complete. That is
after all other response callbacks: a session that cannot be saved turns a response into a 503.
"""

from __future__ import annotations

import sys

from pyramid.request import Request
from pyramid.response import Response

from ..exceptions import KVSUnavailable, RetryLater
from ..web.attempts import repeats
from .counting import FORCE
from .decision import Counters, RequestLimits
from .limits import Limit

#: How often others may go first. A session, too, gives way once, and is saved after that.
_TURNS = 3


def await_outcome(request: Request, decided: RequestLimits, counters: Counters) -> Counters:
    """Leave the limits that count by the response until then.

    :returns: the counters of the others, which have counted.
    """
    outcome = decided.outcome
    if not isinstance(outcome, Outcome):
        outcome = decided.outcome = Outcome(decided)
        outcome.watch(request)
    return outcome.take(counters)


class Outcome:
    """Counts a request by its response."""

    __slots__ = ("_counters", "_decided", "_is_over", "_turns")

    def __init__(self, decided: RequestLimits) -> None:
        self._decided = decided
        self._counters: list[Counters] = []

    def watch(self, request: Request) -> None:
        """Wait for the response to a request, or to another attempt of it."""
        self._is_over, self._turns = False, 0
        request.add_response_callback(self.add_response)
        request.add_finished_callback(self.finish)

    def take(self, counters: Counters) -> Counters:
        """Keep those that count by the response; return the others."""
        later = {limit for limit in counters.limits if limit.outcomes is not None}
        self._counters.append(counters.of(later))
        return counters.of(set(counters.limits) - later)

    def cancel(self) -> None:
        """Do not count the request, because the limiter itself refuses it."""
        self._counters.clear()

    def add_response(self, request: Request, response: Response) -> None:
        """Count a response; a response callback."""
        if request.response_callbacks and self._turns < _TURNS:
            self._turns += 1
            request.add_response_callback(self.add_response)
            return
        self._is_over = True
        error = getattr(request, "exception", None)
        if error is None or not repeats(request, error):
            self._count(response.status_int)
            self._decided.add_headers(request, response)

    def finish(self, request: Request) -> None:
        """Count an error that no view has answered; a finished callback."""
        error = sys.exc_info()[1]
        if isinstance(error, Exception) and not (self._is_over or repeats(request, error)):
            self._count(503 if isinstance(error, RetryLater) else 500)

    def _count(self, status: int) -> None:
        for counters in self._counters:
            found = counters.of([limit for limit in counters.limits if _counts(limit, status)])
            if found.limits:
                self._count_on(found)

    def _count_on(self, counters: Counters) -> None:
        checks = [check._replace(rule=check.rule._replace(mode=FORCE)) for check in counters.checks]
        try:
            hit = counters._replace(checks=checks).hit()
        except KVSUnavailable as error:  # on_error is "deny", but there is a response already
            counters.store.log.warning("rate limit: a response was not counted: %s", error)
            return
        if hit is not None:
            self._decided.note(counters.limits, hit.results)


def _counts(limit: Limit, status: int) -> bool:
    return limit.outcomes is not None and status in limit.outcomes

"""What a client learns about its limits: header fields, and the response over the limit."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from math import ceil
from typing import Any, Protocol

from pyramid.httpexceptions import HTTPTooManyRequests
from pyramid.request import Request
from pyramid.response import Response
from webob.acceptparse import create_accept_header

from .counting import LimitResult
from .limits import Limit, LimitStatus, restriction

#: From the IANA registry of problem types; see RFC 9457 and
#: draft-ietf-httpapi-ratelimit-headers-10.
PROBLEM_TYPE = "https://iana.org/assignments/http-problem-types#quota-exceeded"
TITLE = "Request cannot be satisfied as assigned quota has been exceeded"
PROBLEM_JSON = "application/problem+json"

_JSON_TYPE = re.compile(r"application/(?:json|[^/]+\+json|\*)")

#: The smallest weight in an ``Accept`` header. A type with the weight 0 is not acceptable.
_LEAST = 0.001

_FIELDS = frozenset(
    {
        *("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"),
        *("RateLimit-Policy", "RateLimit"),
    }
)


class RateLimitError(HTTPTooManyRequests):  # type: ignore[misc]
    """Raised for a request over the limit; as a response, 429 with ``Retry-After``.

    ``limit`` and ``remaining`` are those of the most restrictive limit. ``retry_after`` is the
    number of seconds to wait. ``violated`` has the names of the limits that refuse the request.
    """

    retry_after = 0  # replaces WebOb's property of this name, which is a date

    def __init__(self, violated: Sequence[LimitStatus]) -> None:
        seconds = retry_after(violated)
        super().__init__(headers=[("Retry-After", str(seconds))])
        longest = max(violated, key=lambda status: status.retry_after)
        self.limit = longest.limit
        self.remaining = longest.remaining
        self.retry_after = seconds
        unit = "second" if seconds == 1 else "seconds"
        self.explanation = f"Too many requests. Please wait {seconds} {unit} before the next one."
        self.violated = [status.name for status in violated]
        if longest.policy.error_status != self.code:
            self.status = longest.policy.error_status

    def prepare(self, environ: dict[str, Any]) -> None:
        """Write the body: problem details for clients that prefer JSON, otherwise HTML or text."""
        if not self.has_body and _prefers_json(environ):
            self.content_type = PROBLEM_JSON
            self.charset = None
            self.body = json.dumps(self._problem()).encode("ascii")
        super().prepare(environ)

    def _problem(self) -> dict[str, Any]:
        return {
            "type": PROBLEM_TYPE,
            "title": TITLE,
            "status": self.status_int,
            "detail": f"Retry after {self.retry_after} seconds.",
            "violated-policies": self.violated,
        }


def _prefers_json(environ: dict[str, Any]) -> bool:
    """Return whether a client names a JSON type, and does not rank HTML above it.

    axios and Angular send ``application/json, text/plain, */*``. ``*/*`` ranks nothing.
    """
    accept = create_accept_header(environ.get("HTTP_ACCEPT", ""))
    ranks: dict[str, float] = {}
    for kind, weight, *_ in accept.parsed or ():
        name = kind.partition(";")[0].strip().lower()
        ranks[name] = max(weight, ranks.get(name, 0))
    json_ranks = [weight for name, weight in ranks.items() if _JSON_TYPE.fullmatch(name)]
    html = ranks.get("text/html", ranks.get("text/*", 0))
    return max(json_ranks, default=0) >= max(html, _LEAST)


def retry_after(violated: Sequence[LimitStatus]) -> int:
    """Return seconds as an integer, at least the ``t`` of each limit that refuses."""
    return max(1, *(ceil(max(one.retry_after, one.reset)) for one in violated))


class Results(Protocol):
    """The results of the limits that apply to a request."""

    #: ``None`` if nobody was counted.
    by_limit: dict[Limit, LimitResult | None]


def add_headers(results: Results, request: Request, response: Response) -> None:
    """Add the header fields to a response, instead of those that a subrequest has added."""
    headers, by_limit = response.headerlist, results.by_limit
    if by_limit and not _FIELDS.isdisjoint(dict(headers)):
        _remove_fields(headers)
    policies, quotas, violated = [], [], []
    x_limit = x_result = None
    for limit, result in by_limit.items():
        if limit.tells_x and (
            x_limit is None or _is_more_restrictive(limit, result, x_limit, x_result)
        ):
            x_limit, x_result = limit, result
        if result is None:
            continue
        allowed, remaining, reset_ms, _ = result
        if limit.tells_ietf:
            policies.append(limit.policy_field)
            quotas.append(limit.quota_field % (remaining, -(-reset_ms // 1000)))
        if not allowed:
            violated.append(LimitStatus(limit, result))
    if x_limit is not None:
        headers += _x_fields(x_limit, x_result)
    if policies:
        headers += [("RateLimit-Policy", ", ".join(policies)), ("RateLimit", ", ".join(quotas))]
    if violated and "Retry-After" not in response.headers and _is_refusal(request, response):
        headers.append(("Retry-After", str(retry_after(violated))))


def _is_refusal(request: Request, response: Response) -> bool:
    """Return whether a response is the answer to an error of this module.

    A view may instead catch the error of a charge, and do without what it would have cost.
    """
    error = getattr(request, "exception", None)
    return isinstance(error, RateLimitError) or response.status_int == RateLimitError.code


def _remove_fields(headers: list[tuple[str, str]]) -> None:
    headers[:] = [header for header in headers if header[0] not in _FIELDS]


def _is_more_restrictive(
    limit: Limit, result: LimitResult | None, other: Limit, other_result: LimitResult | None
) -> bool:
    status, other_status = LimitStatus(limit, result), LimitStatus(other, other_result)
    return restriction(status) < restriction(other_status)


def _x_fields(limit: Limit, result: LimitResult | None) -> list[tuple[str, str]]:
    if result is None:
        return [limit.x_limit, ("X-RateLimit-Remaining", str(limit.rule.limit))]
    _, remaining, reset_ms, _ = result
    return [
        limit.x_limit,
        ("X-RateLimit-Remaining", str(remaining)),
        ("X-RateLimit-Reset", str(ceil(time.time() + reset_ms / 1000))),
    ]

"""How far the counting of a request has come, kept as ``request._kvs_counted``."""

from __future__ import annotations

from pyramid.request import Request

#: Nothing is counted yet: a view with other limits may answer.
UNCOUNTED = "uncounted"
#: The tween has counted what can be counted before routing.
EARLY = "early"
#: No view was found. Nobody but the client's address can be counted.
NO_VIEW = "no view"
#: A view was found, and everything is counted.
DONE = "done"


def is_without_view(request: Request) -> bool:
    """Return whether Pyramid has found no view for a request."""
    return getattr(request, "_kvs_counted", None) is NO_VIEW

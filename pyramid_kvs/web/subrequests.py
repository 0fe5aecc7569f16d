"""The requests of a thread: one, and its subrequests while they run."""

from __future__ import annotations

from pyramid.request import Request
from pyramid.threadlocal import manager


def outer_requests(request: Request) -> list[Request]:
    """Return the requests that wait for the end of this one, which is a subrequest."""
    found = [context.get("request") for context in manager.stack]
    return [outer for outer in found if outer is not None and outer is not request]

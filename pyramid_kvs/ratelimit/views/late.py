"""Clients that a limit has refused at their view, although they had been counted before routing."""

from __future__ import annotations

import time

from pyramid.request import Request

from ..identity import client_address

#: Longer than a process refuses a known client without asking the store.
_SECONDS = 2.0
_MOST = 10_000


class LateRefusals:
    """Remembers for a while the addresses of clients that were refused at a view.

    Such a request costs two trips for nothing: one counts it before routing, and one takes that
    back. Until these clients stop, all their limits are checked together when the view is found.
    """

    def __init__(self) -> None:
        self._until: dict[str | None, float] = {}

    def note(self, request: Request) -> None:
        """Remember the client of a request."""
        if len(self._until) >= _MOST:
            self._until = {}
        self._until[client_address(request)] = time.monotonic() + _SECONDS

    def has(self, request: Request) -> bool:
        """Return whether the client of a request was refused at a view a moment ago."""
        if not self._until:
            return False
        return self._until.get(client_address(request), 0) > time.monotonic()

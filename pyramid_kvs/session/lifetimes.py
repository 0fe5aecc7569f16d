"""How long sessions live: each one as long as its id says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .keys import SessionId, random_id

#: The form of the ids of remembered sessions. The id says it, so that the read of a session, which
#: renews it, already knows the ttl. A worker of 1.0 sees an ordinary id.
_REMEMBERED = re.compile(r"r[0-9a-f]{40}")


def remembered_id() -> SessionId:
    """Return a new id for a remembered session."""
    return SessionId("r" + random_id())


def is_remembered(session_id: SessionId | None) -> bool:
    return session_id is not None and _REMEMBERED.fullmatch(session_id.value) is not None


class Lifetimes:
    """The lifetimes of an application's sessions, in seconds; ``None`` means no expiry.

    :param options: the checked options of ``kvs.session``.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._ttl: float | None = options["ttl"]
        #: ``None`` if sessions cannot be remembered.
        self.remember_ttl: float | None = options["remember_ttl"]

    def of(self, session_id: SessionId) -> float | None:
        """Return the ttl that each use of a session gives it."""
        if self.remember_ttl is not None and _REMEMBERED.fullmatch(session_id.value):
            return self.remember_ttl
        return self._ttl

    @property
    def longest(self) -> float | None:
        """The ttl of the sessions that live longest."""
        if self._ttl is None or self.remember_ttl is None:
            return self._ttl
        return max(self._ttl, self.remember_ttl)

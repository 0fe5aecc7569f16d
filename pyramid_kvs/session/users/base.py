"""What is known of a user's sessions, however a store keeps it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from typing import NamedTuple, Protocol

from ..records import META, Record

#: The beginning of the keys with what is known of a user.
USER_KEY = META + "user::"
MONTH = 30 * 24 * 3600.0


class UserSession(NamedTuple):
    """One live session of a user, for example for a page that lists the user's devices."""

    #: Identifies the session for :func:`end_session`. It is not the id, and gives no access.
    handle: str
    #: In seconds since 1970.
    created: int
    #: In seconds since 1970; ``None`` if sessions never expire.
    last_seen: int | None
    #: Whether it is the session of this request.
    is_current: bool


def user_digest(user_id: object) -> str:
    """Return the hash that identifies a user in the store.

    :raises TypeError: the id is neither a non-empty string nor an integer.
    """
    if isinstance(user_id, bool) or not isinstance(user_id, (str, int)) or user_id == "":
        raise TypeError(
            f"a user id is a non-empty string or an integer, not {type(user_id).__name__}"
        )
    return hashlib.sha256(str(user_id).encode("utf-8", "surrogatepass")).hexdigest()


def handle_of(key: str) -> str:
    return hashlib.sha256(b"handle:" + key.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class Users(Protocol):
    """Finds the sessions of a user in a store."""

    def enter(self, user: str, key: str, record: Record) -> Record:
        """Add a session that will be saved next; return metadata to save with it."""

    def is_ended(self, record: Record) -> bool:
        """Return whether a session was ended together with others."""

    def is_stale(self, record: Record) -> bool:
        """Return whether a session that is in use must be entered again."""

    def all(self, user: str, current: Collection[str]) -> list[UserSession]:
        """Return the live sessions, the most recently used first."""

    def end(self, user: str, which: Callable[[str], bool]) -> list[str]:
        """End the sessions with the chosen keys; return their keys."""


def is_chosen(handle: str) -> Callable[[str], bool]:
    """Return a function that recognizes the key of a handle."""
    return lambda key: handle_of(key) == handle

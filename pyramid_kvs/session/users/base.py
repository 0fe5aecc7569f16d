"""What is known of a user's sessions, however a store keeps it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeAlias

from ..records import META, Record
from ..state import Found

#: Chooses sessions in the store by their keys and records.
Choice: TypeAlias = "Callable[[str, Record], bool]"

#: The beginning of the keys with what is known of a user.
USER_KEY = META + "user::"


class UserSession(NamedTuple):
    """One live session of a user, for example for a page that lists the user's devices."""

    #: Identifies the session for :func:`end_session`. It is not the id, and gives no access.
    handle: str
    #: In seconds since 1970.
    created: int
    #: In seconds since 1970; ``None`` if sessions never expire, or if the driver cannot tell.
    last_seen: int | None
    #: Whether it is the session of this request.
    is_current: bool


def user_digest(user_id: object) -> str:
    """Return the hash that identifies a user in the store.

    :raises TypeError: the id is neither a non-empty string nor an integer.
    """
    if isinstance(user_id, bool) or not isinstance(user_id, (str, int)) or user_id == "":
        found = "an empty string" if user_id == "" else type(user_id).__name__
        raise TypeError(f"a user id is a non-empty string or an integer, not {found}")
    return hashlib.sha256(str(user_id).encode("utf-8", "surrogatepass")).hexdigest()


def handle_of(key: str) -> str:
    return hashlib.sha256(b"handle:" + key.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class Users(Protocol):
    """Finds the sessions of a user in a store."""

    #: Whether sessions that are in use become stale.
    refreshes: bool

    def enter(self, user: str, key: str, record: Record, ttl: float | None = None) -> Record:
        """Add a session that will be saved next; return metadata to save with it.

        :param ttl: of the session, if it differs from the ttl of the setting.
        """

    def is_ended(self, record: Record) -> bool:
        """Return whether a session was ended together with others."""

    def is_stale(self, record: Record) -> bool:
        """Return whether a session that is in use must be entered again."""

    def enter_again(
        self, found: Found, record: Record, ttl: float | None = None
    ) -> tuple[Found, Record]:
        """Enter a session that is in use; return what the store has now. Errors are logged."""

    def all(self, user: str, is_current: Choice) -> list[UserSession]:
        """Return the live sessions, the most recently used first."""

    def surviving(self, user: str) -> Record:
        """Return metadata; a session that is saved with them outlives the next ``end_all``."""

    def end_all(self, user: str, is_spared: Choice, surviving: Record) -> dict[str, Record] | None:
        """End all sessions but the chosen ones; return them by key, if they are known.

        :param surviving: what :meth:`surviving` returned.
        """

    def end(self, user: str, handle: str) -> dict[str, Record]:
        """End the session with this handle; return it by key."""

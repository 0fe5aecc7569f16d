"""The states of a session during a request, and what changes them.

A session has a :class:`Phase`, which says what the request has done with it so far, and a
:class:`StoreState`, which says what the store has. Each event replaces them as a whole:

============================  ======================  ==========  =================================
event                         from phase              to phase    state of the store
============================  ======================  ==========  =================================
read or change                UNTOUCHED               OPEN        ``loaded``, ``absent``, ``away``
read or change                SAVED                   OPEN        unchanged
change of id                  OPEN                    OPEN        ``moving``
``invalidate()``              UNTOUCHED, OPEN, SAVED  OPEN        ``removed``
``save()``                    OPEN, SAVED             unchanged   ``saved`` or ``removed``
response, save                OPEN                    SAVED       ``saved`` or ``removed``
response, no change           OPEN                    SAVED       unchanged
response, save fails          OPEN                    CLOSED      unchanged
response, attempt repeated    OPEN                    CLOSED      unchanged
save finds the session ended  OPEN, SAVED             CLOSED      ``lost``
save of an ``away`` session   OPEN, SAVED             CLOSED      ``lost``
============================  ======================  ==========  =================================

A change of id is ``regenerate_id()`` or ``update_session_token()``. The next save then moves the
record to another key. A save removes a session that ``clear()`` left empty. A session is ended if
another request has removed it or changed its id since this request read it. It is ``away`` if
another request had just changed its id when this request read it: it is empty, its changes are
dropped, and ``invalidate()`` removes it under the new id. An attempt is repeated by pyramid_retry.

If the store is unavailable, any other event raises ``KVSUnavailable`` and changes nothing. The
response then finds the session UNTOUCHED, and only gets its ``Vary`` header.

CLOSED is final. The data can still be read and changed, and ``invalidate()`` still removes the
record, but this request saves nothing any more.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from ..kvs import Stored, new_tuple
from ..serializer import Data
from .keys import SessionId


class Phase(enum.Enum):
    """What a request has done with its session."""

    #: Nothing has been read.
    UNTOUCHED = enum.auto()
    #: The data are there, and a callback of the response will save them.
    OPEN = enum.auto()
    #: The response has saved the session. The next use opens it again.
    SAVED = enum.auto()
    #: A save failed, or found that the session was ended.
    CLOSED = enum.auto()


UNTOUCHED, OPEN, SAVED, CLOSED = Phase


class Found(NamedTuple):
    """A record in the store, as this request last read or wrote it."""

    #: The id with which it was found or saved.
    session_id: SessionId
    key: str
    #: The data that the changes of this request are relative to.
    data: Data
    #: What a swap compares with. ``None`` after a save, because a swap does not return it.
    stored: Stored | None


class StoreState(NamedTuple):
    """What the store has of a session, as far as this request knows."""

    #: The id with which the session goes on. ``None`` if it needs a new one.
    session_id: SessionId | None = None
    #: The key to save under. ``None`` until it is needed.
    key: str | None = None
    #: ``None`` if the store does not have the session.
    found: Found | None = None
    #: Whether the session began in this request.
    is_new: bool = True
    #: Whether this request removed the session, so that the client must forget its id.
    is_removed: bool = False
    #: Whether this request saved the session, so that a response may contain its id.
    was_saved: bool = False
    #: The key of the session under another id, if it has just got one.
    away_at: str | None = None

    @property
    def is_moving(self) -> bool:
        """Whether the next save moves the record to another key."""
        return self.found is not None and self.found.key != self.key

    @classmethod
    def absent(cls, session_id: SessionId | None, is_removed: bool = False) -> StoreState:
        """Return the state of a new session."""
        return cls(session_id, None, None, True, is_removed)

    @classmethod
    def away(cls, session_id: SessionId, away_at: str) -> StoreState:
        """Return the state of a session that another request has just moved from this id."""
        return cls(session_id, away_at=away_at)

    def with_key(self, session_id: SessionId, key: str) -> StoreState:
        _, _, found, is_new, is_removed, was_saved, away_at = self
        return StoreState(session_id, key, found, is_new, is_removed, was_saved, away_at)

    def moving(self, session_id: SessionId | None) -> StoreState:
        """Return the state after a change of id; back to the old id, the record does not move."""
        if self.away_at is not None:
            return self
        found = self.found
        key = found.key if found is not None and found.session_id == session_id else None
        return self._replace(session_id=session_id, key=key)

    def saved(self, key: str, data: Data) -> StoreState:
        """Return the state after a save.

        :param key: where the session is now.
        """
        session_id, _, _, is_new, is_removed, _, _ = self
        assert session_id is not None
        found = new_tuple(Found, (session_id, key, data, None))
        return new_tuple(StoreState, (session_id, key, found, is_new, is_removed, True, None))

    def removed(self, session_id: SessionId | None) -> StoreState:
        """Return the state after this request removed the session.

        :param session_id: the id with which an empty session goes on.
        """
        return StoreState(session_id, is_removed=True, was_saved=self.was_saved)

    def lost(self) -> StoreState:
        """Return the state after a save found that the session was ended, or has another id.

        It keeps the id that the session had, which ``invalidate()`` needs.
        """
        session_id = self.session_id if self.found is None else self.found.session_id
        return self._replace(session_id=session_id, key=None, found=None, is_removed=False)


#: A new session without an id.
NEW = StoreState()

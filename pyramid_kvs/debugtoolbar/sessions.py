"""What the panel shows of the session: its state in words, and names of values, but no id."""

from __future__ import annotations

import types
from collections.abc import Iterable
from typing import Any, NamedTuple

from ..application import Application
from ..serializer import as_bytes
from ..session.records import META, Record
from ..session.session import Session
from ..session.state import CLOSED, UNTOUCHED
from .collecting import collecting


class SessionInfo(NamedTuple):
    """A session at the end of its request."""

    state: str
    #: Of the stored data, in bytes.
    size: int
    #: The names of its values.
    keys: list[str]


NOT_USED = SessionInfo("The request did not use a session.", 0, [])


def watch_sessions(application: Application) -> None:
    """Have the sessions of an application tell the panel what they save."""
    factory = application.features.get("kvs.session")
    if factory is not None:
        factory.session_class = types.new_class(
            factory.session_class.__name__,
            (Watched, factory.session_class),
            exec_body=lambda body: body.update(__slots__=()),
        )


class Watched(Session):
    """A session that notes what the request changed, and what was merged with it."""

    __slots__ = ()

    def _complete(self, changes: Any, key: str) -> Record:
        collection = collecting.get()
        if collection is not None:
            collection.changes.changed += _names(changes.values, collection.changes.changed)
        return super()._complete(changes, key)

    def _settle(self, record: Record, written: Any) -> None:
        collection = collecting.get()
        if collection is not None and written is not None and written.record is not record:
            theirs = {**record, **written.record}
            names = [key for key in theirs if record.get(key) != written.record.get(key)]
            collection.changes.merged += _names(names, collection.changes.merged)
        super()._settle(record, written)

    def info(self) -> SessionInfo:
        """Describe the session without reading it."""
        if self._phase is UNTOUCHED:
            return SessionInfo(self._begun(), 0, [])
        found = self._state.found
        size = 0 if found is None else len(as_bytes(found.data))
        return SessionInfo(f"{self._begun()} {self._ended()}", size, list(self._data))

    def _begun(self) -> str:
        if self._phase is UNTOUCHED:
            return "The session was not read."
        if self._state.away_at is not None:
            return "Another request has just changed the id of the session."
        if self._state.is_removed:
            return "The request ended its session."
        if self._state.is_new:
            return "The store had no session for the request, so it began a new one."
        return "The store had the session."

    def _ended(self) -> str:
        if self._phase is CLOSED:
            return "Its changes were not saved: the save failed, or another request ended it."
        if self._state.was_saved:
            return "The request saved it."
        if self._state.found is None:
            return "Nothing was saved."
        return "The request only read it."


def _names(found: Iterable[str], known: list[str]) -> list[str]:
    """Return the names of values that are not metadata, without those that are known."""
    return [key for key in found if key[:6] != META and key not in known]

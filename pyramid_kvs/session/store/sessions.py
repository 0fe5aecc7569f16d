"""Sessions in the store: how they are loaded and saved.

A save is a compare-and-set against what the request has read. If another request has saved the
session in the meantime, the changes of both are merged, and the save tries again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

from ...exceptions import KVSConflict, ValueTooLarge
from ...kvs import KVS, Stored, Swap, pause
from ...logs import fingerprint
from ...serializer import Data
from ..keys import SessionId, SessionKeys
from ..merge import Changes, difference, merge
from ..records import (
    CREATED,
    Record,
    RecordCodec,
    created_at,
    is_empty,
    is_ended,
    is_same,
)
from ..state import Found

log = logging.getLogger("pyramid_kvs.session")


#: What was read in a request before its session, by key. ``None`` means that nothing was there.
Preloaded: TypeAlias = "Mapping[str, Stored | None]"


class Save(NamedTuple):
    """What a request wants to save."""

    key: str
    #: The data that the changes are relative to. ``None`` for a new session.
    base: Data | None
    #: The whole record, to be stored if no other request has saved the session.
    record: Record
    changes: Changes
    #: Whether the key may be empty. Otherwise an empty key means that the session was ended.
    may_be_absent: bool = False


class Written(NamedTuple):
    """The outcome of a save."""

    #: ``None`` if nothing was left to store.
    data: Data | None
    record: Record
    #: Whether the key was empty before.
    is_new: bool


class SessionStore:
    """Loads and saves the sessions of an application with one driver.

    :param options: the checked options of ``kvs.session``.
    """

    def __init__(self, driver: KVS, keys: SessionKeys, options: Mapping[str, Any]) -> None:
        self.driver = driver
        self.codec = RecordCodec(driver, options["max_bytes"])
        self._keys = keys
        self._ttl: float | None = options["ttl"]
        self.absolute_ttl: float | None = options["absolute_ttl"]
        self._on_conflict: str = options["on_conflict"]

    # -- loading --------------------------------------------------------------------------

    def load(
        self, session_id: SessionId, preloaded: Preloaded | None = None
    ) -> tuple[Found, Record] | None:
        """Return a session, from the first of its keys that has one.

        Reading gives it its whole ttl again, in the same round trip.

        :param preloaded: what ``raw_load`` returned for keys that were read in this request.
        """
        keys = self._keys.all(session_id)
        for key in keys:
            loaded = self._look(session_id, key, preloaded)
            if loaded is not None:
                return loaded
        # Another request may have moved the session after the first key was read.
        return self._look(session_id, keys[0], None) if len(keys) > 1 else None

    def _look(
        self, session_id: SessionId, key: str, preloaded: Preloaded | None
    ) -> tuple[Found, Record] | None:
        if preloaded is not None and key in preloaded:
            stored = preloaded[key]
        else:
            stored = self.driver.raw_load(key, self._ttl)
        if stored is None:
            return None
        record = self.codec.decode(stored.data)
        if record is None:
            self.codec.warn_of_undecodable(key)
            return None
        return Found(session_id, key, stored.data, stored), record

    def is_over(self, record: Record) -> bool:
        """Return whether a session is older than ``absolute_ttl`` allows."""
        if self.absolute_ttl is None:
            return False
        created = created_at(record)
        return created is not None and time.time() - created >= self.absolute_ttl

    def remove(self, found: Found) -> None:
        """Remove a session, unless another request has saved it since it was found."""
        self.driver.raw_swap(found.key, found.stored, None, None)

    def replace(self, found: Found, record: Record) -> Found | None:
        """Store another record in place; return ``None`` if the session changed since.

        :raises SessionTooLarge: the session is larger than ``max_bytes``.
        """
        data = self.codec.encode(found.key, record)
        swap = self._swap(found.key, found.stored, data, record)
        return found._replace(data=data, stored=None) if swap.done else None

    # -- saving ---------------------------------------------------------------------------

    def save(self, save: Save, found: Found | None, there: Stored | None = None) -> Written | None:
        """Save a session by compare-and-set, merged with what other requests have saved.

        If the key to save under is another than that of ``found``, the session moves. The new
        record is written before the old one is removed, so that a crash in between loses nothing.

        :param found: the record in the store, as far as the request knows.
        :param there: if the session moves, what the key to save under has.
        :returns: ``None`` if the session was ended; nothing is left of it then.
        :raises TypeError: the codec cannot write a value. The message names the value's key.
        :raises SessionTooLarge: the session is larger than ``max_bytes``.
        :raises SessionConflict: both requests changed a key, and ``on_conflict`` is ``"raise"``.
        :raises KVSConflict: other requests saved the session again and again.
        """
        if found is None:
            return self._write(save, None)
        stored = found.stored or self.driver.raw_load(found.key)
        if found.key == save.key:
            written = self._write(save, stored)
        else:
            written = self._move(save, found.key, stored, there)
        if written is None:
            log.warning(
                "session %s was ended while a request was using it; "
                "the changes of the request are dropped",
                fingerprint(found.key),
            )
        return written

    def _write(self, save: Save, loaded: Stored | None) -> Written | None:
        """Store a record by compare-and-set, merged again after each conflict.

        :param loaded: what the key has, as far as is known.
        """
        is_first = is_same(save.base, loaded and loaded.data)
        record = save.record if is_first else self._merged(save, loaded)
        for attempt in range(self.driver.update_attempts):
            if record is None:
                return None
            data = self._encoded(save, loaded, record)
            if is_same(data, loaded and loaded.data):
                return Written(data, record, is_new=data is None)
            swap = self._swap(save.key, loaded, data, record)
            if swap.done:
                return Written(data, record, is_new=loaded is None)
            loaded = swap.current
            record = self._merged(save, loaded)
            pause(attempt)
        raise KVSConflict("other requests changed the session again and again during one save")

    def _encoded(self, save: Save, loaded: Stored | None, record: Record) -> Data | None:
        # A session that was emptied key by key stays in the store. Otherwise a slower request
        # would conclude that the session was ended.
        is_stored = save.base is not None or loaded is not None
        is_kept = is_stored and not save.changes.is_cleared
        return self.codec.encode(save.key, record) if is_kept or not is_empty(record) else None

    def _swap(self, key: str, loaded: Stored | None, data: Data | None, record: Record) -> Swap:
        try:
            return self.driver.raw_swap(key, loaded, data, self._lifetime(record))
        except ValueTooLarge as error:
            problem = f"is too large for the store ({error})"
            raise self.codec.too_large(record, problem) from error

    def _lifetime(self, record: Record) -> float | None:
        """Return the ttl of a record; without a ttl, ``absolute_ttl`` ends it."""
        if self._ttl is not None or self.absolute_ttl is None:
            return self._ttl
        now = time.time()
        return max(1.0, self.absolute_ttl - now + (created_at(record) or now))

    def _merged(self, save: Save, loaded: Stored | None) -> Record | None:
        """Return the record to write over ``loaded``; ``None`` if the session was ended."""
        theirs = None if loaded is None else self.codec.decode(loaded.data)
        if not theirs and (save.base is None or (save.may_be_absent and loaded is None)):
            return save.record
        before = {} if save.base is None else self.codec.decode(save.base) or {}
        if theirs is None or is_ended(before, theirs):
            return None
        if self._on_conflict == "overwrite":
            return {**save.record, **{key: theirs[key] for key in (CREATED,) if key in theirs}}
        is_strict = self._on_conflict == "raise"
        return merge(before, save.changes, theirs, self.driver.codec, is_strict)

    # -- moving to another key ------------------------------------------------------------

    def _move(
        self, save: Save, old_key: str, stored: Stored | None, there: Stored | None
    ) -> Written | None:
        rebased = self._rebased(save, stored)
        if rebased is None or stored is None:
            return None
        written = self._write(rebased._replace(may_be_absent=True), there)
        if written is None or not written.is_new:
            # The request that came first removes the old record. If both removed it, neither
            # could distinguish the removal by the other from a logout.
            return written
        return self._remove_old(rebased, old_key, stored, written)

    def _rebased(self, save: Save, stored: Stored | None) -> Save | None:
        """Return a save relative to the stored record, which other requests may have changed."""
        if stored is not None and is_same(save.base, stored.data):
            return save
        record = self._merged(save, stored)
        if record is None or stored is None:
            return None
        changes = difference(self.codec.decode(stored.data) or {}, record, self.codec.dumps)
        changes.is_cleared = save.changes.is_cleared
        return save._replace(base=stored.data, record=record, changes=changes)

    def _remove_old(
        self, save: Save, old_key: str, stored: Stored, written: Written
    ) -> Written | None:
        """Remove the old record; if other requests have changed it, move their changes too."""
        for attempt in range(self.driver.update_attempts):
            swap = self.driver.raw_swap(old_key, stored, None, None)
            if swap.done:
                return written
            merged = self._merged(save, swap.current)
            if merged is None or swap.current is None:
                self.driver.raw_delete(save.key)
                return None
            caught_up = self._catch_up(save.key, written, merged)
            if caught_up is None:
                return None
            written, stored = caught_up, swap.current
            pause(attempt)
        raise KVSConflict("other requests changed the session again and again during its move")

    def _catch_up(self, key: str, written: Written, record: Record) -> Written | None:
        """Bring the record at the new key up to date."""
        changes = difference(written.record, record, self.codec.dumps)
        return self._write(Save(key, written.data, record, changes), self.driver.raw_load(key))

    def make_room(self, key: str, record: Record) -> Stored | None:
        """Remove another session from the key to which a session moves.

        :returns: the same session, if another request has moved it there.
        """
        there = self.driver.raw_load(key)
        theirs = None if there is None else self.codec.decode(there.data)
        if there is None or (theirs and record.get(CREATED) == theirs.get(CREATED)):
            return there
        self.driver.raw_delete(key)
        return None

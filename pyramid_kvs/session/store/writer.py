"""Writes sessions by compare-and-set.

A save compares with what the request has read. If another request has saved the session in the
meantime, the changes of both are merged, and the save tries again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ...exceptions import KVSConflict, ValueTooLarge
from ...kvs import KVS, Stored, Swap, new_tuple, pause
from ...serializer import Data
from ..merge import Changes, has_clash, merge
from ..records import (
    CREATED,
    EPOCH,
    USER,
    Record,
    RecordCodec,
    created_at,
    is_empty,
    is_ended,
    is_same,
)
from .markers import split


class Place(NamedTuple):
    """A key, and what the store has there."""

    key: str
    stored: Stored | None


class Gone(Exception):  # an outcome, which the store turns into a log line
    """The session is no longer at a place: it was ended, or has moved.

    :param place: what the store has there instead.
    """

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place


class Save(NamedTuple):
    """What a request wants to save."""

    key: str
    #: The ttl that the save gives the session.
    ttl: float | None
    #: The data that the changes are relative to. ``None`` for a new session.
    base: Data | None
    #: The whole record, to be stored if no other request has saved the session.
    record: Record
    changes: Changes
    #: Other keys that a session with this id may have.
    other_keys: tuple[str, ...] = ()
    #: Adds a user's session at a key to the sessions of the user; returns metadata to save.
    enter: Callable[[str, str, Record, float | None], Record] = lambda *session: {}
    #: The user for whom the key was entered already.
    user: Any = None
    #: Whether the session gets a key that it did not have before, so that a merged user must be
    #: entered.
    is_new_key: bool = False
    #: Whether only this request knows the key that the session gets.
    is_private: bool = False


class Written(NamedTuple):
    """The outcome of a save."""

    key: str
    #: ``None`` if nothing was left to store.
    data: Data | None
    record: Record
    #: Whether the store has what the request has read, because its changes made no difference.
    is_as_read: bool = False
    #: What the key had before, if another request or an earlier save has stored it.
    replaced: Stored | None = None


class RecordWriter:
    """Writes the sessions of an application.

    :param options: the checked options of ``kvs.session``.
    """

    def __init__(self, driver: KVS, options: Mapping[str, Any]) -> None:
        self.driver = driver
        self.codec = RecordCodec(driver, options["max_bytes"])
        self._absolute_ttl: float | None = options["absolute_ttl"]
        self._on_conflict: str = options["on_conflict"]

    def write(self, save: Save, stored: Stored | None) -> Written:
        """Store a record, merged again after each conflict.

        :param stored: what the key has, as far as is known.
        :raises Gone: the key no longer has the session.
        """
        there, record = stored and stored.data, save.record
        if there is not save.base and not is_same(save.base, there):
            record = self.merged(save, Place(save.key, stored))
        for attempt in range(self.driver.update_attempts):
            data = self.encoded(save, stored, record)
            if is_same(data, there):
                return Written(save.key, data, record, is_same(data, save.base))
            swap = self.swap(save.key, save.ttl, stored, data, record)
            if swap.done:
                return new_tuple(Written, (save.key, data, record, False, stored))
            stored = swap.current
            there, record = stored and stored.data, self.merged(save, Place(save.key, stored))
            pause(attempt)
        raise KVSConflict("other requests changed the session again and again during one save")

    def encoded(self, save: Save, stored: Stored | None, record: Record) -> Data | None:
        # A session that was emptied key by key stays in the store. Otherwise a slower request
        # would conclude that the session was ended.
        is_stored = save.base is not None or stored is not None
        is_kept = is_stored and not save.changes.is_cleared
        return self.codec.encode(save.key, record) if is_kept or not is_empty(record) else None

    def swap(
        self, key: str, ttl: float | None, old: Stored | None, data: Data | None, record: Record
    ) -> Swap:
        try:
            left = self._time_left(record) if ttl is None else ttl
            return self.driver.raw_swap(key, old, data, left)
        except ValueTooLarge as error:
            problem = f"is too large for the store ({error})"
            raise self.codec.too_large(record, problem) from error

    def _time_left(self, record: Record) -> float | None:
        """Return the ttl of a record that only ``absolute_ttl`` ends, if that is set."""
        if self._absolute_ttl is None:
            return None
        now = time.time()
        return max(1.0, self._absolute_ttl - now + (created_at(record) or now))

    # -- conflicts ------------------------------------------------------------------------

    def merged(self, save: Save, place: Place) -> Record:
        """Return the record to write over what a place has.

        :raises Gone: the place does not have the session.
        """
        theirs, target = self.seen(place.stored)
        if not theirs and target is None and save.base is None:
            return save.record
        before = self.before(save)
        if theirs is None or is_ended(before, theirs):
            raise Gone(place)
        merged = self._combined(save, before, theirs)
        if EPOCH in merged and merged.get(USER) == theirs.get(USER):
            # Two requests that end the user's other sessions both spare this one.
            merged[EPOCH] = max(merged[EPOCH], theirs.get(EPOCH, 0))
        if save.is_new_key and USER in merged and merged[USER] != save.user:
            merged.update(save.enter(merged[USER], save.key, merged, save.ttl))
        return merged

    def _combined(self, save: Save, before: Record, theirs: Record) -> Record:
        if self._on_conflict == "overwrite" and not save.changes.is_metadata:
            if has_clash(before, save.changes, theirs, self.driver.codec):
                save.changes.note_clash()
            return {**save.record, **{key: theirs[key] for key in (CREATED,) if key in theirs}}
        is_strict = self._on_conflict == "raise"
        return merge(before, save.changes, theirs, self.driver.codec, is_strict)

    def before(self, save: Save) -> Record:
        """Return the record that the changes are relative to."""
        return {} if save.base is None else self.codec.decode(save.base) or {}

    def session_in(self, stored: Stored | None) -> Record | None:
        """Return the session in stored data; ``None`` if they have none, or are a marker."""
        return self.seen(stored)[0]

    def target_of(self, stored: Stored | None) -> str | None:
        """Return the key that a marker in stored data names; ``None`` if they are not a marker."""
        return self.seen(stored)[1]

    def seen(self, stored: Stored | None) -> tuple[Record | None, str | None]:
        """Return the session in stored data, and the key that a marker names."""
        record = None if stored is None else self.codec.decode(stored.data)
        return (None, None) if record is None else split(record)

    # -- where a session is ---------------------------------------------------------------

    def locate(self, save: Save, place: Place) -> Place:
        """Return the place where the session is: this one, or another key of the same id.

        :raises Gone: it was ended, or has another id.
        """
        if is_same(save.base, place.stored and place.stored.data):
            return place
        theirs, target = self.seen(place.stored)
        before = self.before(save)
        if theirs is not None:
            if is_ended(before, theirs):
                raise Gone(place)
            return place
        for key in save.other_keys:
            if target is None or target == key:
                other = Place(key, self.driver.raw_load(key))
                found = self.session_in(other.stored)
                if found is not None and not is_ended(before, found):
                    return other
        raise Gone(place)

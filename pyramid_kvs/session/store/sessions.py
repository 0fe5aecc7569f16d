"""Sessions in the store: how they are loaded, saved and removed."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from ...kvs import KVS, Stored, new_tuple
from ...logs import ThrottledLog, fingerprint
from ..keys import SessionId, SessionKeys
from ..lifetimes import Lifetimes
from ..records import MOVED, Record, created_at
from ..state import Found
from .markers import is_pure, seconds_left, split
from .moves import Moves
from .writer import Gone, Place, RecordWriter, Save, Written

log = logging.getLogger("pyramid_kvs.session")


#: What was read in a request before its session, by key. ``None`` means that nothing was there.
Preloaded: TypeAlias = "Mapping[str, Stored | None]"


@dataclass(frozen=True, slots=True)
class Moved:
    """A session got another id a moment ago."""

    #: The new key.
    key: str


class SessionStore:
    """Loads, saves and removes the sessions of an application with one driver.

    :param options: the checked options of ``kvs.session``.
    """

    def __init__(self, driver: KVS, keys: SessionKeys, options: Mapping[str, Any]) -> None:
        self.driver = driver
        self._writer = RecordWriter(driver, options)
        self._moves = Moves(self._writer)
        self.codec = self._writer.codec
        self._keys = keys
        self.lifetimes = Lifetimes(options)
        self.absolute_ttl: float | None = options["absolute_ttl"]
        self._ended = ThrottledLog(log)
        self._moved = ThrottledLog(log)

    # -- loading --------------------------------------------------------------------------

    def load(
        self, session_id: SessionId, preloaded: Preloaded | None = None
    ) -> tuple[Found, Record] | Moved | None:
        """Return a session, from the first of its keys that has one.

        Reading gives it its whole ttl again, in the same round trip.

        :param preloaded: what ``raw_load`` returned for keys that were read in this request.
        :returns: :class:`Moved` if it got another id. Another key of the id may then have a copy of
            it, which a request that has read it before will remove again.
        """
        keys = self._keys.all(session_id)
        looks = [(key, preloaded) for key in keys]
        looks.append((keys[0], None))  # a move may have begun after the first key was read
        for key, read in looks:
            loaded = self.look(session_id, key, read)
            if isinstance(loaded, tuple) or (loaded is not None and loaded.key not in keys):
                return loaded
        return None

    def look(
        self, session_id: SessionId, key: str, preloaded: Preloaded | None
    ) -> tuple[Found, Record] | Moved | None:
        """Return a session as :meth:`load` does, if it is at this key."""
        if preloaded is not None and key in preloaded:
            stored, is_read = preloaded[key], True
        else:
            stored, is_read = self.driver.raw_load(key, self.lifetimes.of(session_id)), False
        if stored is None:
            return None
        record = self.codec.decode(stored.data)
        if record is None:
            self.codec.warn_of_undecodable(key)
            return None
        if MOVED in record:
            if not is_read:
                self._limit(key, stored, record)
            record, target = split(record)
            if record is None:
                return None if target is None else Moved(target)
        return new_tuple(Found, (session_id, key, stored.data, stored)), record

    def _limit(self, key: str, stored: Stored, marker: Record) -> None:
        """Give a marker the ttl again that it had before it was read.

        It is a compare-and-set, because the key may have a session again.
        """
        if self.lifetimes.longest is not None and is_pure(marker):
            left = seconds_left(marker)
            data = self.codec.dumps(marker) if left else None
            self.driver.raw_swap(key, stored, data, left or None)

    def records(self, keys: Iterable[str]) -> dict[str, Record]:
        """Return the sessions that have these keys, or have moved from them to others, by key."""
        found: dict[str, Record] = {}
        pending, followed = list(keys), set[str]()
        while pending:
            seen = {
                key: self._writer.seen(stored)
                for key, stored in self.driver.raw_load_many(pending).items()
            }
            found.update({key: record for key, (record, _) in seen.items() if record})
            targets = {target for _, target in seen.values() if target is not None}
            pending = sorted(targets - found.keys() - followed)
            followed |= targets
        return found

    def is_session(self, key: str, stored: Stored) -> bool:
        """Return whether data that were loaded with a new ttl can be a session.

        A marker is not one, and gets its ttl again.
        """
        if not self.codec.may_have(stored, MOVED):
            return True  # without decoding it
        record = self.codec.decode(stored.data)
        if record is None or MOVED not in record:
            return True
        self._limit(key, stored, record)
        return split(record)[0] is not None

    def is_over(self, record: Record) -> bool:
        """Return whether a session is older than ``absolute_ttl`` allows."""
        if self.absolute_ttl is None:
            return False
        created = created_at(record)
        return created is not None and time.time() - created >= self.absolute_ttl

    def replace(self, found: Found, record: Record) -> Found | None:
        """Store another record in place; return ``None`` if the session changed since.

        :raises SessionTooLarge: the session is larger than ``max_bytes``.
        """
        data = self.codec.encode(found.key, record)
        ttl = self.lifetimes.of(found.session_id)
        swap = self._writer.swap(found.key, ttl, found.stored, data, record)
        return found._replace(data=data, stored=None) if swap.done else None

    # -- removing -------------------------------------------------------------------------

    def remove(self, found: Found) -> bool:
        """Remove a session, unless another request has saved it since it was found.

        :returns: whether this call has removed it.
        """
        return self.driver.raw_swap(found.key, found.stored, None, None).done

    def erase(self, keys: Iterable[str]) -> list[str]:
        """Remove what the keys have; a session that has moved is removed from its new key.

        :returns: the keys that had a session.
        """
        return self._moves.erase(keys)

    # -- saving ---------------------------------------------------------------------------

    def has_begun(self, written: Written) -> bool:
        """Return whether a save of a new session has stored the first record of it."""
        return not self._writer.session_in(written.replaced)

    def save(self, save: Save, found: Found | None) -> Written | None:
        """Save a session by compare-and-set, merged with what other requests have saved.

        If the key to save under is another than that of ``found``, the session moves.

        :param found: the record in the store, as far as the request knows.
        :returns: ``None`` if the session was ended or got another id; nothing is saved then.
        :raises TypeError: the codec cannot write a value. The message names the value's key.
        :raises SessionTooLarge: the session is larger than ``max_bytes``.
        :raises SessionConflict: both requests changed a key, and ``on_conflict`` is ``"raise"``.
        :raises KVSConflict: other requests saved the session again and again.
        """
        try:
            if found is None:
                return self._writer.write(save, None)
            stored = found.stored or self.driver.raw_load(found.key)
            if found.key != save.key:
                return self._moves.move(save, Place(found.key, stored))
            if save.other_keys:
                return self._moves.write_where_it_is(save, stored)
            return self._writer.write(save, stored)
        except Gone as gone:
            self.log_dropped(gone.place.key, self._writer.target_of(gone.place.stored) is not None)
            return None

    def log_dropped(self, key: str, has_moved: bool) -> None:
        """Log that the changes of a request are dropped, at most once a minute."""
        throttled, event = (
            (self._moved, "got a new id") if has_moved else (self._ended, "was ended")
        )
        throttled.warning(
            f"session %s {event} while a request was using it; "
            "the changes of the request are dropped",
            fingerprint(key),
        )

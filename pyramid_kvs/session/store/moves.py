"""Moves sessions to other keys: for another id, or for the hash of the same id.

The new record is written first. Then a compare-and-set replaces the old record by a marker, and
decides: if the old record is no longer there, the session was ended, or another request has moved
it, and the new record is removed again. A crash in between leaves both records, and loses nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from ...exceptions import KVSConflict, SessionTooLarge
from ...kvs import Stored, Swap, pause
from ...serializer import Data
from ..merge import Changes, difference
from ..records import CREATED, Record, is_ended, is_same
from .markers import MARKER_TTL, marker_to
from .writer import Gone, Place, RecordWriter, Save, Written


class Moves:
    """Moves and removes the sessions of an application."""

    def __init__(self, writer: RecordWriter) -> None:
        self._writer = writer
        self._driver = writer.driver

    def move(self, save: Save, old: Place) -> Written:
        """Save a session under another key than it has.

        :param old: where the session was.
        :raises Gone: it was ended, or another request has moved it. Nothing is left of this move.
        """
        old = self._writer.locate(save, old)
        if old.key == save.key:
            return self._writer.write(save, old.stored)
        rebased = self._rebased(save, old)
        written, is_first = self._write_new(rebased)
        if not is_first:
            return written  # the request that wrote it first leaves the marker
        try:
            return self._leave_marker(rebased, old, written)
        except Gone as gone:
            # Whoever has ended the session at its new key may not know the old one.
            is_ended_there = gone.place.key == save.key
            others = [key for key in save.other_keys if key != save.key]
            self.erase([old.key, *others] if is_ended_there else [save.key])
            raise
        except (KVSConflict, SessionTooLarge, TypeError):
            self.erase([save.key])
            raise

    def write_where_it_is(self, save: Save, stored: Stored | None) -> Written:
        """Save a session under its key, or under another key of its id if it was moved there.

        :param stored: what its key has, as far as is known.
        :raises Gone: it was ended, or has another id.
        """
        try:
            return self._writer.write(save, stored)
        except Gone as gone:
            place = self._writer.locate(save, gone.place)
            moved = save._replace(key=place.key, other_keys=(), is_new_key=True, user=None)
            return self._writer.write(moved, place.stored)

    def _rebased(self, save: Save, old: Place) -> Save:
        """Return a save relative to the stored record, which other requests may have changed."""
        if old.stored is None or is_same(save.base, old.stored.data):
            return save
        record = self._writer.merged(save, old)
        return save._replace(
            base=old.stored.data, record=record, changes=self._relative(save, old.stored, record)
        )

    def _relative(self, save: Save, stored: Stored, record: Record) -> Changes:
        codec = self._writer.codec
        theirs = codec.decode(stored.data) or {}
        return save.changes.relative_to(theirs, record, codec.dumps)

    def _write_new(self, save: Save) -> tuple[Written, bool]:
        """Write the record at the new key; return whether no other request had moved it there.

        Whatever else the key has is replaced.

        :raises Gone: the session was moved to this key of its id, and then ended or moved on.
        """
        writer, there = self._writer, None
        for attempt in range(self._driver.update_attempts):
            if self._is_moved(save, there):
                try:
                    return writer.write(save, there), save.is_private
                except Gone as gone:
                    there = gone.place.stored
                    continue
            data = writer.encoded(save, there, save.record)
            if data is None:
                return Written(save.key, None, save.record), True
            swap = writer.swap(save.key, save.ttl, there, data, save.record)
            if swap.done:
                return Written(save.key, data, save.record), True
            there = swap.current
            pause(attempt)
        raise KVSConflict("other requests changed the session again and again during its move")

    def _is_moved(self, save: Save, there: Stored | None) -> bool:
        """Return whether the new key already has the session.

        :raises Gone: see :meth:`_write_new`.
        """
        theirs, target = self._writer.seen(there)
        is_same_id = save.key in save.other_keys
        if is_same_id and (target or (theirs and is_ended(self._writer.before(save), theirs))):
            raise Gone(Place(save.key, there))
        if not theirs:
            return False
        return is_same_id or bool(theirs.get(CREATED) == save.record[CREATED])

    # -- the old key ----------------------------------------------------------------------

    def _leave_marker(self, save: Save, old: Place, written: Written) -> Written:
        """Replace the old record; if other requests have changed it, move their changes too.

        :raises Gone: the old record is no longer there.
        """
        others = tuple(key for key in save.other_keys if key != save.key)
        for attempt in range(self._driver.update_attempts):
            marker = self._marker(written)
            swap = self._driver.raw_swap(old.key, old.stored, marker, MARKER_TTL)
            if swap.done or _is_lost_reply(marker, swap):
                return written
            old = self._writer.locate(
                save._replace(other_keys=others), Place(old.key, swap.current)
            )
            written = self._catch_up(save, written, self._writer.merged(save, old))
            pause(attempt)
        raise KVSConflict("other requests changed the session again and again during its move")

    def _marker(self, written: Written) -> Data | None:
        if written.data is None:  # a session that was cleared leaves nothing
            return None
        return self._writer.codec.dumps(marker_to(written.key))

    def _catch_up(self, save: Save, written: Written, record: Record) -> Written:
        """Bring the record at the new key up to date."""
        changes = difference(written.record, record, self._writer.codec.dumps)
        changes.is_cleared, changes.origin = save.changes.is_cleared, save.changes
        later = save._replace(base=written.data, record=record, changes=changes)
        if written.data is None:
            return self._write_new(later)[0]
        return self._writer.write(later, self._driver.raw_load(save.key))

    def erase(self, keys: Iterable[str]) -> list[str]:
        """Remove what the keys have, and follow markers, so that a session ends wherever it is.

        :returns: the keys that had a session, and not only a marker.
        """
        pending, removed, followed = list(keys), [], set[str]()
        for key in pending:
            data = self._driver.raw_delete(key)
            if data is not None:
                record, target = self._writer.seen(Stored(data))
                if record:
                    removed.append(key)
                if target is not None and target not in followed:
                    followed.add(target)
                    pending.append(target)
        return removed


def _is_lost_reply(marker: Data | None, swap: Swap) -> bool:
    """Return whether a driver repeated a swap that had been done, but whose reply was lost."""
    return marker is not None and is_same(marker, swap.current and swap.current.data)

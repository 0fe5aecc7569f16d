"""Notes what a request changes in its session."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from ...serializer import Data
from ..records import META, Record, RecordCodec, is_same
from .changes import Changes, difference
from .operations import Operation
from .values import PLAIN, REMOVED, Snapshot, identical, is_changed, snapshot, update_in_place

T = TypeVar("T")

#: Shared by nearly all requests, which pop no messages and call no functions of ``change()``.
NOTHING: Mapping[str, Any] = MappingProxyType({})


class Tracker:
    """Notes what a request changes, from a load or save to the next save.

    After a load, a snapshot is taken of each value that the application gets. After a save, the
    application may have got any value before. The next save then compares the whole record with
    the data that the first one wrote.

    :param written: the data that a save wrote; ``None`` after a load.
    """

    #: The data of the save that ended this tracker. See :meth:`after_save`.
    saved: Data | None = None
    #: Keys that were set or deleted before the last save.
    _assigned: Collection[str] = ()
    #: What ``change()`` did with values that were not set or changed before.
    operations: Mapping[str, list[Operation]] = NOTHING
    #: Messages that were popped, by flash queue.
    popped: Mapping[str, list[Any]] = NOTHING
    #: Messages that were pushed with ``allow_duplicate=False``, by flash queue.
    unique: Mapping[str, list[Any]] = NOTHING
    is_cleared = False
    #: Whether to save even if nothing changed.
    is_forced = False

    def __init__(self, codec: RecordCodec, written: Data | None = None) -> None:
        self.codec = codec
        self._dumps = codec.dumps
        self._written = written
        #: Keys that were set or deleted.
        self.touched: set[str] = set()
        #: The original state of values that the application has, and may change in place.
        self.snapshots: dict[str, Snapshot] = {}

    def after_save(self) -> Tracker:
        """Return a tracker for the changes after the save."""
        later = Tracker(self.codec, self.saved)
        later._assigned = self._all_assigned()
        return later

    def _all_assigned(self) -> set[str]:
        return {*self._assigned, *self.touched, *self.operations}

    def watch(self, key: str, value: Any) -> None:
        """Note the original state of a value before the application gets it."""
        if self._written is None and key not in self.touched and key not in self.snapshots:
            self.snapshots[key] = snapshot(value, self._dumps)

    # -- flash messages -------------------------------------------------------------------

    def add_popped(self, key: str, messages: Iterable[Any]) -> None:
        self.popped = _extended(self.popped, key, messages)

    def add_unique(self, key: str, message: Any) -> None:
        self.unique = _extended(self.unique, key, [message])

    # -- operations -----------------------------------------------------------------------

    def before_operation(self, key: str, value: Any) -> None:
        """Note whether the application changed a value in place before an operation.

        The operation then counts as a part of that change.
        """
        if type(value) not in PLAIN and key not in self.touched and self._is_changed(key, value):
            self.touched.add(key)

    def _is_changed(self, key: str, value: Any) -> bool:
        if key in self.snapshots:
            return is_changed(value, self.snapshots[key], self._dumps)
        if self._written is None:
            return False
        return not identical(self._written_record().get(key, REMOVED), value, self._dumps)

    def add_operation(self, key: str, operation: Operation, result: Any) -> None:
        """Note an operation. On a value that was set before, it is a part of that change."""
        if key not in self.touched:
            self.operations = _extended(self.operations, key, [operation])
            self.snapshots.pop(key, None)
            if type(result) not in PLAIN:
                self.snapshots[key] = snapshot(result, self._dumps)

    # -- the changes ----------------------------------------------------------------------

    def changes(self, data: Record, meta: Record) -> Changes:
        """Return the changes to the keys of the application and to the metadata."""
        values: Record = {}
        for key in self.touched:
            values[key] = (meta if key[:6] == META else data).get(key, REMOVED)
        for key, before in self.snapshots.items():
            if key not in values and is_changed(data[key], before, self._dumps):
                values[key] = data[key]
        if self._written is not None:
            self._add_changes_since_save(values, {**data, **meta})
        operations = NOTHING
        if self.operations:
            operations = {key: done for key, done in self.operations.items() if key not in values}
            values.update((key, data[key]) for key in operations)
        return Changes(values, self.popped, self.unique, self.is_cleared, operations)

    # -- after a save ---------------------------------------------------------------------

    def _add_changes_since_save(self, values: Record, record: Record) -> None:
        if not self._is_as_written(record):
            found = difference(self._written_record(), record, self._dumps).values
            values.update((key, found[key]) for key in found.keys() - self.operations.keys())

    def _is_as_written(self, record: Record) -> bool:
        try:
            return is_same(self._dumps(record), self._written)
        except Exception:  # noqa: BLE001  # the codec refuses a value, which the save reports
            return False

    def taken_over(self, key: str, held: Any, value: Any) -> Any:
        """Return the object that gets a value which a save has merged.

        It is the one that the application may hold, so that it can go on with it. An object that
        the application assigned is never changed, because it may have other uses.
        """
        if key not in self._all_assigned():
            update_in_place(held, value, self._dumps)
        return held if identical(held, value, self._dumps) else value

    def _written_record(self) -> Record:
        return (None if self._written is None else self.codec.decode(self._written)) or {}


def _extended(lists: Mapping[str, list[T]], key: str, items: Iterable[T]) -> Mapping[str, list[T]]:
    """Add items to one of several lists, and return these; :data:`NOTHING` stays as it is."""
    mine = lists if isinstance(lists, dict) else {}
    mine.setdefault(key, []).extend(items)
    return mine

"""Notes what a request changes in its session."""

from __future__ import annotations

from typing import Any

from ..records import META, Record
from .changes import REMOVED, Changes, Dumps, Snapshot, is_changed, snapshot


class Tracker:
    """Notes what a request changes, from a load or save to the next save.

    :param dumps: of the codec.
    """

    __slots__ = ("_dumps", "is_cleared", "is_forced", "popped", "snapshots", "touched", "unique")

    def __init__(self, dumps: Dumps) -> None:
        self._dumps = dumps
        #: Keys that were set or deleted.
        self.touched: set[str] = set()
        #: The original state of values that the application has, and may change in place.
        self.snapshots: dict[str, Snapshot] = {}
        self.popped: set[str] = set()
        self.unique: dict[str, list[Any]] = {}
        self.is_cleared = False
        #: Whether to save even if nothing changed.
        self.is_forced = False

    def watch(self, key: str, value: Any) -> None:
        """Note the original state of a value before the application gets it."""
        if key not in self.touched and key not in self.snapshots:
            self.snapshots[key] = snapshot(value, self._dumps)

    def changes(self, data: Record, meta: Record) -> Changes:
        """Return the changes to the keys of the application and to the metadata."""
        values = {
            key: (meta if key[:6] == META else data).get(key, REMOVED) for key in self.touched
        }
        for key, before in self.snapshots.items():
            if key not in values and is_changed(data[key], before, self._dumps):
                values[key] = data[key]
        return Changes(values, self.popped, self.unique, self.is_cleared)

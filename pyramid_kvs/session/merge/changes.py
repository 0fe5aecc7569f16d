"""What a request changed in a session."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..records import META, Record
from .operations import Operation
from .values import REMOVED, Dumps, identical


@dataclass(slots=True)
class Changes:
    """What one request changed, relative to what it read."""

    #: The new value of each changed key, or ``REMOVED``.
    values: dict[str, Any] = field(default_factory=dict)
    #: Flash queues that were popped. New messages may have been pushed afterwards.
    popped: Collection[str] = ()
    #: Messages that were pushed with ``allow_duplicate=False``, by queue.
    unique: Mapping[str, list[Any]] = field(default_factory=dict)
    #: Whether ``clear()`` was called; the store then does not keep the session if it is empty.
    is_cleared: bool = False
    #: Keys whose values were made by ``change()`` alone, so that it can run again.
    operations: Mapping[str, list[Operation]] = field(default_factory=dict)
    #: Whether another request changed one of the same values, and only one change could be kept.
    has_clashed: bool = False
    #: The changes from which these were made.
    origin: Changes | None = None

    def note_clash(self) -> None:
        """Note that another request changed one of the same values."""
        self.has_clashed = True
        if self.origin is not None:
            self.origin.note_clash()

    @property
    def is_metadata(self) -> bool:
        """Whether the application has changed nothing."""
        return not self.is_cleared and all(key[:6] == META for key in self.values)

    def relative_to(self, theirs: Record, merged: Record, dumps: Dumps) -> Changes:
        """Return these changes relative to a later record than the request has read.

        :param theirs: the later record.
        :param merged: the later record with these changes.
        """
        changes = difference(theirs, merged, dumps)
        changes.unique, changes.is_cleared = self.unique, self.is_cleared
        changes.operations, changes.origin = self.operations, self
        changes.values.update((key, merged[key]) for key in self.operations)
        return changes


def difference(old: Record, new: Record, dumps: Dumps) -> Changes:
    """Return the changes that turn one record into another."""
    removed = {key: REMOVED for key in old if key not in new}
    changed = {
        key: value
        for key, value in new.items()
        if not identical(old.get(key, REMOVED), value, dumps)
    }
    return Changes({**removed, **changed})

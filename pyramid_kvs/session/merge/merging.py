"""How the changes of two requests are merged."""

from __future__ import annotations

from typing import Any

from ...exceptions import SessionConflict
from ...serializer import Codec
from ..records import CREATED, META, POPPED, QUEUE, Record
from .changes import Changes
from .flash import is_marked, merged_queue
from .operations import apply_all
from .structure import merge_structures
from .values import REMOVED, decoded, identical


def merge(
    base: Record, changes: Changes, theirs: Record, codec: Codec, refuse_conflicts: bool = False
) -> Record:
    """Return a record that has the changes of both requests.

    If both requests changed one value, and only one of the changes can be kept, the later save
    wins, which is that of this request. The changes then note the clash.

    :param base: the record that this request read.
    :param theirs: the record that the store has now. It is decoded for this merge only, because
        the functions of operations may change its values.
    :raises SessionConflict: only one of two changes can be kept, and ``refuse_conflicts`` is true.
    """
    merging = _Merge(base, changes, theirs, codec, refuse_conflicts)
    merged = dict(theirs)
    for key, value in changes.values.items():
        value = merging.value(key, value)
        if value is REMOVED:
            merged.pop(key, None)
        else:
            merged[key] = value
    return merged


def has_clash(base: Record, changes: Changes, theirs: Record, codec: Codec) -> bool:
    """Return whether both requests changed a value of the application, and differently."""
    for key, ours in changes.values.items():
        if not key.startswith((META, QUEUE)):
            other = theirs.get(key, REMOVED)
            if not any(
                identical(other, value, codec.dumps) for value in (ours, base.get(key, REMOVED))
            ):
                return True
    return False


class _Merge:
    def __init__(
        self, base: Record, changes: Changes, theirs: Record, codec: Codec, refuse_conflicts: bool
    ) -> None:
        self._base = base
        self._changes = changes
        self._theirs = theirs
        self._codec = codec
        self._refuse_conflicts = refuse_conflicts

    def value(self, key: str, ours: Any) -> Any:
        """Return the merged value of a key, or ``REMOVED``."""
        if key.startswith(QUEUE):
            return merged_queue(key, self._base, self._changes, self._theirs, self._codec.dumps)
        if key.startswith(META):
            return self._metadata(key, ours)
        return self._of_application(key, ours)

    def _metadata(self, key: str, ours: Any) -> Any:
        theirs = self._theirs
        if key == CREATED:  # it identifies the session, so that it never changes
            return theirs.get(key, ours)
        if key.startswith(POPPED) and is_marked(key, self._base, theirs, self._codec.dumps):
            return theirs.get(key, REMOVED)  # it covers all messages that this request popped
        return ours

    def _of_application(self, key: str, ours: Any) -> Any:
        base, theirs = self._base.get(key, REMOVED), self._theirs.get(key, REMOVED)
        if key in self._changes.operations:
            return apply_all(self._changes.operations[key], theirs)
        dumps = self._codec.dumps

        def clash() -> None:
            self._changes.note_clash()
            if self._refuse_conflicts:
                raise SessionConflict(f"another request changed the session key {key!r} too")

        both = merge_structures(base, decoded(ours, self._codec), theirs, dumps, clash)
        if both is not None:
            return both
        if not identical(theirs, ours, dumps) and not identical(theirs, base, dumps):
            clash()
        return ours

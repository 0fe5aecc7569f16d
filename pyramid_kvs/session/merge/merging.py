"""How the changes of two requests are merged."""

from __future__ import annotations

from ...exceptions import SessionConflict
from ..records import CREATED, META, QUEUE, Record
from .changes import REMOVED, Changes, Dumps, identical
from .flash import merged_queue


def merge(base: Record, changes: Changes, theirs: Record, dumps: Dumps) -> Record:
    """Return a record that has the changes of both requests.

    :param base: the record that this request read.
    :param theirs: the record that the store has now.
    """
    merged = dict(theirs)
    for key, value in changes.values.items():
        if key.startswith(QUEUE):
            value = merged_queue(key, base, changes, theirs, dumps)
        elif key == CREATED and key in theirs:
            continue  # it identifies the session, so that it never changes
        if value is REMOVED:
            merged.pop(key, None)
        else:
            merged[key] = value
    return merged


def refuse_conflict(base: Record, changes: Changes, theirs: Record, dumps: Dumps) -> None:
    """Raise ``SessionConflict`` if both requests changed a key, and to different values."""
    for key, value in changes.values.items():
        if key.startswith((QUEUE, META)):
            continue
        found = theirs.get(key, REMOVED)
        if identical(found, value, dumps) or identical(found, base.get(key, REMOVED), dumps):
            continue
        raise SessionConflict(f"another request changed the session key {key!r} too")

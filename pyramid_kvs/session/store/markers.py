"""Markers: what a session that has moved leaves at its old key for some seconds.

A marker is not a session. It tells slower requests that have the old id, or an old key of the same
id, where the session is now. A worker of 1.0 takes it for a session and may add keys to it.
"""

from __future__ import annotations

import math
import time

from ..records import MOVED, UNTIL, Record

#: How long a marker lives, in seconds.
MARKER_TTL = 10


def marker_to(key: str) -> Record:
    """Return the record of a marker that names the new key of a session."""
    return {MOVED: key, UNTIL: time.time() + MARKER_TTL}


def split(record: Record) -> tuple[Record | None, str | None]:
    """Return the session of a record, and the key that a marker names; one of them is ``None``.

    Both are ``None`` for a marker whose time is over. If 1.0 added keys to it, they are a session.
    """
    if MOVED not in record:
        return record, None
    if seconds_left(record) > 0:
        return None, record[MOVED]
    return {key: record[key] for key in record if key not in (MOVED, UNTIL)} or None, None


def seconds_left(record: Record) -> int:
    """Return how long a marker is still valid, rounded up; 0 if its time is over."""
    left: float = record.get(UNTIL, 0) - time.time()
    return min(MARKER_TTL, max(0, math.ceil(left)))


def is_pure(record: Record) -> bool:
    """Return whether a marker has no keys that 1.0 added."""
    return len(record) == 2 and MOVED in record

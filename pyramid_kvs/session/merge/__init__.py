"""What a request changed in a session, and how the changes of two requests are merged."""

from __future__ import annotations

from .changes import REMOVED, Changes, difference, identical, is_changed, snapshot
from .merging import merge, refuse_conflict
from .tracker import Tracker

__all__ = [
    "REMOVED",
    "Changes",
    "Tracker",
    "difference",
    "identical",
    "is_changed",
    "merge",
    "refuse_conflict",
    "snapshot",
]

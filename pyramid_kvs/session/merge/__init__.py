"""What a request changed in a session, and how the changes of two requests are merged."""

from __future__ import annotations

from .changes import PLAIN, REMOVED, Changes, difference, identical, is_changed, snapshot
from .merging import merge
from .tracker import Tracker

__all__ = [
    "PLAIN",
    "REMOVED",
    "Changes",
    "Tracker",
    "difference",
    "identical",
    "is_changed",
    "merge",
    "snapshot",
]

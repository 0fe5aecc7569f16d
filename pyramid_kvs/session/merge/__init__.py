"""What a request changed in a session, and how the changes of two requests are merged."""

from __future__ import annotations

from .changes import Changes, difference
from .merging import has_clash, merge
from .operations import Operation, addition
from .tracker import Tracker
from .values import PLAIN, REMOVED

__all__ = [
    "PLAIN",
    "REMOVED",
    "Changes",
    "Operation",
    "Tracker",
    "addition",
    "difference",
    "has_clash",
    "merge",
]

"""The memory driver."""

from __future__ import annotations

from .driver import MemoryKVS
from .store import MemoryStore, named_stores

__all__ = ["MemoryKVS", "MemoryStore", "named_stores"]

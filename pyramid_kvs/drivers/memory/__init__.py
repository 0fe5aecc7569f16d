"""The memory driver."""

from __future__ import annotations

from .driver import MemoryKVS, MemoryStore, named_store

__all__ = ["MemoryKVS", "MemoryStore", "named_store"]

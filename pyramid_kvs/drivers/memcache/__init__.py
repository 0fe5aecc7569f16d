"""The memcache driver."""

from __future__ import annotations

from .driver import MemcacheKVS

__all__ = ["MemcacheKVS"]

"""The redis driver."""

from __future__ import annotations

from .driver import RedisKVS, Script, pack

__all__ = ["RedisKVS", "Script", "pack"]

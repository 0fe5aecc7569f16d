"""Sessions in the store: how they are loaded and saved."""

from __future__ import annotations

from .sessions import Moved, Preloaded, SessionStore
from .writer import Save, Written

__all__ = ["Moved", "Preloaded", "Save", "SessionStore", "Written"]

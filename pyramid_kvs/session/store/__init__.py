"""Sessions in the store: how they are loaded and saved."""

from __future__ import annotations

from .sessions import Preloaded, Save, SessionStore, Written

__all__ = ["Preloaded", "Save", "SessionStore", "Written"]

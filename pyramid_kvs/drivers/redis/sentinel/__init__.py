"""A service that sentinels watch, whose primary is found within the deadline of a call."""

from __future__ import annotations

from .transport import transport_of

__all__ = ["transport_of"]

"""The postgresql driver."""

from __future__ import annotations

from .driver import PostgresqlKVS

__all__ = ["PostgresqlKVS"]

"""How requests are counted.

``strategies.py`` has the three strategies as pure functions, and ``swaps.py`` runs them on any
store by compare-and-set. The ``.lua`` files have the same strategies for stores that run scripts,
and ``scripts.py`` calls them. A change of a strategy is a change of both; a test compares the two.
``slots.py`` runs a script for each slot of a cluster.
"""

from __future__ import annotations

import types
from collections.abc import Sequence
from typing import Protocol

from ...kvs import KVS, RunsScripts, RunsScriptsBySlot
from . import scripts
from .rules import COUNT, FORCE, LOOK, MOST, Hit, LimitCheck, LimitResult, Rule, returning
from .slots import SlotCounter
from .strategies import STRATEGIES, count
from .swaps import SwapCounter

__all__ = [
    "COUNT",
    "FORCE",
    "LOOK",
    "MOST",
    "STRATEGIES",
    "Hit",
    "LimitCheck",
    "LimitResult",
    "RequestCounter",
    "Rule",
    "count",
    "request_counter",
    "returning",
]


class RequestCounter(Protocol):
    """Counts requests on one store."""

    def __call__(
        self,
        checks: Sequence[LimitCheck],
        session_key: str | None = None,
        renew: float | None = None,
    ) -> Hit:
        """Count one request against several limits: all of them admit it, or none counts it.

        See :class:`~pyramid_kvs.ratelimit.counting.rules.Rule` for limits that only look, count
        past the limit, or are in shadow mode.

        :param session_key: a session to load, which decides where a check counts.
        :param renew: a new ttl for the session if it exists.
        """


def request_counter(driver: KVS) -> RequestCounter:
    """Return the counter for a driver's store, which uses scripts if the driver can run them."""
    if isinstance(driver, RunsScriptsBySlot):
        return SlotCounter(driver)
    if isinstance(driver, RunsScripts):
        return types.MethodType(scripts.hit, driver)  # faster than a partial
    return SwapCounter(driver)

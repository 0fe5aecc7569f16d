"""The store of a limit."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ..kvs import KVS
from ..logs import ThrottledLog
from .counting import Hit, LimitCheck, RequestCounter, request_counter


class LimitStore:
    """One driver that limits count on."""

    def __init__(self, driver: KVS) -> None:
        self.driver = driver
        self.log = ThrottledLog(logging.getLogger("pyramid_kvs.ratelimit"))
        #: Counts a request; see :class:`~pyramid_kvs.ratelimit.counting.RequestCounter`.
        self.count = request_counter(driver)
        self._count_here: RequestCounter | None = None

    def count_here(self, checks: Sequence[LimitCheck]) -> Hit:
        """Count a request in the memory of this process."""
        if self._count_here is None:
            self._count_here = request_counter(KVS("memory"))
        return self._count_here(checks)

"""The store of a limit."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from ..exceptions import KVSUnavailable
from ..kvs import KVS
from ..logs import ThrottledLog
from .counting import Hit, LimitCheck, RequestCounter, request_counter

#: A store that took this many seconds to fail is hung. It is left alone for a while, because each
#: request would wait as long.
SLOW = 0.2
LEFT_ALONE = 1.0


class LimitStore:
    """One driver that limits count on."""

    def __init__(self, driver: KVS) -> None:
        self.driver = driver
        self.log = ThrottledLog(logging.getLogger("pyramid_kvs.ratelimit"))
        self._count = request_counter(driver)
        self._count_here: RequestCounter | None = None
        self._left_alone_until = 0.0

    def count(
        self,
        checks: Sequence[LimitCheck],
        session_key: str | None = None,
        renew: float | None = None,
    ) -> Hit:
        """Count a request; see :class:`~pyramid_kvs.ratelimit.counting.RequestCounter`.

        :raises KVSError: the store did not count it.
        """
        started = time.monotonic()
        if started < self._left_alone_until:
            raise KVSUnavailable(f"the {self.driver.kvs} store did not answer a moment ago")
        try:
            return self._count(checks, session_key, renew)
        except KVSUnavailable as error:
            ended = time.monotonic()
            # Without a cause, the driver's pool is empty, which says nothing about the store.
            if ended - started > SLOW and error.__cause__ is not None:
                self._left_alone_until = ended + LEFT_ALONE
            raise

    def count_here(self, checks: Sequence[LimitCheck]) -> Hit:
        """Count a request in the memory of this process."""
        if self._count_here is None:
            self._count_here = request_counter(KVS("memory"))
        return self._count_here(checks)

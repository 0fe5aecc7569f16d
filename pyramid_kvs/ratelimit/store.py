"""The store of a limit."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Sequence

from pyramid.registry import Registry

from ..forks import ProcessLock
from ..kvs import KVS, RunsScriptsBySlot
from ..kvs.contract import CHECK_KEY, CHECK_TTL
from ..logs import ThrottledLog
from .counting import Hit, LimitCheck, RequestCounter, Rule, request_counter
from .counting.offenders import CLIENTS, Offenders

log = logging.getLogger("pyramid_kvs.ratelimit")


class LimitStore:
    """One driver that limits count on.

    :param registry: of the application, for events; ``None`` if there is none.
    """

    def __init__(self, driver: KVS, registry: Registry | None = None) -> None:
        self.driver = driver
        self.registry = registry
        self.log = ThrottledLog(log)
        self.refusals = ThrottledLog(log)
        #: Counts a request; see :class:`~pyramid_kvs.ratelimit.counting.RequestCounter`.
        self.count = request_counter(driver)
        #: Returns the key of a counter in the slot of another key; ``None`` on a single server.
        self.companion: Callable[[str, str], str] | None = None
        if isinstance(driver, RunsScriptsBySlot):
            self.companion = driver.companion
        #: Remembers nothing for a store in this process, which is as fast.
        self.offenders = Offenders(clients=CLIENTS if driver.is_shared else 0)
        self._count_here: RequestCounter | None = None
        self._lock = ProcessLock()
        #: Those of its limits; :meth:`check` uses no others.
        self.strategies: set[str] = set()
        driver.add_check(self.check)

    def count_here(self, checks: Sequence[LimitCheck]) -> Hit:
        """Count a request in the memory of this process."""
        with self._lock:
            if self._count_here is None:
                self._count_here = request_counter(KVS("memory"))
        return self._count_here(checks)

    def check(self) -> None:
        """Count as limits do, with keys that exist for a few seconds.

        :raises KVSError: the store cannot count.
        """
        keys = {strategy: CHECK_KEY + secrets.token_hex(8) for strategy in self.strategies}
        checks = [
            LimitCheck(Rule(strategy, 9, CHECK_TTL * 1000, 9), key, key)
            for strategy, key in keys.items()
        ]
        if checks:
            for _ in range(2):  # the first time writes other commands than the second
                self.count(checks)
            self.driver.raw_delete_many(list(keys.values()))

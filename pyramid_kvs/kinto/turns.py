"""Kinto's pool settings for drivers whose own pool refuses at once: callers wait for a turn."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pyramid.config import Configurator

from ..drivers.waiting_pool import Slot, WaitingPool
from .options import read


class Turn:
    """The right to make one call, which the pool takes for a connection."""

    generation = 0
    slot: Slot | None = None

    def __init__(self) -> None:
        self.opened_at = time.monotonic()

    def is_usable(self) -> bool:
        return True

    def close(self) -> None:
        pass


class Turns:
    """Lets as many callers in as there are connections; more wait, in a bounded line.

    :param size: of the pool, ``overflow`` included.
    :param backlog: how many may wait; negative: any number.
    :param timeout: how long one of them waits, in seconds.
    """

    def __init__(self, size: int = 50, backlog: int = -1, timeout: float = 0.5) -> None:
        self.size = size
        self._pool = WaitingPool(lambda _: Turn(), size, 0, backlog, timeout)

    @contextmanager
    def one(self) -> Iterator[None]:
        """Hold a turn.

        :raises KVSUnavailable: all are taken, and the line is full or the wait was too long.
        """
        turn = self._pool.take(math.inf)
        try:
            yield
        finally:
            self._pool.give(turn)


#: Stands for "any number", which is more than a process has threads.
UNLIMITED = 10_000


def read_turns(config: Configurator) -> Turns:
    """Return the turns that Kinto's pool settings describe."""
    options = read(
        config,
        "cache_pool_size",
        "cache_max_overflow",
        "cache_max_backlog",
        "cache_pool_timeout",
    )
    size, overflow = options.get("pool_size", 50), options.get("max_overflow", 0)
    return Turns(
        UNLIMITED if overflow < 0 else size + overflow,
        options.get("max_backlog", -1),
        options.get("pool_timeout", 0.5),
    )

"""The creators that run in this process: who runs one, and who waits for it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from time import monotonic
from typing import TypeVar

from ..forks import ProcessLock
from ..kvs import Data

T = TypeVar("T")


class Run:
    """A creator that is running, and when those who wait for it stop waiting."""

    __slots__ = ("creations", "is_over", "key", "until")

    def __init__(self, creations: Creations, key: str, until: float) -> None:
        self.creations = creations
        self.key = key
        #: A time of ``time.monotonic()``.
        self.until = until
        self.is_over = False


#: The creators inside which a caller is, the outermost first. Greenlets have separate ones. A
#: thread or task that a creator starts may get a copy, and outlive the creator.
runs: ContextVar[tuple[Run, ...]] = ContextVar("pyramid_kvs.cache.runs", default=())


def patience(wait: float) -> float:
    """Return when a caller stops waiting, by ``time.monotonic()``.

    A caller inside another creator waits no longer than others wait for that creator. So creators
    that ask for each other's keys come to an end.
    """
    return min([monotonic() + wait, *(run.until for run in runs.get() if not run.is_over)])


class Turn:
    """The right to create a key in this process; ``data`` is what its last holder returned."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self.data: Data | None = None


class Creations:
    """The keys that a cache is creating in this process."""

    def __init__(self) -> None:
        #: By process and key: a child process does not wait for threads of its parent.
        self._turns: dict[tuple[int, str], Turn] = {}
        self._lock = ProcessLock()

    def refuse_own_key(self, key: str) -> None:
        """Raise an error inside the creator of the key, where the value cannot be awaited.

        :raises RuntimeError: the caller is there.
        """
        for run in runs.get():
            if run.key == key and run.creations is self and not run.is_over:
                raise RuntimeError(f"cache key {key!r} was asked for inside its own creator")

    def call(self, key: str, creator: Callable[[], T], lifetime: float) -> T:
        """Call a creator.

        :param lifetime: how long others wait for it, in seconds.
        """
        run = Run(self, key, monotonic() + lifetime)
        token = runs.set((*runs.get(), run))
        try:
            return creator()
        finally:
            run.is_over = True
            runs.reset(token)

    @contextmanager
    def turn(self, key: str, until: float) -> Iterator[Turn | None]:
        """Wait for the turn of a key, and hold it.

        :param until: a time of ``time.monotonic()``. The turn is ``None`` if it did not come.
        """
        place = os.getpid(), key
        with self._lock:
            turn = self._turns.setdefault(place, Turn())
            turn.users += 1
        try:
            yield from _held(turn, until)
        finally:
            with self._lock:
                turn.users -= 1
                if not turn.users:
                    self._remove(place, turn)

    def end(self, key: str, turn: Turn, data: Data) -> Data:
        """Give the data to those who wait for the turn, and return them.

        Who comes later gets a new turn, because the data may have been deleted since.
        """
        turn.data = data
        with self._lock:
            self._remove((os.getpid(), key), turn)
        return data

    def _remove(self, place: tuple[int, str], turn: Turn) -> None:
        if self._turns.get(place) is turn:
            del self._turns[place]


def _held(turn: Turn, until: float) -> Iterator[Turn | None]:
    left = min(max(until - monotonic(), 0), threading.TIMEOUT_MAX)
    if not turn.lock.acquire(timeout=left):
        yield None
        return
    try:
        yield turn
    finally:
        turn.lock.release()

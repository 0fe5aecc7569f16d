"""One caller at a time at a counter that several change."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from ... import forks

_TURNS = 64


class Turn:
    """A lock that callers get in the order in which they came."""

    def __init__(self) -> None:
        self.after_fork()
        forks.renew_in_child(self)

    def after_fork(self) -> None:
        self.is_taken = False
        self.waiting: deque[threading.Lock] = deque()
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            if not self.is_taken:
                self.is_taken = True
                return
            mine = threading.Lock()
            mine.acquire()
            self.waiting.append(mine)
        try:
            mine.acquire()
        except BaseException:  # for example a timeout of gevent
            self._leave(mine)
            raise

    def _leave(self, mine: threading.Lock) -> None:
        with self._lock:
            if mine in self.waiting:
                self.waiting.remove(mine)
                return
        self.__exit__()  # it was given the turn

    def __exit__(self, *error: object) -> None:
        with self._lock:
            if self.waiting:
                self.waiting.popleft().release()
            else:
                self.is_taken = False


class Turns:
    """Lets the threads of this process wait for each other at counters that are contended.

    A counter is contended while a thread tries again at it. Other requests do not wait, so that
    none waits for another one that waits for a hung store.
    """

    def __init__(self) -> None:
        self._turns = [Turn() for _ in range(_TURNS)]

    def is_contended(self, keys: Iterable[str]) -> bool:
        """Return whether a thread tries again at one of these counters."""
        if not forks.renewed[0]:
            forks.renew()
        turns = self._turns
        for key in keys:  # noqa: SIM110 (a generator takes longer than all the rest)
            if turns[hash(key) % _TURNS].is_taken:
                return True
        return False

    def of(self, key: str) -> Turn:
        """Return the turn of a counter, which it may share with other counters."""
        return self._turns[hash(key) % _TURNS]

    @contextmanager
    def take(self, keys: Iterable[str]) -> Iterator[None]:
        """Wait until no other thread tries again at one of these counters."""
        with ExitStack() as stack:
            for turn in sorted({self.of(key) for key in keys}, key=id):
                stack.enter_context(turn)
            yield

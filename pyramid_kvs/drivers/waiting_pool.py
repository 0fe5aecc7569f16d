"""A bounded pool of connections whose callers may wait for one, in a bounded line."""

from __future__ import annotations

import math
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from ..exceptions import KVSUnavailable


class Connection(Protocol):
    """What the pool asks of a connection."""

    #: ``time.monotonic()`` when it was opened.
    opened_at: float
    #: Set by the pool: which of its generations the connection belongs to.
    generation: int

    def is_usable(self) -> bool:
        """Return whether it is open and idle; asks nobody, so that it costs no round trip."""

    def close(self) -> None: ...


C = TypeVar("C", bound=Connection)

_pools: weakref.WeakSet[WaitingPool[Connection]] = weakref.WeakSet()


class WaitingPool(Generic[C]):
    """Connections opened when they are wanted; the latest used is the first to be used again.

    A caller needs a slot first, of which there are ``size + overflow``; whoever frees one hands
    it to the first in line.

    :param connect: opens a connection until a time of ``time.monotonic()``; its errors pass
        through :meth:`take`.
    :param size: how many idle connections are kept open.
    :param overflow: how many more may be in use at once; negative: any number.
    :param backlog: how many callers may wait for a slot; negative: any number.
    :param timeout: how long one of them waits, in seconds.
    :param recycle: the age in seconds at which a connection is replaced; negative: never.
    """

    def __init__(
        self,
        connect: Callable[[float], C],
        size: int,
        overflow: int = 0,
        backlog: int = -1,
        timeout: float = 0.5,
        recycle: float = -1,
    ) -> None:
        self._connect = connect
        self._size = size
        self._slots = size + overflow if overflow >= 0 else sys.maxsize
        self._backlog = backlog if backlog >= 0 else sys.maxsize
        self._timeout = timeout
        self._recycle = recycle if recycle >= 0 else math.inf
        self._generation = 0
        self._start()
        _pools.add(self)  # type: ignore[arg-type]

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._busy = 0
        self._line: deque[threading.Lock] = deque()
        self._idle: list[C] = []
        self._generation += 1

    def take(self, deadline: float) -> C:
        """Return a connection for the caller alone, who must ``give`` or ``drop`` it.

        :param deadline: of ``time.monotonic()``, for opening a connection.
        :raises KVSUnavailable: all are in use, and the line is full or the wait was too long.
        """
        self._take_slot(deadline)
        try:
            return self._pop() or self._open(deadline)
        except BaseException:
            self._free_slot()
            raise

    def give(self, connection: C) -> None:
        """Take back a connection whose last reply was read to its end."""
        with self._lock:
            kept = connection.generation == self._generation and len(self._idle) < self._size
            if kept:
                self._idle.append(connection)
            self._pass_slot()
        if not kept:
            connection.close()

    def drop(self, connection: C) -> None:
        """Close a connection that may still have a reply under way."""
        try:
            connection.close()
        finally:
            self._free_slot()

    def close(self) -> None:
        """Close the idle connections now, and those in use when they come back."""
        with self._lock:
            self._generation += 1
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def forget(self) -> None:
        """Start anew in a child process: the parent goes on using the connections."""
        self._abandoned = self._idle
        self._start()

    # -- connections ----------------------------------------------------------------------

    def _pop(self) -> C | None:
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                return None
            if connection.is_usable() and not self._is_old(connection):
                return connection
            connection.close()

    def _is_old(self, connection: C) -> bool:
        return time.monotonic() - connection.opened_at > self._recycle

    def _open(self, deadline: float) -> C:
        generation = self._generation
        connection = self._connect(deadline)
        connection.generation = generation
        return connection

    # -- slots ----------------------------------------------------------------------------

    def _take_slot(self, deadline: float) -> None:
        with self._lock:
            if self._busy < self._slots:
                self._busy += 1
                return
            if len(self._line) >= self._backlog:
                raise KVSUnavailable(
                    f"all {self._slots} connections are in use, and {self._backlog} wait for one"
                )
            place = threading.Lock()
            place.acquire()
            self._line.append(place)
        self._wait(place, min(self._timeout, deadline - time.monotonic()))

    def _wait(self, place: threading.Lock, timeout: float) -> None:
        granted = False
        try:
            granted = place.acquire(timeout=max(0, timeout))
        finally:
            if not granted:
                self._leave(place)
        if not granted:
            raise KVSUnavailable(
                f"all {self._slots} connections are in use; none came free in {timeout:.3g} s"
            )

    def _leave(self, place: threading.Lock) -> None:
        with self._lock:
            try:
                self._line.remove(place)
            except ValueError:  # the slot came in the moment of leaving
                self._pass_slot()

    def _free_slot(self) -> None:
        with self._lock:
            self._pass_slot()

    def _pass_slot(self) -> None:
        if self._line:
            self._line.popleft().release()
        else:
            self._busy -= 1


def _forget_all() -> None:
    for pool in list(_pools):
        pool.forget()


os.register_at_fork(after_in_child=_forget_all)

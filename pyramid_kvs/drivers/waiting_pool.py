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
from typing import Any, Generic, Protocol, TypeVar

from ..exceptions import KVSUnavailable


class Connection(Protocol):
    """What the pool asks of a connection."""

    #: ``time.monotonic()`` when it was opened.
    opened_at: float
    #: Set by the pool: which of its generations the connection belongs to.
    generation: int
    #: Set by the pool: the caller's right to use it.
    slot: Slot | None

    def is_usable(self) -> bool:
        """Return whether it is open and idle; asks nobody, so that it costs no round trip."""

    def close(self) -> None: ...


class Slot:
    """The right to use one connection."""

    def __init__(self) -> None:
        self.gate = threading.Lock()


C = TypeVar("C", bound=Connection)

_pools: weakref.WeakSet[WaitingPool[Any]] = weakref.WeakSet()


class WaitingPool(Generic[C]):
    """Connections opened when they are wanted; the latest used is the first to be used again.

    A caller needs a slot first, of which there are ``size + overflow``; whoever frees one lets
    in the first in line. Slots are held weakly: one that is lost with its connection, as an
    exception struck between ``take`` and the caller's ``try``, becomes free by itself.

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
        self._abandoned: list[C] = []
        self._start()
        _pools.add(self)

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._in_use: weakref.WeakSet[Slot] = weakref.WeakSet()
        self._line: deque[Slot] = deque()
        self._idle: list[C] = []
        self._generation += 1

    def take(self, deadline: float, waits: bool = True) -> C:
        """Return a connection for the caller alone, who must ``give`` or ``drop`` it.

        :param deadline: of ``time.monotonic()``, for opening a connection.
        :param waits: whether to stand in line for a slot.
        :raises KVSUnavailable: all are in use, and the line is full or the wait was too long.
        """
        slot = self._take_slot(deadline, waits)
        try:
            connection = self._pop() or self._open(deadline)
            connection.slot = slot
        except BaseException:
            self._free(slot)
            raise
        return connection

    def give(self, connection: C) -> None:
        """Take back a connection whose last reply was read to its end."""
        slot, connection.slot = connection.slot, None
        with self._lock:
            kept = connection.generation == self._generation and len(self._idle) < self._size
            if kept:
                self._idle.append(connection)
        if not kept:
            connection.close()
        self._free(slot)

    def drop(self, connection: C) -> None:
        """Close a connection that may still have a reply under way."""
        try:
            connection.close()
        finally:
            self._free(connection.slot)

    def close(self) -> None:
        """Close the idle connections now, and those in use when they come back."""
        with self._lock:
            self._generation += 1
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def forget(self) -> None:
        """Start anew in a child process: the parent goes on using the connections."""
        self._abandoned += self._idle
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

    def _take_slot(self, deadline: float, waits: bool) -> Slot:
        slot = Slot()
        with self._lock:
            if len(self._in_use) < self._slots:
                self._in_use.add(slot)
                return slot
            if not waits or len(self._line) >= self._backlog:
                raise KVSUnavailable(
                    f"all {self._slots} connections are in use, and "
                    f"{len(self._line)} callers wait for one"
                )
            slot.gate.acquire()
            self._line.append(slot)
        self._wait(slot, min(self._timeout, deadline - time.monotonic()))
        return slot

    def _wait(self, slot: Slot, timeout: float) -> None:
        admitted = False
        try:
            admitted = slot.gate.acquire(timeout=max(0, timeout))
        finally:
            if not admitted:
                self._leave(slot)
        if not admitted:
            raise KVSUnavailable(
                f"all {self._slots} connections are in use; none came free in {timeout:.3g} s"
            )

    def _leave(self, slot: Slot) -> None:
        with self._lock:
            if slot in self._line:
                self._line.remove(slot)
        self._free(slot)  # it may have been admitted in the moment of leaving

    def _free(self, slot: Slot | None) -> None:
        with self._lock:
            if slot is not None:
                self._in_use.discard(slot)
            while self._line and len(self._in_use) < self._slots:
                admitted = self._line.popleft()
                self._in_use.add(admitted)
                admitted.gate.release()


def _forget_all() -> None:
    for pool in list(_pools):
        pool.forget()


os.register_at_fork(after_in_child=_forget_all)

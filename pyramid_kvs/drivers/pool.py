"""A small LIFO pool of connections, shared by the drivers that speak their protocol themselves."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from ..exceptions import KVSUnavailable


class Connection(Protocol):
    """What the pool asks of a connection, besides that it can be weakly referenced."""

    #: ``time.monotonic()`` of the latest use; set by ``give``.
    used_at: float

    def close(self) -> None: ...


class _Opening:
    """Stands for a connection while it is opened."""


C = TypeVar("C", bound=Connection)

_pools: weakref.WeakSet[Pool[Any]] = weakref.WeakSet()


class Pool(Generic[C]):
    """Connections that are free, the latest used first.

    A free connection is taken and given by one operation on a deque, which is atomic; only
    opening one takes the lock. The connections that exist are held weakly: one that is lost, as
    an exception struck between ``take`` and the caller's ``try``, makes room by itself.

    :param connect: opens a connection; its errors pass through ``take``.
    :param size: how many connections may exist at once.
    """

    def __init__(self, connect: Callable[[], C], size: int) -> None:
        self._connect = connect
        self._size = size
        self._abandoned: list[object] = []
        self._start()
        _pools.add(self)

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._free: deque[C] = deque()
        self._existing: weakref.WeakSet[C | _Opening] = weakref.WeakSet()

    def take(self) -> C:
        """Return a connection for the caller alone, who must ``give`` or ``drop`` it.

        :raises KVSUnavailable: all are in use.
        """
        try:
            return self._free.pop()
        except IndexError:
            return self._open()

    def take_new(self) -> C:
        """Return a connection opened for this call; the free ones are closed as outworn."""
        self.close()
        return self._open()

    def _open(self) -> C:
        opening = self._admit()
        try:
            connection = self._connect()
        finally:
            self._existing.discard(opening)
        self._existing.add(connection)
        return connection

    def _admit(self) -> _Opening:
        with self._lock:
            if self._is_full():
                raise KVSUnavailable(f"all {self._size} connections are in use")
            opening = _Opening()
            self._existing.add(opening)
            return opening

    def _is_full(self) -> bool:
        # len() also counts what died while a signal handler's exception kept the set from noting it
        return len(self._existing) >= self._size and len(list(self._existing)) >= self._size

    def give(self, connection: C) -> None:
        """Take back a connection whose last reply was read to its end."""
        connection.used_at = time.monotonic()
        self._free.append(connection)

    def drop(self, connection: C) -> None:
        """Close a connection that may still have a reply under way."""
        self._existing.discard(connection)
        connection.close()

    def close(self) -> None:
        """Close the free connections; those in use come back as before."""
        for _ in range(len(self._free)):
            try:
                connection = self._free.pop()
            except IndexError:
                return
            self.drop(connection)

    def forget(self) -> None:
        """Start anew in a child process: the parent goes on using the connections.

        They are kept from the collector, so that no destructor of theirs tells the server.
        """
        self._abandoned += self._existing
        self._start()


def _forget_all() -> None:
    for pool in list(_pools):
        pool.forget()


os.register_at_fork(after_in_child=_forget_all)

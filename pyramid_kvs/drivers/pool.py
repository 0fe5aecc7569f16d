"""A small LIFO pool of connections, shared by the drivers that speak their protocol themselves."""

from __future__ import annotations

import os
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from ..exceptions import KVSUnavailable


class Connection(Protocol):
    """What the pool asks of a connection."""

    #: ``time.monotonic()`` of the latest use.
    used_at: float

    def close(self) -> None: ...


C = TypeVar("C", bound=Connection)

_pools: weakref.WeakSet[Pool[Connection]] = weakref.WeakSet()


class Pool(Generic[C]):
    """Connections that are free, the latest used first.

    ``take`` and ``give`` are one operation on a deque each, which is atomic: there is no lock.
    The deque holds ``None`` for each connection that may still be opened, to the left of those
    that are open.

    :param connect: opens a connection; its errors pass through ``take``.
    :param size: how many connections may be in use at once.
    """

    def __init__(self, connect: Callable[[], C], size: int) -> None:
        self._connect = connect
        self._size = size
        self._free: deque[C | None] = deque([None] * size)
        _pools.add(self)  # type: ignore[arg-type]

    def take(self) -> C:
        """Return a connection for the caller alone, who must ``give`` or ``drop`` it.

        :raises KVSUnavailable: all are in use.
        """
        try:
            connection = self._free.pop()
        except IndexError:
            raise KVSUnavailable(f"all {self._size} connections are in use") from None
        return self._open(self._free) if connection is None else connection

    def take_new(self) -> C:
        """Return a connection opened for this call; the free ones are closed as outworn."""
        self.close()
        return self.take()

    def _open(self, free: deque[C | None]) -> C:
        try:
            return self._connect()
        except BaseException:
            free.appendleft(None)
            raise

    def give(self, connection: C) -> None:
        """Take back a connection whose last reply was read to its end."""
        connection.used_at = time.monotonic()
        self._free.append(connection)

    def drop(self, connection: C) -> None:
        """Close a connection that may still have a reply under way."""
        self._free.appendleft(None)
        connection.close()

    def close(self) -> None:
        """Close the free connections; those in use come back as before."""
        for _ in range(self._size):
            try:
                connection = self._free.pop()
            except IndexError:
                return
            self._free.appendleft(None)
            if connection is not None:
                connection.close()

    def forget(self) -> None:
        """Start anew in a child process: the parent goes on using the connections."""
        self._abandoned = self._free
        self._free = deque([None] * self._size)


def _forget_all() -> None:
    for pool in list(_pools):
        pool.forget()


os.register_at_fork(after_in_child=_forget_all)

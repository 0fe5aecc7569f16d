"""What a pool knows of its connections and of those who wait for one, process by process."""

from __future__ import annotations

import math
import threading
from collections import deque
from os import getpid
from typing import Any, Generic, TypeVar
from weakref import ref

#: Seconds without use after which a firewall may have forgotten a connection.
LONG_IDLE = 1.0

#: How long a new connection to a server that seems to hang may take to show that it does not.
PROBE_TIMEOUT = 0.08


class Pooled:
    """A connection with the pool's notes on it. The drivers' connections inherit from it.

    Times are those of ``time.monotonic()``.
    """

    __slots__ = ("__weakref__", "home", "taken_at", "usable_until", "used_at")

    #: The process that opened the connection.
    home: Process[Any]
    #: When the call that has it stopped waiting. The deadline of the call counts from here.
    taken_at: float
    #: When it was given back. Infinity for a new connection.
    used_at: float
    #: When the pool closes it instead of keeping it.
    usable_until: float

    def __init__(self) -> None:
        self.used_at = self.usable_until = math.inf

    @property
    def is_new(self) -> bool:
        """Whether it was opened by the call that has it."""
        return self.used_at == math.inf

    @property
    def was_long_idle(self) -> bool:
        """Whether a firewall may have forgotten it before the call that has it."""
        return not self.is_new and self.taken_at - self.used_at > LONG_IDLE

    def close(self) -> None:
        """Close without waiting for the server."""


class Opening(Pooled):
    """The right to open a connection. It is counted like the connection."""


C = TypeVar("C", bound=Pooled)


class Waiter(Generic[C]):
    """A caller in the line, and what it was given."""

    __slots__ = ("gate", "granted")

    def __init__(self) -> None:
        self.granted: C | Opening | None = None
        self.gate = threading.Lock()
        self.gate.acquire()


class Process(Generic[C]):
    """The connections and the line of one process.

    :param parent: the process that forked it. Its connections are kept, even those in use, so that
        no destructor closes them.
    """

    def __init__(self, parent: Process[C] | None = None) -> None:
        self.pid = getpid()
        # Reentrant, because a signal handler may use the pool.
        self.lock = threading.RLock()
        self.idle: deque[C] = deque()
        self.line: deque[Waiter[C]] = deque()
        # Not a WeakSet: reading one while another thread changes it raises RuntimeError, and an
        # exception of a signal handler can keep it from noting that a connection is lost.
        self._existing: set[ref[Pooled]] = set()
        self._abandoned = (parent, parent.existing() if parent else [])

    def count(self, connection: Pooled) -> None:
        connection.home = self
        self._existing.add(ref(connection, self._existing.discard))

    def forget(self, connection: Pooled) -> None:
        self._existing.discard(ref(connection))

    def existing(self) -> list[Pooled]:
        """Return the connections that are idle, in use or being opened."""
        found = [known() for known in self._existing.copy()]
        return [connection for connection in found if connection is not None]

    def total(self) -> int:
        return len(self._existing)

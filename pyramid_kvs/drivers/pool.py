"""The pool of connections that all drivers share: idle ones to take, and a line to wait in."""

from __future__ import annotations

import math
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from os import getpid
from time import monotonic
from typing import Any, Generic, NamedTuple, TypeVar
from weakref import ref

from ..exceptions import KVSUnavailable
from ..forks import renew_in_child

#: How long a call waits for a connection while all of them are in use, in seconds.
TIMEOUT = 0.5


class Pooled:
    """A connection with the pool's notes on it. The drivers' connections inherit from it.

    Times are those of ``time.monotonic()``.
    """

    __slots__ = ("__weakref__", "home", "taken_at", "usable_until", "used_at")

    #: The process that opened the connection.
    home: _Process[Any]
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

    def close(self) -> None:
        """Close without waiting for the server."""


class _Opening(Pooled):
    """The right to open a connection. It is counted like the connection."""


C = TypeVar("C", bound=Pooled)


class _Waiter(Generic[C]):
    """A caller in the line, and what it was given."""

    __slots__ = ("gate", "granted")

    def __init__(self) -> None:
        self.granted: C | _Opening | None = None
        self.gate = threading.Lock()
        self.gate.acquire()


class _Process(Generic[C]):
    """The connections and the line of one process."""

    def __init__(self) -> None:
        self.pid = getpid()
        # Reentrant, because a signal handler may use the pool.
        self.lock = threading.RLock()
        self.idle: deque[C] = deque()
        self.line: deque[_Waiter[C]] = deque()
        # Not a WeakSet: reading one while another thread changes it raises RuntimeError, and an
        # exception of a signal handler can keep it from noting that a connection is lost.
        self._existing: set[ref[Pooled]] = set()
        self._children: dict[int, _Process[C]] = {}
        self._parent: _Process[C] | None = None
        self._abandoned: list[Pooled] = []

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

    def child(self) -> _Process[C]:
        """Return the part of the pool for this process, which was forked from that one.

        Without a lock, because a thread of the parent may have held it at the fork. All threads
        get the same object, because ``setdefault`` is atomic. It keeps the parent's connections,
        even those in use, so that no destructor closes them.
        """
        child = self._children.setdefault(getpid(), _Process())
        child._parent, child._abandoned = self, self.existing()
        return child


class Counts(NamedTuple):
    """How many connections are idle and in use, and how many callers wait for one."""

    idle: int
    in_use: int
    waiting: int


class Pool(Generic[C]):
    """Connections, opened when calls need them. The most recently used one is used first.

    An idle connection is taken and given back by one atomic operation on a deque. Only waiting
    and opening take the lock. No wake-up is lost: ``give`` first puts the connection into
    ``idle`` and then looks at ``line``, and a waiter first joins ``line`` and then looks at
    ``idle``. Whichever of the two comes second sees what the other one did.

    Connections are counted by weak references. If one is lost, because a signal handler raised
    between :meth:`take` and the caller's ``try``, its place becomes free. Nobody is woken then,
    but a waiter looks a last time when its time is over.

    A connection is used in the process that opened it only. ``take`` compares the process id,
    because hooks do not run if C code forks, as uWSGI does.

    :param connect: opens a connection for a call that began at a time of ``time.monotonic()``.
        Its errors pass through :meth:`take`.
    :param size: how many idle connections are kept.
    :param overflow: how many more can be in use at once. A negative number means no limit.
    :param backlog: how many callers can wait. A negative number means no limit.
    :param timeout: how long each of them waits, in seconds.
    :param recycle: the age in seconds at which a connection is replaced. A negative number means
        never.
    """

    def __init__(
        self,
        connect: Callable[[float], C],
        size: int,
        overflow: int = 0,
        backlog: int = -1,
        timeout: float = TIMEOUT,
        recycle: float = -1,
    ) -> None:
        self._connect = connect
        self._size = size
        self._most = size + overflow if overflow >= 0 else sys.maxsize
        self._backlog = backlog if backlog >= 0 else sys.maxsize
        self._timeout = timeout
        self._recycle = recycle if recycle >= 0 else math.inf
        self._process: _Process[C] = _Process()
        renew_in_child(self)

    def take(self) -> C:
        """Return a connection for the caller alone, who must ``give`` or ``drop`` it.

        :raises KVSUnavailable: all connections stayed in use, or too many callers wait.
        """
        process = self._process
        if process.pid != getpid():
            process = self._renew(process)
        if not process.line:
            connection = self._pop(process)
            if connection is not None:
                return connection
        granted = self._wait(process)
        if isinstance(granted, _Opening):
            return self._open(granted, monotonic())
        return granted

    def take_idle(self) -> C | None:
        """Return an idle connection, or ``None`` if there is none. It never waits."""
        process = self._current()
        connection = self._pop(process)
        if connection is None and process.line:
            self._serve(process)
        return connection

    def replace(self, connection: C) -> C:
        """Close an idle connection that turned out dead, and return a new one in its place.

        The other connections that have been idle for as long are closed too.
        """
        self.close_unused_since(connection.used_at)
        opening = _Opening()
        with connection.home.lock:
            connection.home.count(opening)
            self._discard(connection)
        return self._open(opening, connection.taken_at)

    def give(self, connection: C) -> None:
        """Take back a connection after the whole reply to its last command was read."""
        process = connection.home
        connection.used_at = now = monotonic()
        process.idle.append(connection)
        if process.line or now > connection.usable_until or len(process.idle) > self._size:
            self._settle(process)

    def drop(self, connection: Pooled) -> None:
        """Close a connection on which a reply may still arrive."""
        self._discard(connection)
        if connection.home.line:
            self._serve(connection.home)

    def close(self) -> None:
        """Close the idle connections now, and those in use when they come back."""
        process = self._current()
        with process.lock:
            for connection in process.existing():
                connection.usable_until = -math.inf
        self._settle(process)

    def close_unused_since(self, moment: float) -> None:
        """Close the idle connections that were not used after a time of ``time.monotonic()``."""
        process = self._current()
        with process.lock:
            old = [idle for idle in process.idle.copy() if idle.used_at <= moment]
            self._close_idle(process, old)
            self._serve(process)

    def counts(self) -> Counts:
        process = self._current()
        idle = len(process.idle)
        return Counts(idle, max(0, process.total() - idle), len(process.line))

    # -- processes ------------------------------------------------------------------------

    def after_fork(self) -> None:
        self._current()

    def _current(self) -> _Process[C]:
        process = self._process
        return process if process.pid == getpid() else self._renew(process)

    def _renew(self, parent: _Process[C]) -> _Process[C]:
        self._process = process = parent.child()
        return process

    # -- connections ----------------------------------------------------------------------

    def _pop(self, process: _Process[C]) -> C | None:
        while True:
            try:
                connection = process.idle.pop()
            except IndexError:
                return None
            connection.taken_at = now = monotonic()
            if now <= connection.usable_until:
                return connection
            self._discard(connection)

    def _open(self, opening: _Opening, began: float) -> C:
        process = opening.home
        try:
            connection = self._connect(began)
            connection.taken_at = began
            with process.lock:
                connection.usable_until = min(opening.usable_until, began + self._recycle)
                process.count(connection)
                process.forget(opening)
        except BaseException:
            self.drop(opening)
            raise
        return connection

    def _discard(self, connection: Pooled) -> None:
        process = connection.home
        if process.pid != getpid():
            process.idle.append(connection)  # not closed: the parent uses it
            return
        process.forget(connection)
        with suppress(OSError):
            connection.close()

    def _settle(self, process: _Process[C]) -> None:
        """Close the idle connections that are not to be kept, after serving those who wait."""
        now = monotonic()
        with process.lock:
            worn = [idle for idle in process.idle.copy() if now > idle.usable_until]
            self._close_idle(process, worn)
            self._serve(process)
            surplus = len(process.idle) - self._size
            if surplus > 0:
                self._close_idle(process, [*process.idle.copy()][:surplus])

    def _close_idle(self, process: _Process[C], connections: Iterable[C]) -> None:
        for connection in connections:
            try:
                process.idle.remove(connection)
            except ValueError:  # another thread took it
                continue
            self._discard(connection)

    # -- the line -------------------------------------------------------------------------

    def _wait(self, process: _Process[C]) -> C | _Opening:
        """Return an idle connection or the right to open one, in the order of the callers."""
        waiter: _Waiter[C] = _Waiter()
        try:
            self._join(process, waiter)
            waiter.gate.acquire(timeout=self._timeout)
            with process.lock:
                granted = self._leave(process, waiter) or self._grant(process)
        except BaseException:
            granted = self._leave(process, waiter)
            if granted is not None:
                self._put_back(process, granted)
                self._serve(process)
            raise
        if granted is None:
            raise KVSUnavailable(
                f"all {self._most} connections are in use; none came free in {self._timeout:.3g} s"
            )
        return granted

    def _join(self, process: _Process[C], waiter: _Waiter[C]) -> None:
        with process.lock:
            process.line.append(waiter)
            self._serve(process)
            others = len(process.line) - 1
            if waiter.granted is None and others >= self._backlog:
                raise KVSUnavailable(
                    f"all {self._most} connections are in use, and {others} callers wait for one"
                )

    def _leave(self, process: _Process[C], waiter: _Waiter[C]) -> C | _Opening | None:
        with process.lock:
            if waiter in process.line:
                process.line.remove(waiter)
            return waiter.granted

    def _serve(self, process: _Process[C]) -> None:
        """Let callers in while there is an idle connection or room for another one."""
        with process.lock:
            while process.line:
                granted = self._grant(process)
                if granted is None:
                    return
                try:
                    waiter = process.line.popleft()
                except IndexError:  # a signal handler used the pool and served the last one
                    self._put_back(process, granted)
                    return
                waiter.granted = granted
                waiter.gate.release()

    def _put_back(self, process: _Process[C], granted: C | _Opening) -> None:
        if isinstance(granted, _Opening):
            process.forget(granted)
        else:
            process.idle.append(granted)

    def _grant(self, process: _Process[C]) -> C | _Opening | None:
        connection = self._pop(process)
        if connection is not None:
            return connection
        if process.total() >= self._most:
            return None
        opening = _Opening()
        process.count(opening)
        return opening

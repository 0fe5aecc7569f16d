"""The pool of connections that all drivers share: idle ones to take, and a line to wait in."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from os import getpid
from time import monotonic
from typing import Generic, NamedTuple

from ..exceptions import not_sent
from ..forks import renew, renew_in_child, renewed
from ..kvs.figures import is_operation_under_way, note_round_trip
from .pooled import C, Opening, Pooled, Process, Waiter

__all__ = ["Counts", "Pool", "Pooled"]

#: How long a call waits for a connection while all of them are in use, in seconds.
TIMEOUT = 0.5


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

    A connection is used in the process that opened it only. ``take`` looks whether the process is
    a child of that one, because hooks do not run if C code forks, as uWSGI does.

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
        self._process: Process[C] = Process()
        renew_in_child(self)
        if is_operation_under_way():  # an observed driver opens it during an operation
            self.count_round_trips()

    def take(self, spent: float = 0) -> C:
        """Return a connection for the caller alone, who must ``give`` or ``drop`` it.

        :param spent: the seconds that the call has already taken.
        :raises KVSUnavailable: all connections stayed in use, or too many callers wait.
        """
        if not renewed[0]:
            renew()
        process = self._process
        if not process.line:
            # As in _pop, without the call.
            try:
                connection = process.idle.pop()
            except IndexError:
                pass
            else:
                now = monotonic()
                connection.taken_at = now - spent
                if now <= connection.usable_until:
                    return connection
                self._discard(connection)
        granted = self._wait(process)
        if isinstance(granted, Opening):
            return self._open(granted, monotonic() - spent)
        granted.taken_at -= spent
        return granted

    def take_idle(self) -> C | None:
        """Return an idle connection, or ``None`` if there is none. It never waits."""
        process = self._current()
        connection = self._pop(process)
        if connection is None and process.line:
            self._serve(process)
        return connection

    def replace(self, connection: C, connect: Callable[[float], C] | None = None) -> C:
        """Close an idle connection that turned out dead, and return a new one in its place.

        The other connections that have been idle for as long are closed too.

        :param connect: opens the new connection, if it is not to be opened as others are.
        """
        self.close_unused_since(connection.used_at)
        opening = Opening()
        with connection.home.lock:
            connection.home.count(opening)
            self._discard(connection)
        return self._open(opening, connection.taken_at, connect)

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

    def count_round_trips(self) -> None:
        """From now on, count what is taken as a round trip of the operation that takes it."""
        self.__class__ = CountedPool

    # -- processes ------------------------------------------------------------------------

    def after_fork(self) -> None:
        self._process = Process(self._process)

    def _current(self) -> Process[C]:
        if not renewed[0]:
            renew()
        return self._process

    # -- connections ----------------------------------------------------------------------

    def _pop(self, process: Process[C]) -> C | None:
        while True:
            try:
                connection = process.idle.pop()
            except IndexError:
                return None
            connection.taken_at = now = monotonic()
            if now <= connection.usable_until:
                return connection
            self._discard(connection)

    def _open(
        self, opening: Opening, began: float, connect: Callable[[float], C] | None = None
    ) -> C:
        process = opening.home
        try:
            connection = (connect or self._connect)(began)
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

    def _settle(self, process: Process[C]) -> None:
        """Close the idle connections that are not to be kept, after serving those who wait."""
        now = monotonic()
        with process.lock:
            worn = [idle for idle in process.idle.copy() if now > idle.usable_until]
            self._close_idle(process, worn)
            self._serve(process)
            surplus = len(process.idle) - self._size
            if surplus > 0:
                self._close_idle(process, [*process.idle.copy()][:surplus])

    def _close_idle(self, process: Process[C], connections: Iterable[C]) -> None:
        for connection in connections:
            try:
                process.idle.remove(connection)
            except ValueError:  # another thread took it
                continue
            self._discard(connection)

    # -- the line -------------------------------------------------------------------------

    def _wait(self, process: Process[C]) -> C | Opening:
        """Return an idle connection or the right to open one, in the order of the callers."""
        waiter: Waiter[C] = Waiter()
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
            raise not_sent(
                f"all {self._most} connections are in use; none came free in {self._timeout:.3g} s"
            )
        return granted

    def _join(self, process: Process[C], waiter: Waiter[C]) -> None:
        with process.lock:
            process.line.append(waiter)
            self._serve(process)
            others = len(process.line) - 1
            if waiter.granted is None and others >= self._backlog:
                raise not_sent(
                    f"all {self._most} connections are in use, and {others} callers wait for one"
                )

    def _leave(self, process: Process[C], waiter: Waiter[C]) -> C | Opening | None:
        with process.lock:
            if waiter in process.line:
                process.line.remove(waiter)
            return waiter.granted

    def _serve(self, process: Process[C]) -> None:
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

    def _put_back(self, process: Process[C], granted: C | Opening) -> None:
        if isinstance(granted, Opening):
            process.forget(granted)
        else:
            process.idle.append(granted)

    def _grant(self, process: Process[C]) -> C | Opening | None:
        connection = self._pop(process)
        if connection is not None:
            return connection
        if process.total() >= self._most:
            return None
        opening = Opening()
        process.count(opening)
        return opening


class CountedPool(Pool[C]):
    """The pool of a driver that is observed: each connection taken is a round trip."""

    def take(self, spent: float = 0) -> C:
        connection = Pool.take(self, spent)  # faster than super
        note_round_trip()
        return connection

    def take_idle(self) -> C | None:
        connection = super().take_idle()
        if connection is not None:
            note_round_trip()
        return connection

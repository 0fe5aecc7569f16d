"""The sentinels of a service, and what they know of its primary.

redis-py's ``Sentinel`` describes the sentinels and the connections, but does not ask. It asks one
sentinel after the other, each with its own timeout for every step, outside of a call's deadline.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Sequence
from os import getpid
from time import monotonic
from typing import Any, NamedTuple

from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as NoReply

from ....exceptions import KVSError, KVSNotSupported, KVSUnavailable
from ....kvs import Breaker, Breakers, told_later
from ....messages import unknown_name
from ...pooled import LONG_IDLE
from .. import errors
from ..client import Connections
from ..commands import pack
from ..connection import RedisConnection, Reply, open_connection
from ..deadline import Deadline, OutOfTime
from ..options import Options

#: Host and port.
Address = tuple[str, int]

#: A sentinel that did not answer is left alone for a while, if it had more time, in seconds. While
#: the circuit breaker of the primary is open, no call waits for silent sentinels then.
ENOUGH = 0.03

#: This number of seconds after their latest failure, the sentinels may answer again. Then callers
#: wait for the one who asks.
RECENT = 5.0


class Sentinel:
    """One sentinel. One caller at a time may ask it.

    :param pool: redis-py's, whose connections lead to the sentinel.
    """

    def __init__(self, pool: Any, options: Options) -> None:
        self._connections = Connections(pool)
        self._limit = options.limit
        self._breaker = Breaker(f"sentinel at {self.place}", options.breaker)
        self._connection: RedisConnection | None = None
        self._home = 0

    @property
    def place(self) -> str:
        return self._connections.server

    def share_breakers(self, breakers: Breakers) -> None:
        self._breaker = breakers.get(self._breaker.server, self._breaker.seconds)

    def primary_of(self, service: str, deadline: Deadline) -> Address:
        """Return host and port of a service's primary.

        :raises KVSUnavailable: the sentinel did not answer, or refuses for now.
        :raises KVSError: it does not know the service, or is not a sentinel.
        """
        command = pack(b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", service.encode())
        reply = self._ask(command, deadline)
        if reply is None:
            names = [
                _name_of(entry) for entry in self._ask(pack(b"SENTINEL", b"MASTERS"), deadline)
            ]
            raise KVSError(f"{self._breaker.server}: {unknown_name('service', service, names)}")
        return reply[0].decode(), int(reply[1])

    def _ask(self, packed: bytes, deadline: Deadline) -> Reply:
        breaker = self._breaker
        if breaker.is_troubled:
            breaker.admit()
        began = monotonic()
        try:
            reply = self._exchange(packed, deadline)
        except BaseException as error:
            self.close()  # the reply may still be under way
            if not isinstance(error, (RedisError, OSError, OutOfTime)):
                raise
            self._note(error, monotonic() - began)
            raise _sentinel_error(error, breaker.server) from error
        if breaker.is_troubled:
            breaker.answered()
        return reply

    def _exchange(self, packed: bytes, deadline: Deadline) -> Reply:
        connection = self._connection
        if connection is None or self._home != getpid() or _is_old(connection):
            self.close()
            self._home = getpid()
            connection = open_connection(self._connections.make(), deadline, self._limit)
            self._connection = connection
        reply = connection.ask_within(deadline, packed)
        connection.used_at = monotonic()
        return reply

    def _note(self, error: Exception, waited: float) -> None:
        if isinstance(error, (NoReply, OutOfTime)):
            if waited > ENOUGH:
                self._breaker.timed_out()
        elif not isinstance(error, ResponseError):
            self._breaker.failed()

    def close(self) -> None:
        """Close the connection, unless it belongs to the parent process."""
        connection, self._connection = self._connection, None
        if connection is not None and self._home == getpid():
            connection.close()


def _is_old(connection: RedisConnection) -> bool:
    """Return whether the sentinel may have closed the connection, or a firewall forgotten it."""
    return monotonic() - connection.used_at > LONG_IDLE or not connection.is_alive()


def _name_of(entry: Any) -> str:
    """Return the name in an entry of ``SENTINEL MASTERS``: keys and values, or a dictionary."""
    found = entry if isinstance(entry, dict) else dict(zip(entry[::2], entry[1::2], strict=False))
    return str(found[b"name"].decode())


def _sentinel_error(error: Exception, server: str) -> KVSError:
    if isinstance(error, OutOfTime):
        return KVSUnavailable(f"{server}: no answer in time")
    if isinstance(error, ResponseError) and "unknown command" in str(error):
        return KVSNotSupported(f"{server}: this is not a sentinel, whose usual port is 26379")
    return errors.as_kvs_error(
        error, server, "'username' and 'password' in 'sentinel_kwargs', which the sentinels need"
    )


class Answer(NamedTuple):
    """What the sentinels said."""

    asked_at: float
    address: Address | None
    #: Whether all of them were asked.
    is_of_all: bool


class Service:
    """A service by its name, and the sentinels that know its primary.

    :param host: takes the place of the host that the sentinels name.
    """

    def __init__(self, name: str, sentinels: Sequence[Sentinel], host: str | None = None) -> None:
        self.name = name
        self._host = host
        #: The one that answered last comes first.
        self._sentinels = list(sentinels)
        places = ",".join(sorted(sentinel.place for sentinel in sentinels))
        #: The service as messages name it.
        self.place = f"redis service {name} at {places}"
        self._latest = Answer(0.0, None, False)
        #: Why the latest caller got no answer, and when; empty after an answer.
        self._failure, self._failed_at = "", 0.0
        # For each process, because another thread may have held the lock at the fork.
        self._locks: dict[int, threading.Lock] = {}

    def share_breakers(self, breakers: Breakers) -> None:
        for sentinel in self._sentinels:
            sentinel.share_breakers(breakers)

    def close(self) -> None:
        with self._locks.setdefault(getpid(), threading.Lock()):
            for sentinel in self._sentinels:
                sentinel.close()

    @told_later()
    def primary(self, since: float, avoid: Collection[Address], deadline: Deadline) -> Address:
        """Return the address of the primary as a sentinel knows it.

        One caller at a time asks. The others take over an answer that was asked for after they
        began. Shortly after a time without any answer, they do not wait for the one who asks.

        :param since: when the caller began, by ``time.monotonic()``.
        :param avoid: addresses that did not serve. One of these is returned only if no sentinel
            knows another one.
        :raises OutOfTime: the deadline is over.
        :raises KVSUnavailable: no sentinel answers.
        :raises KVSError: they do not know the service.
        """
        lock = self._locks.setdefault(getpid(), threading.Lock())
        failure = self._failure
        wait = 0.0 if failure else min(deadline.left(), threading.TIMEOUT_MAX)
        if not lock.acquire(timeout=wait):
            raise KVSUnavailable(failure) if failure else OutOfTime
        try:
            latest = self._latest
            is_known = latest.is_of_all or latest.address not in avoid
            if latest.address is None or latest.asked_at < since or not is_known:
                latest = self._latest = self._ask(avoid, deadline)
        finally:
            lock.release()
        assert latest.address is not None
        return latest.address

    def _ask(self, avoid: Collection[Address], deadline: Deadline) -> Answer:
        asked_at, failures, avoided = monotonic(), [], None
        if asked_at - self._failed_at > RECENT:
            self._failure = ""
        for sentinel, share in self._shares(deadline):
            try:
                host, port = sentinel.primary_of(self.name, share)
            except KVSError as error:
                failures.append(error.with_traceback(None))  # it has this frame
                continue
            avoided, self._failure = (self._host or host, port), ""
            if avoided not in avoid:
                self._sentinels.remove(sentinel)
                self._sentinels.insert(0, sentinel)
                return Answer(asked_at, avoided, False)
        remembered = self._latest.address
        if avoided is None and (remembered is None or remembered in avoid):
            raise self._failed(failures)
        return Answer(asked_at, avoided or remembered, True)

    def _shares(self, deadline: Deadline) -> Iterator[tuple[Sentinel, Deadline]]:
        """Yield each sentinel, with its share of the time; one share remains for the primary."""
        number = len(self._sentinels)
        for asked, sentinel in enumerate(self._sentinels.copy()):
            yield sentinel, Deadline(monotonic() + deadline.left() / (number - asked + 1))

    def _failed(self, failures: list[KVSError]) -> KVSError:
        for failure in failures:
            if not isinstance(failure, KVSUnavailable):
                self._failure = ""
                return failure
        self._failed_at = monotonic()
        self._failure = f"no sentinel answers: {'; '.join(map(str, failures))}"
        return KVSUnavailable(self._failure)

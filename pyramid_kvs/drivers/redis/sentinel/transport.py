"""The connections to the primary of a service, wherever it is."""

from __future__ import annotations

import logging
import time
from time import monotonic
from typing import Any

import redis
from redis.exceptions import AuthenticationError, BusyLoadingError, RedisError, ResponseError
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import TimeoutError as NoReply
from redis.sentinel import (
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)

from ....exceptions import KVSError, KVSUnavailable
from ....kvs import Breaker, Breakers
from .. import errors
from ..client import Connections
from ..connection import RedisConnection, Reply, open_connection
from ..deadline import Deadline, OutOfTime
from ..options import Options
from ..transport import Transport
from ..urls import place_of
from .service import Address, Sentinel, Service

log = logging.getLogger("pyramid_kvs.stores")

#: Seconds between two attempts to reach a primary that the sentinels still name.
PAUSE = 0.03

#: How long a caller asks the sentinels before it is refused by the circuit breaker, in seconds.
LOOK = 0.5

#: How old an answer of the sentinels may be then, in seconds. It limits how often they are asked.
RECENT = 0.005

#: redis-py's connections that ask the sentinels, and those that do the same and do not ask.
_PLAIN = {
    SentinelManagedConnection: redis.Connection,
    SentinelManagedSSLConnection: redis.SSLConnection,
}


def transport_of(connections: Connections, options: Options) -> Transport:
    """Return the transport to one server, or to the primary that sentinels name.

    A pool of a sentinel's replicas, or with classes of an application, is left as it is. Its
    connections ask the sentinels with redis-py's timeouts.
    """
    pool = connections.pool
    if not _is_of_primary(pool):
        return Transport(connections, options)
    manager = pool.sentinel_manager
    sentinels = [Sentinel(client.connection_pool, options) for client in manager.sentinels]
    host = getattr(manager, "_force_master_ip", None)
    service = Service(pool.service_name, sentinels, host)
    plain = connections.of_class(_PLAIN[pool.connection_class])
    return PrimaryTransport(plain, options, service)


def _is_of_primary(pool: Any) -> bool:
    return (
        type(pool) is SentinelConnectionPool
        and pool.is_master
        and pool.connection_class in _PLAIN
        and not pool.sentinel_manager.min_other_sentinels
    )


class PrimaryTransport(Transport):
    """The connections to the primary of a service, wherever it is.

    The address is remembered while connections work. The sentinels are asked for each new
    connection, and before the circuit breaker refuses a call.
    """

    def __init__(self, connections: Connections, options: Options, service: Service) -> None:
        super().__init__(connections, options)
        self.breaker = Breaker(service.place, options.breaker)
        self._service = service
        self._breakers = Breakers()
        self._address: Address | None = None
        #: What a server said that turned out to be a replica, until another connection is opened.
        self._read_only: dict[Address, Exception] = {}

    @property
    def place(self) -> str:
        return self._service.place

    def share_breakers(self, breakers: Breakers) -> None:
        super().share_breakers(breakers)
        self._service.share_breakers(breakers)
        self._breakers = breakers

    def close(self) -> None:
        super().close()
        self._service.close()

    # -- the address ----------------------------------------------------------------------

    def _admit(self) -> float:
        began = monotonic()
        try:
            self.breaker.admit()
        except KVSUnavailable:
            if not self._has_moved(began):
                raise
            self.breaker.admit()
        return monotonic() - began

    def _has_moved(self, since: float) -> bool:
        """Return whether a sentinel knows another primary, which is used from then on."""
        known = () if self._address is None else (self._address,)
        deadline = Deadline(since + min(LOOK, self._options.limit))
        try:
            address = self._service.primary(since - RECENT, known, deadline)
        except (KVSError, OutOfTime):
            return False
        return self._move_to(address)

    def _move_to(self, address: Address) -> bool:
        """Use a server from now on; return whether it is another one."""
        before, old = self._address, self.breaker
        if address == before:
            return False
        self._address = address
        place = place_of(*address)
        self.breaker = self._breakers.get(f"redis at {place}", old.seconds)
        self.breaker.take_over(old)
        if before is not None:
            self.pool.close()
            log.warning(
                "%s: the primary is at %s now, not at %s", self.place, place, place_of(*before)
            )
        return True

    # -- connections ----------------------------------------------------------------------

    def _connect(self, deadline: Deadline) -> RedisConnection:
        """Connect to the primary; go on until the deadline while a sentinel answers."""
        failed, self._read_only = self._read_only, {}
        try:
            while True:
                connection = self._attempt(failed, deadline)
                if connection is not None:
                    return connection
        except OutOfTime:
            raise NoReply("; ".join(map(str, failed.values())) or "no answer in time") from None
        except KVSUnavailable as error:  # no sentinel answers
            raise next(iter(failed.values()), NoConnection(str(error))) from None

    def _attempt(
        self, failed: dict[Address, Exception], deadline: Deadline
    ) -> RedisConnection | None:
        """Connect to the server that the sentinels name, or note why it does not serve."""
        address = self._service.primary(monotonic(), failed, deadline)
        if address in failed:
            time.sleep(min(PAUSE, deadline.left()))
        try:
            return self._connect_to(address, deadline)
        except AuthenticationError:
            raise
        except (NoConnection, NoReply, OSError) as error:
            failed.setdefault(address, error.with_traceback(None))  # it has this frame
            return None

    def _connect_to(self, address: Address, deadline: Deadline) -> RedisConnection:
        self._move_to(address)
        connections = self._connections.at(*address)
        connection = open_connection(connections.make(), deadline, self._options.limit)
        try:
            role = connection.role(deadline)
        except ResponseError:  # a user who may not ask
            return connection
        except BaseException:
            connection.close()
            raise
        if role in (b"replica", b"slave"):
            connection.close()
            raise NoConnection(f"{connections.server} is a replica")
        return connection

    # -- failures -------------------------------------------------------------------------

    def _sent_again(
        self,
        error: BaseException,
        connection: RedisConnection,
        packed: bytes,
        repeatable: bool,
        count: int,
    ) -> Reply:
        began = connection.taken_at
        try:
            return super()._sent_again(error, connection, packed, repeatable, count)
        except KVSUnavailable as failure:
            if not _may_repeat(failure.__cause__, repeatable):
                raise
            last = failure
        finally:
            del error  # the traceback may have this frame
        try:
            return self._go_on(last, began, packed, repeatable, count)
        finally:
            del last

    def _go_on(
        self, last: KVSUnavailable, began: float, packed: bytes, repeatable: bool, count: int
    ) -> Reply:
        """Send commands again until the deadline of the call."""
        deadline = Deadline(began + self._options.limit)
        try:
            while True:
                time.sleep(min(PAUSE, deadline.left()))
                is_done, reply = self._once_more(began, packed, repeatable, count)
                if is_done:
                    return reply
        except OutOfTime:
            try:
                raise last from last.__cause__
            finally:
                del last  # the traceback has this frame

    def _once_more(
        self, began: float, packed: bytes, repeatable: bool, count: int
    ) -> tuple[bool, Reply]:
        """Return whether there is a reply, and the reply."""
        try:
            return True, self._ask(self.pool.take(monotonic() - began), packed, count)
        except (RedisError, OSError) as error:
            if not _may_repeat(error, repeatable):
                self._raise(error, packed)
            return False, None

    def _another(
        self, connection: RedisConnection, error: BaseException, repeatable: bool
    ) -> RedisConnection:
        if _may_repeat(error, repeatable):
            if isinstance(error, ResponseError):
                self._read_only = {connection.address: error}
                self.pool.close()
            return self.pool.replace(connection)
        if errors.lacks_replicas(error) and self._has_moved(monotonic()):
            return self.pool.replace(connection)
        return super()._another(connection, error, repeatable)

    def _let_go(self, connection: RedisConnection, error: BaseException) -> None:
        if isinstance(error, ResponseError) and errors.is_read_only(error):
            self._read_only = {connection.address: error}
        if connection.address == self._address:
            super()._let_go(connection, error)
        else:  # it says nothing about the primary of today
            self.pool.drop(connection)


def _may_repeat(error: BaseException | None, repeatable: bool) -> bool:
    """Return whether commands can be sent again: they did not run, or they may run twice."""
    if isinstance(error, ResponseError):
        return errors.is_read_only(error)
    return isinstance(error, BusyLoadingError) or (
        repeatable
        and isinstance(error, NoConnection)
        and not isinstance(error, AuthenticationError)
    )

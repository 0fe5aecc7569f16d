"""One exchange with redis: take a connection, ask, give it back; and what to do if that fails."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from os import getpid
from time import monotonic
from typing import Any, NamedTuple, NoReturn

from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as NoReply

from ...exceptions import KVSError, KVSUnavailable, ValueTooLarge, not_sent
from ...kvs import Breaker, Breakers
from ..pool import Pool
from ..pooled import PROBE_TIMEOUT
from . import errors
from .commands import pack, sends
from .connection import RedisConnection, Reply, open_connection
from .deadline import Deadline, OutOfTime, until
from .options import Options

#: A connection that was idle for longer, in seconds, is checked before it is used.
IDLE = 0.1

#: How long a new connection was idle: its ``used_at`` is infinite.
NEW = -math.inf

#: How long a health check waits. A call has time left to connect again.
HEALTH_CHECK = 0.25

#: The part of its timeout that a server must have had before it is left alone.
ENOUGH = 0.8

#: How long a reply that has probably arrived may take to be read, in seconds.
ARRIVED = 0.002

#: The setting for the longest value, its lowest and its default value.
BULK_LIMIT = b"proto-max-bulk-len"
LEAST_BULK_LIMIT = 2**20
USUAL_BULK_LIMIT = 2**29


#: Whether commands may run twice, or a function that tells it by the reply.
Repeatable = bool | Callable[[Reply], bool]


class Begun(NamedTuple):
    """Commands that were sent, and whose replies were not read yet."""

    #: ``None`` if there was none.
    connection: RedisConnection | None
    #: Why they could not be sent.
    failure: Exception | None
    sent_at: float
    packed: bytes
    #: How many replies are expected.
    replies: int
    repeatable: bool


class Transport:
    """The connections to one server.

    :param connections: makes redis-py's connections, not connected.
    """

    def __init__(self, connections: Any, options: Options) -> None:
        self._connections = connections
        self._options = options
        self.breaker = Breaker(f"redis at {connections.server}", options.breaker)
        self.pool = Pool(
            self._open,
            options.max_connections,
            timeout=options.pool_timeout,
            backlog=options.max_backlog,
        )
        #: The process in which a connection has shown the mode of the server.
        self._mode_known_in = 0

    @property
    def server(self) -> str:
        """The server as messages name it."""
        return self.breaker.server

    @property
    def place(self) -> str:
        """The store, which does not change; two settings of the same store have the same one."""
        return self.server

    def share_breakers(self, breakers: Breakers) -> None:
        self.breaker = breakers.get(self.breaker.server, self.breaker.seconds)

    def close(self) -> None:
        self.pool.close()

    def call(
        self, full_key: bytes, packed: bytes, repeatable: Repeatable = False, count: int = 0
    ) -> Reply:
        """Send packed commands and return the reply; strings are bytes.

        :param full_key: a key of the command. It would decide the node of a cluster.
        :param repeatable: they may run twice, so they are sent again if an idle connection was
            dead. A function tells by the second reply whether they had no effect the first time;
            if it returns false, the first failure is raised.
        :param count: return a list of as many replies. Refusals are returned as redis-py's errors.
        :raises KVSUnavailable: no reply, or a refusal for now.
        :raises KVSError: another refusal.
        """
        breaker, spent = self.breaker, 0.0
        if breaker.is_troubled:
            spent = self._admit()
        pool, connection = self.pool, None
        try:
            connection = pool.take(spent)
            if NEW < connection.taken_at - connection.used_at < IDLE:
                reply = connection.ask(packed, count)
            else:
                connection = self._checked(connection)
                reply = connection.ask_late(packed, count)
        except BaseException as error:  # noqa: BLE001 - a reply may still be under way
            return self._after_failure(error, connection, packed, repeatable, count)
        # Not in the try: if it was given and then dropped, a connection would have two users.
        pool.give(connection)
        if count:
            self._note_refusals(reply)
        elif breaker.is_troubled:
            self.breaker.answered()
        return reply

    def _admit(self) -> float:
        """Let a call pass the circuit breaker; return the seconds that it took.

        :raises KVSUnavailable: the server is left alone.
        """
        self.breaker.admit()
        return 0.0

    def call_many(
        self, commands: Sequence[tuple[bytes, bytes]], repeatable: bool = False
    ) -> list[Reply]:
        """Send commands together, and return the reply or the ``KVSError`` of each.

        :param commands: the key of each, and the command as :meth:`call` takes it.
        :raises KVSUnavailable: no replies.
        """
        replies: list[Reply] = []
        for group in sends(packed for _, packed in commands):
            replies += map(self.as_result, self._call_group(group, repeatable), group)
        return replies

    def _call_group(self, group: list[bytes], repeatable: bool) -> list[Reply]:
        replies = self.call(b"", b"".join(group), repeatable, len(group))
        # A demoted primary ran none of these. Its connections are closed by now.
        refused = [n for n, reply in enumerate(replies) if errors.is_read_only(reply)]
        if refused:
            packed = b"".join([group[n] for n in refused])
            again = self.call(b"", packed, repeatable, len(refused))
            for n, reply in zip(refused, again, strict=True):
                replies[n] = reply
        return list(replies)

    def as_result(self, reply: Reply, packed: bytes) -> Reply:
        """Return the package's error for the refusal of a command, and another reply as it is."""
        if not isinstance(reply, ResponseError):
            return reply
        error = self._kvs_error(reply, packed)
        error.__cause__ = reply
        return error

    # -- in two halves --------------------------------------------------------------------

    def begin(self, began: float, packed: bytes, count: int, repeatable: bool = False) -> Begun:
        """Send commands without waiting for their replies, which :meth:`finish` returns.

        :param began: when the call began, by ``time.monotonic()``. It counts from there.
        """
        connection, failure, sent_at = None, None, began
        try:
            connection = self._take(began)
            sent_at = monotonic()
            connection.send(Deadline(began + self._options.limit), packed)
            sent_at = monotonic()
        except (RedisError, OSError, KVSError) as error:
            failure = error
        except BaseException:
            if connection is not None:
                self.pool.drop(connection)
            raise
        try:
            return Begun(connection, failure, sent_at, packed, count, repeatable)
        finally:
            del failure  # the traceback has this frame

    def _take(self, began: float) -> RedisConnection:
        if self.breaker.is_troubled:
            self._admit()
        if monotonic() - began >= self._options.limit:
            raise not_sent(f"{self.server}: no time was left to ask it")
        connection = self.pool.take(monotonic() - began)
        connection.taken_at = began
        return self._checked(connection)

    def finish(self, begun: Begun) -> list[Reply]:
        """Return the replies; refusals are returned as redis-py's errors.

        A reply that has arrived is read even if the call has no time left.

        :raises KVSUnavailable: no replies.
        """
        connection = begun.connection
        try:
            if connection is None or begun.failure is not None:
                raise begun.failure or AssertionError
            replies = connection.receive(self._patience(connection, begun.sent_at), begun.replies)
        except BaseException as error:  # noqa: BLE001 - a reply may still be under way
            is_silent = isinstance(error, NoReply) and connection is not None
            if is_silent and not self._is_enough(monotonic() - begun.sent_at):
                self.abandon(begun)
                self._raise(error, begun.packed)
            return self._after_failure(  # type: ignore[no-any-return]
                error, connection, begun.packed, begun.repeatable, begun.replies
            )
        finally:
            del begun  # the traceback of its failure has this frame
        self.pool.give(connection)
        self._note_refusals(replies)
        return replies

    def _is_enough(self, seconds: float) -> bool:
        """Return whether a server that is silent for so long can be called unavailable.

        A call that asks several servers may have little time left for the last one.
        """
        timeout = self._options.timeout
        return timeout is None or seconds >= timeout * ENOUGH

    def _patience(self, connection: RedisConnection, sent_at: float) -> Deadline:
        """Return until when to wait for replies, of which the first one may have arrived."""
        soon = monotonic() + ARRIVED
        end = max(connection.taken_at + self._options.limit, soon)
        timeout = self._options.timeout
        return Deadline(end, math.inf if timeout is None else max(sent_at + timeout, soon))

    def abandon(self, begun: Begun) -> None:
        """Give up replies that nobody will read."""
        if begun.connection is not None:
            self.pool.drop(begun.connection)

    # -- connections ----------------------------------------------------------------------

    def _open(self, began: float) -> RedisConnection:
        breaker, end = self.breaker, began + self._options.limit
        had_time = self._is_enough(end - monotonic())
        try:
            return self._connect(Deadline(end))
        except NoReply:
            if had_time:
                breaker.timed_out()
            raise
        except (RedisError, OSError) as error:
            if not isinstance(error, ResponseError) or errors.is_outage(error):
                breaker.failed()
            raise

    def _connect(self, deadline: Deadline) -> RedisConnection:
        connection = open_connection(self._connections.make(), deadline, self._options.limit)
        if self._mode_known_in == getpid():
            return connection
        try:
            mode = connection.mode(deadline)
        except ResponseError:  # a user or a proxy that may not ask
            mode = b""
        except NoConnection:  # a proxy that hangs up at a command that it does not know
            connection.close()
            mode, connection = b"", self._connect_without_asking(deadline)
        except BaseException:
            connection.close()
            raise
        return self._accepted(connection, mode)

    def _connect_without_asking(self, deadline: Deadline) -> RedisConnection:
        return open_connection(self._connections.make(), deadline, self._options.limit)

    def _accepted(self, connection: RedisConnection, mode: bytes) -> RedisConnection:
        refusal = errors.wrong_mode(mode, self.server)
        if refusal is not None:
            connection.close()
            try:
                raise refusal
            finally:
                del refusal  # the traceback has this frame
        self._mode_known_in = getpid()
        return connection

    def _checked(self, connection: RedisConnection) -> RedisConnection:
        """Return a new or idle connection, or another one if it is dead."""
        if connection.is_new:
            return connection
        idle = connection.taken_at - connection.used_at
        interval = self._options.health_check_interval
        is_alive = connection.is_alive()
        if is_alive and interval and idle >= interval:
            end = min(connection.taken_at + self._options.limit, monotonic() + HEALTH_CHECK)
            is_alive = connection.answers(Deadline(end))
        if is_alive:
            return connection
        try:
            return self.pool.replace(connection)
        except (RedisError, OSError) as error:
            self._raise(error, b"", may_have_run=False)

    # -- failures -------------------------------------------------------------------------

    def _after_failure(
        self,
        error: BaseException,
        connection: RedisConnection | None,
        packed: bytes,
        repeatable: Repeatable,
        count: int,
    ) -> Reply:
        """Return the reply to a call that failed once, if it can be sent again, or raise.

        :param connection: ``None`` if none could be opened. redis-py has tried that again by then.
        """
        try:
            if connection is None:
                self._raise(error, packed, may_have_run=False)
            reply = self._sent_again(error, connection, packed, bool(repeatable), count)
            is_refusal = isinstance(error, ResponseError)
            if callable(repeatable) and not is_refusal and not repeatable(reply):
                self._raise(error, packed)
            return reply
        finally:
            del error  # the traceback may have this frame

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
            return self._ask(self._another(connection, error, repeatable), packed, count)
        except (RedisError, OSError) as last:
            if not repeatable or self._options.retry is None:
                self._raise(last, packed)
            return self._retry(last, began, packed, count)
        finally:
            del error  # the traceback may have this frame

    def _another(
        self, connection: RedisConnection, error: BaseException, repeatable: bool
    ) -> RedisConnection:
        """Return a connection on which the call can be sent again, or raise the error."""
        another = None
        if errors.is_read_only(error):
            # A demoted primary: nothing ran. The host name may lead to the new one by now.
            self.pool.close()
            return self.pool.replace(connection)
        if isinstance(error, NoReply):
            another = self._replace_if_answered(connection) if connection.was_long_idle else None
        elif isinstance(error, NoConnection) and not connection.is_new:
            if repeatable:
                return self.pool.replace(connection)
            self.pool.close_unused_since(connection.used_at)
        if another is None:
            self._let_go(connection, error)
        elif repeatable:
            return another
        else:
            self.pool.give(another)
        try:
            raise error
        finally:
            del error  # the traceback has this frame

    def _replace_if_answered(self, connection: RedisConnection) -> RedisConnection | None:
        """Return a new connection instead of a silent one, if the server answers on it soon.

        Nobody knows whether the server hangs, or a firewall forgot the connection while it was
        idle. The firewall has then forgotten the others that were idle for as long, too.
        """
        deadline = Deadline(connection.taken_at + self._options.limit, monotonic() + PROBE_TIMEOUT)
        try:
            another = self.pool.replace(connection, lambda _: self._connect(deadline))
        except (RedisError, OSError):
            return None
        try:
            if deadline.is_answered or another.answers(deadline):
                return another
        except BaseException:
            self.pool.drop(another)
            raise
        self.pool.drop(another)
        return None

    def _ask(self, connection: RedisConnection, packed: bytes, count: int) -> Reply:
        """Ask a second time, on another connection."""
        try:
            reply = connection.ask_late(packed, count)
        except BaseException as error:
            if isinstance(error, NoReply) and connection.is_new:
                # The circuit breaker is not told. The server answered when the call connected, and
                # may have had little time since.
                self.pool.drop(connection)
            else:
                self._let_go(connection, error)
            raise
        self.pool.give(connection)
        self._note_refusals(reply if count else ())
        return reply

    def _retry(self, first: Exception, began: float, packed: bytes, count: int) -> Reply:
        """Go on after the first failure as ``kvs_kwargs`` say, until the call must end."""
        deadline = Deadline(began + self._options.limit)
        failures = [first]

        def ask() -> Reply:
            if failures:
                raise failures.pop()
            deadline.left()
            return self._ask(self.pool.take(monotonic() - began), packed, count)

        try:
            return until(self._options.retry, deadline).call_with_retry(ask, lambda _: None)
        except OutOfTime:
            self._raise(first, packed)
        except (RedisError, OSError) as last:
            self._raise(last, packed)
        finally:
            del first  # the traceback may have this frame

    def _let_go(self, connection: RedisConnection, error: BaseException) -> None:
        """Take back a connection after an error, and tell the circuit breaker."""
        if isinstance(error, ResponseError):
            self._take_back(connection, error)
            return
        is_new = connection.is_new
        self.pool.drop(connection)
        if isinstance(error, NoReply):
            self.breaker.timed_out()
        elif isinstance(error, NoConnection) and is_new:
            self.breaker.failed()

    def _take_back(self, connection: RedisConnection, error: ResponseError) -> None:
        """Keep a connection after a refusal, unless the next one may lead to another server."""
        if errors.spoils_connection(error):
            self.pool.drop(connection)
        else:
            self.pool.give(connection)
        self._note_refusals((error,))

    def _note_refusals(self, replies: Sequence[Reply]) -> None:
        """Note what the server said of its health; ``replies`` may have other replies too."""
        refusals = [reply for reply in replies if isinstance(reply, ResponseError)]
        if any(map(errors.spoils_connection, refusals)):
            self.pool.close()
        if any(map(errors.is_outage, refusals)):
            is_of_writes = all(errors.is_of_writes(refusal) for refusal in refusals)
            (self.breaker.refused if is_of_writes else self.breaker.failed)()
        elif self.breaker.is_troubled:
            self.breaker.answered()

    def _raise(self, error: BaseException, packed: bytes, may_have_run: bool = True) -> NoReturn:
        """Raise the package's error for one of redis-py, or any other error as it is."""
        if not isinstance(error, (RedisError, OSError)):
            try:
                raise error
            finally:
                del error  # the traceback has this frame
        raised = self._kvs_error(error, packed)
        if isinstance(raised, KVSUnavailable):
            raised.may_have_run = may_have_run
        try:
            raise raised from error
        finally:
            del raised  # the traceback has this frame

    def _kvs_error(self, error: Exception, packed: bytes) -> KVSError:
        return self._too_large(error, len(packed)) or errors.as_kvs_error(error, self.server)

    def _too_large(self, error: Exception, size: int) -> KVSError | None:
        """Return an error if redis hung up because of the size of what was sent."""
        if size <= LEAST_BULK_LIMIT or not isinstance(error, (NoConnection, ResponseError)):
            return None
        limit = self._bulk_limit()
        if size <= limit:
            return None
        return ValueTooLarge(f"{self.server} takes {limit} bytes in a value, of {size} sent")

    def _bulk_limit(self) -> int:
        try:
            reply = self.call(b"", pack(b"CONFIG", b"GET", BULK_LIMIT), repeatable=True)
            return int(reply[BULK_LIMIT] if isinstance(reply, dict) else reply[1])
        except (KVSError, LookupError):
            return USUAL_BULK_LIMIT

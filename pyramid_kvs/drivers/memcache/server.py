"""One memcached server: its connections, its circuit breaker, and what happens when it fails."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any, NoReturn, TypeVar

from ...exceptions import KVSUnavailable
from ...kvs import Breaker, Breakers
from ..pool import Pool
from ..pooled import LONG_IDLE, PROBE_TIMEOUT
from . import errors
from .connecting import Address
from .errors import NotConnected, OutOfStep
from .options import Options
from .protocol import Connection, Reply

A = TypeVar("A")
R = TypeVar("R")


class Server:
    """One memcached server and the connections to it.

    A call ends ``socket_connect_timeout + socket_timeout`` seconds after it began, or after the
    pool gave it a connection. A call that asks several servers says what it has ``spent``.

    :param host: python-memcached's ``_Host``, of which the address is used.
    """

    def __init__(self, host: Any, options: Options) -> None:
        self._address = Address(host.family, host.address)
        self._connect_timeout = options.connect_timeout
        self._timeout = options.socket_timeout
        #: How long a call may take, in seconds.
        self.limit = self._connect_timeout + self._timeout
        self._fails_are_timeouts = options.is_left_alone_when_dead
        self._breaker = Breaker(f"memcached at {self._address}", options.seconds_alone)
        self.pool: Pool[Connection] = Pool(
            self._connect,
            options.max_connections,
            backlog=options.max_backlog,
            timeout=options.pool_timeout,
        )

    def __str__(self) -> str:
        return self._breaker.server

    @property
    def address(self) -> str:
        """``host:port``, or the path of a socket."""
        return str(self._address)

    def share_breakers(self, breakers: Breakers) -> None:
        self._breaker = breakers.get(self._breaker.server, self._breaker.seconds)

    def is_left_alone(self) -> bool:
        """Return whether calls fail at once, because the server failed a moment ago."""
        return self._breaker.is_troubled and self._breaker.is_open

    def close(self) -> None:
        self.pool.close()

    def call(
        self, ask: Callable[[Connection, A], Reply], command: A, repeatable: bool, spent: float
    ) -> Reply:
        """Run one exchange with the server, and return its reply.

        :param ask: a method of :class:`Connection`, for ``command``.
        :param repeatable: the command may run twice, and does if a connection died while idle.
        :param spent: the seconds that the call has already taken.
        :raises KVSUnavailable: the server does not answer.
        :raises KVSError: it refuses the command.
        """
        reply = self.exchange(ask, command, repeatable, spent)
        if reply.words[0] == b"SERVER_ERROR":
            raise self.refusal(reply)
        return reply

    def refusal(self, reply: Reply) -> Exception:
        """Return the error for a reply that is an error line."""
        return errors.refusal(self, b" ".join(reply.words).decode("latin-1"))

    def exchange(
        self, ask: Callable[[Connection, A], R], commands: A, repeatable: bool, spent: float
    ) -> R:
        """Run one exchange as :meth:`call` does; an error line is a reply.

        The caller keeps it small: a server whose replies nobody reads stops reading.
        """
        breaker = self._breaker
        was_troubled = breaker.is_troubled
        if was_troubled:
            self._admit()
        try:
            connection = self.pool.take(spent)
            if not repeatable and connection.is_stale():
                connection = self.pool.replace(connection)
        except OSError as error:
            self._note(error, spent)
            raise errors.no_connection(self, error) from error
        if spent or (breaker.is_troubled and not was_troubled):
            self._look_again(connection, spent, was_troubled)
        try:
            replies = ask(connection, commands)
        except OSError as error:
            connection = self._after_failure(error, connection, repeatable, spent)
            replies = self._repeat(connection, ask, commands, isinstance(error, TimeoutError))
        except BaseException as error:  # noqa: BLE001 - the reply may still be under way
            self._lose(connection, error)
        self.pool.give(connection)
        if breaker.is_troubled:
            breaker.answered()
        return replies

    # -- failures -------------------------------------------------------------------------

    def _admit(self) -> None:
        try:
            self._breaker.admit()
        except KVSUnavailable as error:
            raise NotConnected(str(error)) from None

    def _look_again(self, connection: Connection, spent: float, was_troubled: bool) -> None:
        """Give the connection back if the call has no time left, or the server has failed.

        It may have failed while the call waited for its connection.
        """
        try:
            if spent:
                connection.shorten()
            if self._breaker.is_troubled and not was_troubled:
                self._admit()
        except BaseException as error:
            connection.restore_timeout()
            self.pool.give(connection)
            if isinstance(error, TimeoutError):
                raise errors.no_answer(self, error, self.limit) from error
            raise

    def _after_failure(
        self, error: OSError, connection: Connection, repeatable: bool, spent: float
    ) -> Connection:
        """Return another connection if an idle one has died, or raise the package's error.

        :param connection: the one that failed.
        """
        failure = errors.no_answer(self, error, self._timeout)
        another = None
        if isinstance(error, TimeoutError):
            if connection.was_long_idle:
                another = self._try_new_connection(connection)
        elif repeatable and not connection.is_new:
            another = self._replace(connection)
        if another is None:
            self.pool.drop(connection)
            self._note(error, spent)
        elif repeatable:
            return another
        else:
            another.restore_timeout()
            self.pool.give(another)
        try:
            raise failure from error
        finally:
            del failure  # the traceback has this frame

    def _try_new_connection(self, connection: Connection) -> Connection | None:
        """Return a new connection instead of a silent one, if the server answers on it soon.

        Nobody knows whether the server hangs, or a firewall forgot the idle connection. It has
        then forgotten the others that are as old, too.
        """
        self.pool.close_unused_since(connection.taken_at - LONG_IDLE)
        began = connection.taken_at
        deadline = min(began + self.limit, monotonic() + PROBE_TIMEOUT)
        connection.taken_at = deadline - self.limit
        try:
            another = self.pool.replace(connection)
        except OSError:
            return None
        try:
            another.shorten()
            another.ask(b"mn\r\n")
            another.taken_at = began
            another.shorten()
        except (OSError, OutOfStep):
            self.pool.drop(another)
            return None
        except BaseException:
            self.pool.drop(another)
            raise
        return another

    def _replace(self, connection: Connection) -> Connection:
        try:
            return self.pool.replace(connection)
        except OSError as error:
            self._note(error, 0)
            raise errors.no_connection(self, error) from error

    def _repeat(
        self,
        connection: Connection,
        ask: Callable[[Connection, A], R],
        commands: A,
        is_alive: bool,
    ) -> R:
        """Ask a second time, on another connection.

        :param is_alive: the server has just answered. It may have little time for this answer.
        """
        try:
            return ask(connection, commands)
        except TimeoutError as error:
            if not is_alive:
                self._lose(connection, error)
            self.pool.drop(connection)
            raise errors.no_answer(self, error, self.limit) from error
        except BaseException as error:  # noqa: BLE001 - the reply may still be under way
            self._lose(connection, error)

    def _lose(self, connection: Connection, error: BaseException) -> NoReturn:
        """Drop a connection; raise the package's error for one of the socket, or the error."""
        self.pool.drop(connection)
        if isinstance(error, OutOfStep):
            raise errors.refusal(self, str(error)) from error
        if isinstance(error, OSError):
            self._note(error, 0)
            raise errors.no_answer(self, error, self._timeout) from error
        try:
            raise error
        finally:
            del error  # the traceback has this frame

    def _note(self, error: OSError, spent: float) -> None:
        """Tell the circuit breaker of a failure, unless the server had too little time."""
        if isinstance(error, TimeoutError) and spent > self._connect_timeout:
            return
        if self._fails_are_timeouts or isinstance(error, TimeoutError):
            self._breaker.timed_out()
        else:
            self._breaker.failed()

    # -- connections ----------------------------------------------------------------------

    def _connect(self, began: float) -> Connection:
        """Return a connection for a call that began at a time of ``time.monotonic()``."""
        left = began + self.limit - monotonic()
        connected = self._address.connect(min(self._connect_timeout, left))
        connected.settimeout(self._timeout)
        connection = Connection(connected, self._timeout, self.limit)
        connection.taken_at = began
        connection.shorten()
        return connection

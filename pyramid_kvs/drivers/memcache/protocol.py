"""Memcached's meta commands over sockets of our own.

python-memcached's sockets hand the reply of a call that was broken off to the next call, wait
30 seconds before they try a dead server again, and turn errors into 0 or ``None``.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn, TypeVar

from ...exceptions import KVSError, KVSUnavailable, ValueTooLarge
from ..options import PoolOptions
from ..pool import Pool, Pooled

A = TypeVar("A")
R = TypeVar("R")

#: The most that ``memcached -I`` allows for one item.
LARGEST_ITEM = 1 << 30
LONGEST_LINE = 4096
CHUNK = 65536

#: Seconds since its last reply for which a connection is taken to be alive, unasked.
JUST_USED = 0.01

NOT_A_NUMBER = b"CLIENT_ERROR cannot increment or decrement non-numeric value"


class Reply(NamedTuple):
    """The words of a reply's first line, and the data block after it."""

    words: list[bytes]
    data: bytes = b""

    def number(self, place: int) -> int:
        """Return the number in a word such as ``f16`` or ``t-1``.

        :raises KVSError: there is none.
        """
        try:
            return int(self.words[place][1:])
        except (IndexError, ValueError):
            raise KVSError("a reply of memcached's lacks what was asked for") from None


class OutOfStep(Exception):
    """An error line after which nobody knows where the next reply begins."""


class NotConnected(KVSUnavailable):
    """The server takes no connection, so that nothing was asked of it."""


class Connection(Pooled):
    """A connected socket and what was received of the replies."""

    __slots__ = ("_at", "_buffer", "_socket")

    def __init__(self, connected: socket.socket) -> None:
        super().__init__()
        self._socket = connected
        self._buffer = b""
        self._at = 0

    def close(self) -> None:
        self._socket.close()

    def is_stale(self) -> bool:
        """Return whether the server closed the idle connection, or sent what nobody asked for."""
        if self.taken_at - self.used_at < JUST_USED:
            return False
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))

    def ask(self, command: bytes) -> Reply:
        """Send one command and return its reply.

        :raises OutOfStep: the server did not understand it.
        :raises OSError: it does not answer, or closed the connection.
        """
        self._socket.sendall(command)
        reply = self._reply()
        self._check_idle()
        return reply

    def ask_all(self, commands: list[bytes]) -> list[Reply]:
        """Send all commands, then read all replies; errors as in :meth:`ask`."""
        self._socket.sendall(b"".join(commands))
        replies = [self._reply() for _ in commands]
        self._check_idle()
        return replies

    def _check_idle(self) -> None:
        if self._buffer:
            raise OutOfStep("more replies than commands")

    def _reply(self) -> Reply:
        if not self._buffer:
            self._buffer = self._receive()
        end = self._buffer.find(b"\r\n", self._at)
        if end < 0:
            end = self._line_end()
        line = self._buffer[self._at : end]
        words = line.split(b" ")
        if words[0] == b"VA":
            return self._with_data(words, end + 2)
        self._advance(end + 2)
        if line.startswith((b"ERROR", b"CLIENT_ERROR")) and line != NOT_A_NUMBER:
            raise OutOfStep(line.decode("latin-1"))
        return Reply(words)

    def _line_end(self) -> int:
        while (end := self._buffer.find(b"\r\n", self._at)) < 0:
            self._buffer = self._buffer[self._at :] + self._receive()
            self._at = 0
            if len(self._buffer) > CHUNK + LONGEST_LINE:
                raise OutOfStep("a reply without end of line")
        return end

    def _with_data(self, words: list[bytes], start: int) -> Reply:
        if len(words) < 2 or not words[1].isdigit():
            raise OutOfStep("a reply without the size of its data")
        end = start + int(words[1])
        if end + 2 > len(self._buffer):
            self._receive_data(start, end + 2 - start)
            start, end = 0, end - start
        buffer = self._buffer
        if not buffer.startswith(b"\r\n", end):
            raise OutOfStep("a reply with more data than it said")
        self._advance(end + 2)
        return Reply(words, buffer[start:end])

    def _receive_data(self, start: int, size: int) -> None:
        """Make the buffer begin where it now has ``start``, and hold at least ``size`` bytes."""
        if size > LARGEST_ITEM:
            raise OutOfStep("a reply larger than any item")
        chunks = [self._buffer[start:]]
        missing = size - len(chunks[0])
        while missing > 0:
            chunks.append(self._receive())
            missing -= len(chunks[-1])
        self._buffer = b"".join(chunks)

    def _receive(self) -> bytes:
        chunk = self._socket.recv(CHUNK)
        if not chunk:
            raise ConnectionResetError("the server closed the connection")
        return chunk

    def _advance(self, position: int) -> None:
        if position == len(self._buffer):
            self._buffer = b""
            position = 0
        self._at = position


class Server:
    """One memcached server and the connections to it.

    :param host: python-memcached's ``_Host``, of which the address is used.
    :param dead_retry: seconds for which a server that failed is not asked again.
    """

    def __init__(
        self,
        host: Any,
        connect_timeout: float,
        timeout: float,
        max_connections: int,
        dead_retry: float,
        waiting: PoolOptions,
    ) -> None:
        self._family = host.family
        self._address = host.address
        self._connect_timeout = connect_timeout
        self._timeout = timeout
        self._dead_retry = dead_retry
        self._down_until = 0.0
        self._pool: Pool[Connection] = Pool(
            self._connect,
            max_connections,
            timeout=waiting.pool_timeout,
            backlog=waiting.max_backlog,
        )

    def __str__(self) -> str:
        if isinstance(self._address, tuple):
            return f"memcached {self._address[0]}:{self._address[1]}"
        return f"memcached {self._address}"

    def is_down(self) -> bool:
        """Return whether the server failed less than ``dead_retry`` seconds ago."""
        return time.monotonic() < self._down_until

    def close(self) -> None:
        self._pool.close()

    def ask(self, command: bytes, repeatable: bool = False) -> Reply:
        """Send one command and return its reply.

        :param repeatable: it may run twice, and does where the connection died while idle.
        :raises KVSUnavailable: the server does not answer.
        :raises KVSError: it refuses the command.
        """
        reply = self._exchange(Connection.ask, command, repeatable)
        if reply.words[0] == b"SERVER_ERROR":
            raise self.refusal(reply)
        return reply

    def ask_all(self, commands: list[bytes], repeatable: bool = False) -> list[Reply]:
        """Send commands all at once, and return their replies in order; see :meth:`ask`.

        The caller keeps one call small: a server whose replies nobody reads stops reading.
        An error of the server's is a reply too: see :meth:`refusal`.
        """
        return self._exchange(Connection.ask_all, commands, repeatable)

    def refusal(self, reply: Reply) -> KVSError:
        """Return the error that says what the server refused, or sent instead of a reply."""
        line = b" ".join(reply.words).decode("latin-1")
        if "too large" in line or "too big" in line:
            return ValueTooLarge(
                f"{self}: the value is larger than its limit for an item (memcached -I)"
            )
        if "out of memory" in line.lower():
            return KVSUnavailable(f"{self} is out of memory")
        return self._refused(line)

    def _refused(self, line: str) -> KVSError:
        if "unauthenticated" in line or line.startswith("ERROR Too many open connections"):
            return KVSUnavailable(f"{self} answered {line[:100]!r}")
        if line == "ERROR":
            return KVSError(f"{self} knows no meta commands: memcached 1.6 or newer is needed")
        return KVSError(f"{self} answered {line[:100]!r}")

    # -- connections ----------------------------------------------------------------------

    def _exchange(self, ask: Callable[[Connection, A], R], commands: A, repeatable: bool) -> R:
        connection = self._take(repeatable)
        was_idle = not connection.is_new
        try:
            replies = ask(connection, commands)
        except BaseException as error:  # noqa: BLE001 - the reply may still be under way
            self._pool.drop(connection)
            if not (repeatable and was_idle and isinstance(error, ConnectionError)):
                self._raise(error)
        else:
            self._pool.give(connection)
            return replies
        self._pool.close()
        return self._exchange(ask, commands, repeatable=False)

    def _raise(self, error: BaseException) -> NoReturn:
        """Raise our error for one of the socket's, and any other as it is."""
        if isinstance(error, OutOfStep):
            raise self._refused(str(error)) from error
        if isinstance(error, OSError):
            raise self._unavailable(error) from error
        raise error

    def _take(self, repeatable: bool) -> Connection:
        if self._dead_retry and self.is_down():
            raise NotConnected(f"{self} did not answer a moment ago")
        try:
            connection = self._pool.take()
            if not repeatable and connection.is_stale():
                connection = self._pool.replace(connection)
        except OSError as error:
            self._mark_down()
            raise NotConnected(f"{self} takes no connection: {_reason(error)}") from error
        return connection

    def _connect(self, _: float) -> Connection:
        connecting = socket.socket(self._family, socket.SOCK_STREAM)
        try:
            if self._family != socket.AF_UNIX:
                connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connecting.settimeout(self._connect_timeout)
            connecting.connect(self._address)
            connecting.settimeout(self._timeout)
        except BaseException:
            connecting.close()
            raise
        return Connection(connecting)

    def _unavailable(self, error: OSError) -> KVSUnavailable:
        self._mark_down()
        if isinstance(error, TimeoutError):
            return KVSUnavailable(f"{self} did not answer within {self._timeout:g} s")
        return KVSUnavailable(f"{self} does not answer: {_reason(error)}")

    def _mark_down(self) -> None:
        if self._dead_retry:
            self._down_until = time.monotonic() + self._dead_retry


def _reason(error: OSError) -> str:
    return error.strerror or str(error)

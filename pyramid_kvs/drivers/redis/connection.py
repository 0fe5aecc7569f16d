"""Connections to redis: redis-py's, with a shorter way for what is sent most."""

from __future__ import annotations

import math
import os
from os import write
from time import monotonic
from typing import Any

import redis
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as NoReply

from ..pool import Pooled
from .commands import pack
from .connecting import connect
from .deadline import Deadline, DeadlineSocket, OutOfTime

#: The size in bytes from which a command may wait for the server before all of it is sent.
LARGE = 2**14

_PING = pack(b"PING")
_HELLO = pack(b"HELLO")

Reply = Any


def open_connection(connection: Any, deadline: Deadline, limit: float) -> RedisConnection:
    """Connect one of redis-py's connections.

    :param limit: the seconds that a call on it may take.
    """
    sock = connect(connection, deadline)
    kind = DirectConnection if _is_plain(connection, sock.raw) else LayeredConnection
    return kind(connection, sock, limit)


def _is_plain(connection: Any, sock: Any) -> bool:
    """Return whether redis-py does no more than to send bytes and to parse them by hiredis."""
    return (
        type(connection) in (redis.Connection, redis.UnixDomainSocketConnection)
        and hasattr(getattr(connection._parser, "_reader", None), "feed")
        and hasattr(connection._parser, "_buffer")
        and hasattr(sock, "recv_into")
        and str(getattr(connection, "protocol", 2)) == "2"
        and os.name == "posix"  # elsewhere, os.write() does not write to sockets
    )


class RedisConnection(Pooled):
    """A connection that asks for replies within the deadline of a call.

    Any error but ``ResponseError`` leaves it unusable.
    """

    __slots__ = ("_connection", "_limit", "_sock")

    def __init__(self, connection: Any, sock: DeadlineSocket, limit: float) -> None:
        super().__init__()
        self._connection = connection
        self._sock = sock
        self._limit = limit

    def ask(self, packed: bytes, count: int = 0) -> Reply:
        """Send commands, and return the reply, or a list of ``count`` replies.

        :raises redis.RedisError: no reply in time, a lost connection, or a refusal. In a list,
            refusals are returned.
        """
        raise NotImplementedError

    def ask_late(self, packed: bytes, count: int = 0) -> Reply:
        """As :meth:`ask`, for a call that may have taken some of its time to connect."""
        return self.ask(packed, count)

    def ask_within(self, deadline: Deadline, packed: bytes, count: int = 0) -> Reply:
        """As :meth:`ask`, with a deadline for each step, from the first byte that is sent on."""
        self.send(deadline, packed)
        replies = self.receive(deadline, count or 1)
        return replies if count else _only(replies)

    def send(self, deadline: Deadline, packed: bytes) -> None:
        """Send commands, and do not wait for their replies.

        :raises redis.RedisError: not in time, or a lost connection.
        """
        raise NotImplementedError

    def receive(self, deadline: Deadline, count: int) -> list[Reply]:
        """Return the replies to commands that were sent; refusals among them are returned.

        :raises redis.RedisError: not in time, a lost connection, or a server that serves nobody
            on this connection, such as one that is loading its data.
        """
        raise NotImplementedError

    def is_alive(self) -> bool:
        """Return whether the server has neither closed it nor sent anything unasked."""
        try:
            return not self._connection.can_read(0)
        except (NoConnection, OSError):
            return False

    def answers(self, deadline: Deadline) -> bool:
        """Return whether the server answers ``PING``, in whatever words."""
        try:
            self.ask_within(deadline, _PING)
        except ResponseError:
            return True
        except (NoConnection, NoReply):
            return False
        return True

    def mode(self, deadline: Deadline) -> bytes:
        """Return ``standalone``, ``cluster`` or ``sentinel``."""
        return self._hello(deadline, b"mode")

    def role(self, deadline: Deadline) -> bytes:
        """Return ``master`` or ``replica``."""
        return self._hello(deadline, b"role")

    def _hello(self, deadline: Deadline, name: bytes) -> bytes:
        reply = self.ask_within(deadline, _HELLO)
        if not isinstance(reply, dict):
            reply = dict(zip(reply[::2], reply[1::2], strict=False))
        return bytes(reply.get(name, b""))

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of a connection that is not to a unix socket."""
        return self._connection.host, self._connection.port

    def close(self) -> None:
        self._connection.disconnect()


class DirectConnection(RedisConnection):
    """Sends and receives at the socket: a third of the time that redis-py's layers take."""

    __slots__ = (
        *("_buffer", "_feed", "_fileno", "_gets", "_nothing"),
        *("_raw", "_receive", "_send", "_timeout"),
    )

    def __init__(self, connection: Any, sock: DeadlineSocket, limit: float) -> None:
        super().__init__(connection, sock, limit)
        parser = connection._parser
        self._raw = sock.raw
        self._timeout = connection.socket_timeout
        self._send, self._receive = sock.raw.sendall, sock.raw.recv_into
        self._fileno = sock.raw.fileno
        self._buffer, reader = parser._buffer, parser._reader
        self._feed, self._gets = reader.feed, reader.gets
        #: What the reader returns while a reply is not complete.
        self._nothing = reader.gets(False)

    def ask(self, packed: bytes, count: int = 0) -> Reply:
        if count or len(packed) > LARGE:
            return self.ask_within(Deadline(self.taken_at + self._limit), packed, count)
        # The usual case: all is sent at once, and the whole reply comes at once. The socket has
        # the right timeout.
        buffer, fileno, receive = self._buffer, self._fileno, self._receive
        feed, gets = self._feed, self._gets
        try:
            # A socket with a timeout asks the system, before it sends, whether it can.
            try:
                sent = write(fileno(), packed)
            except BlockingIOError:
                sent = 0
            if sent < len(packed):
                self._send(packed[sent:])
            size = receive(buffer)
        except OSError as error:
            raise _as_redis_error(error) from None
        if not size:
            raise NoConnection("Connection closed by server.")
        feed(buffer, 0, size)
        reply = gets(False)
        if reply is self._nothing:
            reply = self._rest(Deadline(self.taken_at + self._limit))
        if isinstance(reply, Exception):
            try:
                raise reply
            finally:
                del reply  # the traceback has this frame
        return reply

    def ask_late(self, packed: bytes, count: int = 0) -> Reply:
        end = self.taken_at + self._limit
        if end == math.inf or monotonic() + self._timeout <= end:
            return self.ask(packed, count)
        return self.ask_within(Deadline(end), packed, count)

    def send(self, deadline: Deadline, packed: bytes) -> None:
        try:
            self._raw.settimeout(deadline.timeout(self._timeout))
            self._send(packed)
        except OutOfTime:
            raise NoReply("no answer in time") from None
        except OSError as error:
            raise _as_redis_error(error) from None

    def receive(self, deadline: Deadline, count: int) -> list[Reply]:
        gets, nothing = self._gets, self._nothing
        replies: list[Reply] = []
        for _ in range(count):
            reply = gets(False)
            if reply is nothing:
                reply = self._rest(deadline)
            if isinstance(reply, NoConnection):  # for example LOADING: the server serves nobody
                try:
                    raise reply
                finally:
                    del reply, replies  # the traceback has this frame
            replies.append(reply)
        return replies

    def _rest(self, deadline: Deadline) -> Reply:
        """Return the next reply, of which a part may have come."""
        nothing = self._nothing
        reply = self._gets(False)
        if reply is not nothing:
            return reply
        try:
            while reply is nothing:
                self._receive_within(deadline)
                reply = self._gets(False)
            self._raw.settimeout(self._timeout)
        except OutOfTime:
            raise NoReply("no answer in time") from None
        except OSError as error:
            raise _as_redis_error(error) from None
        return reply

    def _receive_within(self, deadline: Deadline) -> None:
        self._raw.settimeout(deadline.timeout(self._timeout))
        size = self._receive(self._buffer)
        if not size:
            raise NoConnection("Connection closed by server.")
        deadline.answered()
        self._feed(self._buffer, 0, size)


class LayeredConnection(RedisConnection):
    """Sends and receives by redis-py: TLS, RESP3, its own parser, or a class of an application."""

    __slots__ = ()

    def ask(self, packed: bytes, count: int = 0) -> Reply:
        return self.ask_within(Deadline(self.taken_at + self._limit), packed, count)

    def ask_within(self, deadline: Deadline, packed: bytes, count: int = 0) -> Reply:
        replies = self._exchange(deadline, packed, count or 1)
        return replies if count else _only(replies)

    def send(self, deadline: Deadline, packed: bytes) -> None:
        self._exchange(deadline, packed, 0)

    def receive(self, deadline: Deadline, count: int) -> list[Reply]:
        return self._exchange(deadline, b"", count)

    def _exchange(self, deadline: Deadline, packed: bytes, count: int) -> list[Reply]:
        self._sock.deadline = deadline
        try:
            if packed:
                self._connection.send_packed_command((packed,), False)
            return [self._read() for _ in range(count)]
        except OutOfTime:
            raise NoReply("no answer in time") from None
        finally:
            self._sock.deadline = None

    def _read(self) -> Reply:
        try:
            return self._connection.read_response(True)
        except ResponseError as error:
            return error


def _only(replies: list[Reply]) -> Reply:
    """Return the only reply, or raise it if it is a refusal."""
    reply = replies.pop()  # the caller's frame keeps the list
    if isinstance(reply, Exception):
        try:
            raise reply
        finally:
            del reply  # the traceback has this frame
    return reply


def _as_redis_error(error: OSError) -> redis.RedisError:
    if isinstance(error, TimeoutError):
        return NoReply("no answer in time")
    return NoConnection(f"{error.strerror or error}")

"""Connect a connection of redis-py, all steps within one deadline."""

from __future__ import annotations

import socket
from collections.abc import Callable
from time import monotonic
from typing import Any

import redis
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as NoReply

from ..resolver import PATIENCE, is_address, resolver
from .deadline import Deadline, DeadlineSocket, OutOfTime, until


def connect(connection: Any, deadline: Deadline) -> DeadlineSocket:
    """Let redis-py connect and introduce itself, and return the socket.

    redis-py has a timeout for each step: for each address of a name, and for each reply to
    ``AUTH``, ``HELLO``, ``CLIENT`` and ``SELECT``.
    """
    opened: list[DeadlineSocket] = []

    def open_socket() -> DeadlineSocket:
        wrapped = DeadlineSocket(_opener(connection)(deadline), connection.socket_timeout)
        wrapped.deadline = deadline
        opened[:] = [wrapped]
        return wrapped

    retry, connection.retry = connection.retry, until(connection.retry, deadline)
    connection._connect = open_socket
    try:
        connection.connect()
    except OutOfTime:
        connection.disconnect()
        raise NoReply("no answer in time") from None
    except BaseException:
        connection.disconnect()
        raise
    finally:
        connection.retry = retry
        del connection._connect
    opened[0].deadline = None
    opened[0].raw.settimeout(connection.socket_timeout)
    return opened[0]


def _opener(connection: Any) -> Callable[[Deadline], Any]:
    """Return what opens the socket: with TLS, for TCP or unix, or as the class defines it."""
    defined = type(connection)._connect
    if defined is redis.UnixDomainSocketConnection._connect:
        return lambda deadline: _open_unix(connection, deadline)
    if defined is redis.Connection._connect:
        return lambda deadline: _open_tcp(connection, deadline)
    if defined is redis.SSLConnection._connect:
        return lambda deadline: _open_tls(connection, deadline)
    return lambda _: defined(connection)


def _open_unix(connection: Any, deadline: Deadline) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    return _connected(sock, connection.path, deadline.timeout(connection.socket_connect_timeout))


def _open_tcp(connection: Any, deadline: Deadline) -> socket.socket:
    """Try all addresses of the host within one timeout: each gets its share of what is left."""
    host, port, family = connection.host, connection.port, connection.socket_type
    addresses = [host] if is_address(host) else _look_up(connection, deadline)
    if family:
        addresses = [address for address in addresses if _family(address) == family]
    timeout = deadline.timeout(connection.socket_connect_timeout)
    end = None if timeout is None else monotonic() + timeout
    failure = OSError("the host name has no address")
    for number, address in enumerate(addresses):
        share = None
        if end is not None:
            share = max(0.001, (end - monotonic()) / (len(addresses) - number))
        try:
            return _connected(_tcp_socket(connection, address), (address, port), share)
        except OSError as error:
            failure = error
    try:
        raise failure
    finally:
        del failure  # the traceback has this frame


def _look_up(connection: Any, deadline: Deadline) -> list[str]:
    timeout = deadline.timeout(connection.socket_connect_timeout)
    patience = PATIENCE if timeout is None else min(PATIENCE, timeout)
    return resolver.addresses(connection.host, str(connection.port), patience)


def _tcp_socket(connection: Any, address: str) -> socket.socket:
    sock = socket.socket(_family(address))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if connection.socket_keepalive:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in connection.socket_keepalive_options.items():
            sock.setsockopt(socket.IPPROTO_TCP, name, value)
    return sock


def _connected(sock: socket.socket, place: Any, timeout: float | None) -> socket.socket:
    try:
        sock.settimeout(timeout)
        sock.connect(place)
    except BaseException:
        sock.close()
        raise
    return sock


def _open_tls(connection: Any, deadline: Deadline) -> Any:
    """Open a TLS connection. Python's timeout is for all steps of the handshake together."""
    sock = _open_tcp(connection, deadline)
    try:
        sock.settimeout(deadline.timeout(connection.socket_timeout))
        secured = _wrap(connection, sock)
    except TimeoutError:
        sock.close()
        raise NoReply("no answer to the TLS handshake in time; does the server use TLS?") from None
    except (OSError, RedisError, OutOfTime):
        sock.close()
        raise
    deadline.answered()
    return secured


def _wrap(connection: Any, sock: socket.socket) -> Any:
    if hasattr(connection, "_wrap_socket_with_ssl"):
        return connection._wrap_socket_with_ssl(sock)
    # Older versions do it in _connect, after the one of the class above.
    kind = type(connection)
    connection.__class__ = type(kind.__name__, (kind, _Opened), {"opened": sock})
    try:
        return kind._connect(connection)
    finally:
        connection.__class__ = kind


class _Opened(redis.Connection):
    """Comes between a class and ``redis.Connection`` if the socket is already open."""

    opened: socket.socket

    def _connect(self) -> socket.socket:
        return self.opened


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET

"""The timeouts of one connection."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from pyramid_kvs.drivers.memcache.protocol import CHANGED, Connection

STATS = b"STAT pid 7\r\nSTAT uptime 5\r\nSTAT time 9\r\nEND\r\n"


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    near.settimeout(3)
    with near, far:
        yield near, far


def connection_of(near: socket.socket, spent: float) -> Connection:
    """Return a connection for a call that has taken some of its 6 s already."""
    connection = Connection(near, 3, 6)
    connection.taken_at = time.monotonic() - spent
    return connection


def test_a_call_without_time(ends: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(TimeoutError):
        connection_of(ends[0], 7).shorten()


def test_a_shortened_timeout_is_for_one_call(ends: tuple[socket.socket, socket.socket]) -> None:
    """Also if the call did not send anything, because the server has started again."""
    near, far = ends
    connection = connection_of(near, 0)
    far.sendall(STATS)
    assert connection.swap((b"another", b"ms")) == CHANGED
    for call in (
        lambda: connection.swap((b"another", b"ms")),
        lambda: connection.swap_all([(b"another", b"ms")]),
        lambda: far.sendall(b"HD\r\n") or connection.ask(b"ms"),
        lambda: far.sendall(b"HD\r\n") or connection.swap((connection.run_id, b"ms")),
    ):
        connection.taken_at = time.monotonic() - 5
        connection.shorten()
        assert near.gettimeout() < 1.1
        call()
        assert near.gettimeout() == 3


def test_a_reply_in_pieces_ends_with_the_call(ends: tuple[socket.socket, socket.socket]) -> None:
    near, far = ends
    connection = connection_of(near, 5.8)
    far.sendall(b"VA 10 f16\r\nhalf")
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        connection.ask(b"mg")
    assert 0.1 < time.monotonic() - began < 2


def test_asking_for_the_run_takes_time_of_the_call(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    near, far = ends
    connection = connection_of(near, 5.8)
    far.sendall(STATS)
    began = time.monotonic()
    run_id = b"%b 7 4" % repr(near.getpeername()).encode()
    with pytest.raises(TimeoutError):
        connection.swap((run_id, b"ms"))
    assert connection.run_id == run_id
    assert 0.1 < time.monotonic() - began < 2

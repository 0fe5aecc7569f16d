"""Drivers, items and servers for the tests of the memcache driver."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pyramid_kvs.exceptions import KVSError, KVSUnavailable
from pyramid_kvs.kvs import KVS
from tests.servers import MemcachedServer

DAY = 86400
Start = Callable[..., MemcachedServer]


def connect(*servers: MemcachedServer | str, prefix: str = "p::", **options: Any) -> KVS:
    """Build a driver; ``codec`` and ``ttl`` are for it, other options go to ``kvs_kwargs``."""
    own = {name: options.pop(name) for name in ("codec", "ttl") if name in options}
    urls = [server if isinstance(server, str) else server.url for server in servers]
    return KVS("memcache", {"servers": urls, **options}, prefix, **own)


def store(server: MemcachedServer, full_key: bytes, data: bytes, flags: int = 0) -> None:
    command = b"ms %b %d T100 F%d\r\n%b\r\n" % (full_key, len(data), flags, data)
    assert server.talk(command) == b"HD\r\n"


def stored(server: MemcachedServer, full_key: bytes) -> tuple[int, bytes]:
    """Return the flags and the data that memcached has at a key."""
    header, data = server.talk(b"mg %b f v\r\n" % full_key).split(b"\r\n", 1)
    return int(header.split(b" ")[2][1:]), data[:-2]


def seconds_left(server: MemcachedServer, full_key: bytes) -> int:
    return int(server.talk(b"mg %b t\r\n" % full_key).split(b"t")[1])


KEYS = [f"key{n}" for n in range(120)] + ["é" * 9, "a/b"]


def unavailable(kvs: KVS, key: str) -> bool:
    try:
        kvs.get(key)
    except KVSUnavailable:
        return True
    return False


CALLS: list[Callable[[KVS], Any]] = [
    lambda kvs: kvs.get("key"),
    lambda kvs: kvs.set("key", 1),
    lambda kvs: kvs.add("key", 1),
    lambda kvs: kvs.delete("key"),
    lambda kvs: kvs.incr("key"),
    lambda kvs: kvs.decr("key"),
    lambda kvs: kvs.get_many(["key", "other"]),
    lambda kvs: kvs.set_many({"key": 1}),
    lambda kvs: kvs.delete_many(["key"]),
    lambda kvs: kvs.update("key", lambda old: 1),
    lambda kvs: kvs.ttl_of("key"),
    lambda kvs: kvs.expire("key", 5),
    lambda kvs: kvs.expire("key", 5.5),
    lambda kvs: kvs.raw_load("key", renew=5),
]


#: A second, as documented, and one for a busy machine.
SOON = 2.0


def fails_in_time(kvs: KVS, call: Callable[[KVS], Any]) -> None:
    started = time.monotonic()
    with pytest.raises(KVSUnavailable) as caught:
        call(kvs)
    assert time.monotonic() - started < SOON
    assert isinstance(caught.value.__cause__, OSError)
    assert not isinstance(caught.value.__cause__, KVSError)


@contextlib.contextmanager
def counting(server: MemcachedServer) -> Iterator[tuple[str, list[int]]]:
    """Run a proxy in front of a server that notes the size of each piece the driver sends."""
    sent: list[int] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, target: socket.socket, sizes: list[int]) -> None:
        with contextlib.suppress(OSError):  # the other direction ended first, and closed it
            while chunk := source.recv(1 << 20):
                sizes.append(len(chunk))
                target.sendall(chunk)
        target.close()

    def serve() -> None:
        try:
            near = listener.accept()[0]
        except OSError:  # no connection came
            return
        far = socket.create_connection((server.host, server.port))
        threading.Thread(target=pump, args=(near, far, sent), daemon=True).start()
        pump(far, near, [])

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}", sent


@contextlib.contextmanager
def dying() -> Iterator[tuple[str, list[bytes]]]:
    """Answer the first command of each connection with HD, and close it at the second."""
    received: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = listener.accept()[0]
                received.append(connection.recv(65536))
                connection.sendall(b"HD\r\n")
                received.append(connection.recv(65536))
                connection.close()

    threading.Thread(target=serve, daemon=True).start()
    with listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}", received


class Interrupted(BaseException):
    """Not an ``Exception``, like ``gevent.Timeout`` and the timeout of a worker."""


def interrupt(*_: object) -> None:
    raise Interrupted


@contextlib.contextmanager
def answering(*replies: bytes) -> Iterator[str]:
    """Answer the first command of each connection with the next of the replies."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            for reply in replies:
                connection = listener.accept()[0]
                connection.recv(65536)
                connection.sendall(reply)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    thread.join(10)

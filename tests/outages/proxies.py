"""Networks that misbehave: a proxy in front of a real server, and ports where nobody answers."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
import time
from collections.abc import Iterator

from tests.servers import LOOPBACK


class Proxy:
    """Passes bytes between clients and a server, as well or as badly as its attributes say.

    :param port: the server's port on the loopback address.
    """

    def __init__(self, port: int) -> None:
        self.target = port
        #: Seconds that each reply of the server waits before it is passed on.
        self.delay = 0.0
        #: Seconds between two bytes of a reply.
        self.trickle = 0.0
        #: How many bytes of each piece of a reply are passed on.
        self.most: int | None = None
        #: Whether it reads what clients send.
        self.is_reading = True
        self.connections = 0
        #: Set when a reply begins to wait.
        self.has_delayed = threading.Event()
        self._forgotten: set[int] = set()
        self._is_closed = False
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def forget(self) -> None:
        """Drop all that is sent on the connections so far, as a firewall does that forgot them.

        Nobody is told: no connection is closed. New connections work.
        """
        self._forgotten = set(range(self.connections))

    def close(self) -> None:
        self._is_closed = True
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # implementation

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection((LOOPBACK, self.target))
                except OSError:
                    client.close()
                    continue
                for each in (client, server):
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._sockets += [client, server]
                number = self.connections
                self.connections += 1
                for ends in ((client, server, False), (server, client, True)):
                    threading.Thread(target=self._pass, args=(number, *ends), daemon=True).start()

    def _pass(self, number: int, source: socket.socket, to: socket.socket, is_reply: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                while not (is_reply or self.is_reading or self._is_closed):
                    time.sleep(0.01)
                if is_reply and number not in self._forgotten:
                    self._wait(self.delay)
                if number not in self._forgotten:
                    self._send(data, to, is_reply)
        if number not in self._forgotten:
            with contextlib.suppress(OSError):
                to.shutdown(socket.SHUT_WR)

    def _send(self, data: bytes, to: socket.socket, is_reply: bool) -> None:
        if is_reply:
            data = data[: self.most]
        if not (is_reply and self.trickle):
            to.sendall(data)
            return
        for byte in data:
            to.sendall(bytes([byte]))
            self._wait(self.trickle)

    def _wait(self, seconds: float) -> None:
        if seconds and not self._is_closed:
            self.has_delayed.set()
            time.sleep(seconds)


@contextlib.contextmanager
def mute_port(address: str = LOOPBACK, port: int = 0) -> Iterator[int]:
    """Listen on a port and never answer: the kernel accepts the connections."""
    with socket.create_server((address, port), backlog=128) as listener:
        yield listener.getsockname()[1]


@contextlib.contextmanager
def dead_port(address: str = LOOPBACK, port: int = 0) -> Iterator[int]:
    """Yield a port to which no connection is made, and none is refused: its backlog is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((address, port), backlog=0))
        name = listener.getsockname()
        for _ in range(10):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            if client.connect_ex(name) not in (0, errno.EINPROGRESS):
                break
        yield name[1]

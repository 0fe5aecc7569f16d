"""A proxy that counts round trips: how often the client sends after the server has sent."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Iterator


class TripCounter:
    """Passes bytes between clients and a server, in one thread for each connection."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = [self._listener]
        self.port = self._listener.getsockname()[1]
        self.trips = 0

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                self._sockets += [client, server]
                threading.Thread(target=self._pass, args=(client, server), daemon=True).start()

    def _pass(self, client: socket.socket, server: socket.socket) -> None:
        server_spoke = True
        # select() raises ValueError for a socket that another thread has closed.
        with contextlib.suppress(OSError, ValueError), client, server:
            while True:
                for ready in select.select([client, server], [], [])[0]:
                    data = ready.recv(65536)
                    if not data:
                        return
                    if ready is client:
                        self.trips += server_spoke
                        server_spoke = False
                        server.sendall(data)
                    else:
                        server_spoke = True
                        client.sendall(data)

    def close(self) -> None:
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


@contextlib.contextmanager
def count_trips(port: int) -> Iterator[TripCounter]:
    """Run a proxy in front of a server."""
    proxy = TripCounter(port)
    thread = threading.Thread(target=proxy.run, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.close()
        thread.join(5)

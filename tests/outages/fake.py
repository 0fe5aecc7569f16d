"""A server that gives the same answer to everything: what real ones say in rare situations."""

from __future__ import annotations

import contextlib
import socketserver
import threading
from collections.abc import Iterator

from tests.servers import LOOPBACK


@contextlib.contextmanager
def answering(reply: bytes) -> Iterator[int]:
    """Yield the port of a server that answers each piece that it reads with the same bytes."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                while self.request.recv(65536):
                    self.request.sendall(reply)

    class Listener(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

    with Listener((LOOPBACK, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()

"""A server that speaks the protocol of redis and behaves as a test says."""

from __future__ import annotations

import contextlib
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from typing import IO, Any

from pyramid_kvs.kvs import KVS
from tests.servers import LOOPBACK

#: Returns the reply to a command: the bytes, nothing at all (``b""``), or ``None`` to hang up.
Answer = Callable[..., "bytes | None"]


class FakeRedis:
    """Answers ``+OK`` to everything, unless :attr:`answers` has the name of the command."""

    def __init__(self) -> None:
        self.answers: dict[bytes, Answer] = {b"PING": lambda: b"+PONG\r\n"}
        self.commands: list[bytes] = []
        self.connections = 0
        #: Seconds before each byte of a reply.
        self.pause = 0.0
        self.port = 0
        self._forgotten = 0

    def forget(self) -> None:
        """Be silent on all connections so far, as if a firewall had forgotten them."""
        self._forgotten = self.connections

    def driver(self, **kwargs: Any) -> KVS:
        return KVS("redis", {"host": LOOPBACK, "port": self.port, **kwargs})

    def serve(self, stream: IO[bytes], send: Callable[[bytes], Any]) -> None:
        self.connections += 1
        number = self.connections
        while command := _read_command(stream):
            name = command[0].upper()
            self.commands.append(name)
            reply = self.answers.get(name, lambda *_: b"+OK\r\n")(*command[1:])
            if reply is None:
                return
            if number > self._forgotten:
                self._send(reply, send)

    def _send(self, reply: bytes, send: Callable[[bytes], Any]) -> None:
        if not self.pause:
            send(reply)
            return
        for byte in reply:
            time.sleep(self.pause)
            send(bytes([byte]))


def _read_command(stream: IO[bytes]) -> list[bytes]:
    count = stream.readline()[1:]
    words = []
    for _ in range(int(count or 0)):
        words.append(stream.read(int(stream.readline()[1:])))
        stream.readline()
    return words


@contextlib.contextmanager
def fake_redis() -> Iterator[FakeRedis]:
    fake = FakeRedis()

    class Handler(socketserver.StreamRequestHandler):
        wbufsize = 0
        disable_nagle_algorithm = True

        def handle(self) -> None:
            with contextlib.suppress(OSError):
                fake.serve(self.rfile, self.request.sendall)

    class Listener(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

    with Listener((LOOPBACK, 0), Handler) as listener:
        fake.port = listener.server_address[1]
        thread = threading.Thread(target=listener.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield fake
        finally:
            listener.shutdown()
            thread.join()

"""Compare the memcache driver with a plain socket, which is the minimum, in turns.

::

    python -m tests.benchmarks.bench_memcache [rounds]

Each line has the median of the time of one call in all rounds, and the median of the ratios of
neighbouring rounds. A change of the machine's load disturbs the ratios less than the times.
"""

from __future__ import annotations

import json
import socket
import statistics
import sys
import time
from collections.abc import Callable

import memcache

from pyramid_kvs.kvs import KVS
from tests.servers import MemcachedServer

CALLS = 20
Call = Callable[[], object]
SESSION = json.dumps({"user": 17, "csrf": "c" * 40, "roles": ["a", "b"], "pad": "x" * 250})
FULL_KEY = b"session::" + b"0123456789abcdef0123456789abcdef01234567"
KEY = FULL_KEY[len(b"session::") :].decode()


class Plain:
    """The minimum: one ``sendall`` and one ``recv`` for a command, and a slice for the data."""

    def __init__(self, server: MemcachedServer) -> None:
        self.socket = socket.create_connection((server.host, server.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.cas = b""

    def read(self) -> bytes:
        self.socket.sendall(b"mg %b v f c T1200\r\n" % FULL_KEY)
        header, data = self.socket.recv(65536).split(b"\r\n", 1)
        self.cas = header.split(b" ")[3]
        return data[:-2]

    def change(self) -> bytes:
        data = self.read()
        command = b"ms %b %d T1200 F16 C%b\r\n%b\r\n" % (FULL_KEY, len(data), self.cas[1:], data)
        self.socket.sendall(command)
        return self.socket.recv(65536)

    def get_100(self) -> int:
        self.socket.sendall(b"get " + b" ".join(b"p::k%d" % n for n in range(100)) + b"\r\n")
        reply = b""
        while not reply.endswith(b"END\r\n"):
            reply += self.socket.recv(65536)
        return len(reply.split(b"\r\n"))

    def incr(self) -> bytes:
        self.socket.sendall(b"ma p::plain v t N300 J1 D1\r\n")
        return self.socket.recv(65536)


def change(kvs: KVS) -> None:
    stored = kvs.raw_load(KEY, 1200)
    assert stored
    assert kvs.raw_swap(KEY, stored, SESSION, 1200).done


def compare(name: str, ours: Call, theirs: Call, rounds: int) -> None:
    times = [(timed(ours), timed(theirs)) for _ in range(rounds)]
    mine, other = (statistics.median(column) * 1e6 for column in zip(*times, strict=True))
    ratio = statistics.median(a / b for a, b in times)
    print(f"{name:34} {mine:8.1f} µs {other:8.1f} µs   {ratio:5.2f}")


def timed(call: Call) -> float:
    start = time.perf_counter()
    for _ in range(CALLS):
        call()
    return (time.perf_counter() - start) / CALLS


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    with MemcachedServer() as server:
        sessions = KVS("memcache", {"servers": [server.url]}, "session::", 1200)
        kvs = KVS("memcache", {"servers": [server.url]}, "p::")
        peer = memcache.Client([server.url])
        plain = Plain(server)
        sessions.raw_set(KEY, SESSION, 1200)
        many = {f"k{n}": "v" * 1000 for n in range(100)}
        kvs.set_many(many)
        pairs: dict[str, tuple[Call, Call]] = {
            "session read / plain socket": (lambda: sessions.raw_load(KEY, 1200), plain.read),
            "session change / plain socket": (lambda: change(sessions), plain.change),
            "incr / plain socket": (lambda: kvs.incr("c"), plain.incr),
            "100 keys / plain get": (lambda: kvs.raw_get_many(list(many)), plain.get_100),
            "100 keys / python-memcached": (
                lambda: kvs.raw_get_many(list(many)),
                lambda: peer.get_multi(list(many), "p::"),
            ),
            "get / python-memcached": (lambda: kvs.raw_get("k1"), lambda: peer.get("p::k1")),
            "set / python-memcached": (
                lambda: kvs.raw_set("k1", SESSION, 300),
                lambda: peer.set("p::k1", SESSION, 300),
            ),
        }
        print(f"{'':34} {'driver':>11} {'other':>11}   ratio")
        for name, (ours, theirs) in pairs.items():
            compare(name, ours, theirs, rounds)


if __name__ == "__main__":
    main()

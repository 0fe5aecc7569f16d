"""The cost of a session: ``python -m tests.benchmarks.bench_session [redis|memcache|users]``.

The requests of a round are interleaved, so that a busy machine slows all of them equally. The
figures are the medians of the rounds, and the ratios are the medians of the ratios in a round. The
ratios in brackets are those of the best rounds, which are more exact on a busy machine. The floor
is a bare Pyramid application that uses a plain socket to the store, with as few round trips as
possible.
"""

from __future__ import annotations

import gc
import io
import json
import random
import socket
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response

from pyramid_kvs.session import CookieSession, SessionFactory, end_sessions, list_sessions
from tests.servers import MemcachedServer, RedisServer

ID = "0123456789abcdef0123456789abcdef01234567"
ROUNDS, REQUESTS = 200, 30
SMALL = {"user": "zoe", "visits": 1, "text": "x" * 280}
ITEMS = [
    {"sku": f"A{n:04}", "count": n, "price": 9.99 + n, "note": "a gift, please wrap it"}
    for n in range(20)
]
#: 2 KB. Lists and dicts are 700 bytes of the first one, and almost all of the second one.
MIXED = {"visits": 1, "cart": ITEMS[:8], "text": "lorem ipsum " * 105}
NESTED = {"visits": 1, "cart": ITEMS, "text": "lorem ipsum " * 20}
CONTENTS = {"small": SMALL, "mixed": MIXED, "nested": NESTED}


def environ(path: str) -> dict[str, Any]:
    return {
        "REQUEST_METHOD": "GET", "PATH_INFO": path, "SCRIPT_NAME": "", "QUERY_STRING": "",
        "SERVER_NAME": "localhost", "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "localhost", "REMOTE_ADDR": "127.0.0.1", "wsgi.url_scheme": "http",
        "wsgi.version": (1, 0), "wsgi.input": io.BytesIO(), "wsgi.errors": sys.stderr,
        "HTTP_COOKIE": f"session_id={ID}",
    }  # fmt: skip


def caller(app: Any, path: str) -> Callable[[], None]:
    def call() -> None:
        statuses = []
        b"".join(app(environ(path), lambda status, headers, *_: statuses.append(status)))
        assert statuses == ["200 OK"]

    return call


def bare(request: Request) -> Response:
    return Response("ok")


def read(request: Request) -> Response:
    assert request.session["visits"] >= 1
    return Response("ok")


def read_nested(request: Request) -> Response:
    assert request.session["cart"][0]["count"] == 0
    return Response("ok")


def change(request: Request) -> Response:
    request.session["visits"] += 1
    return Response("ok")


def increment(request: Request) -> Response:
    request.session.incr("visits")
    return Response("ok")


class Blind(CookieSession):
    """A session that does not find changes inside of values, for comparison."""

    __slots__ = ()

    def _hand_out(self, key: str, value: Any) -> None:
        pass


def build(configure: Callable[[Configurator], None], views: dict[str, Any]) -> Any:
    config = Configurator()
    configure(config)
    for name, view in views.items():
        config.add_route(name, f"/{name}")
        config.add_view(view, route_name=name)
    return config.make_wsgi_app()


class RedisFloor:
    """The minimum on one socket: a GETEX, and a compare-and-set by a script for a change."""

    SWAP = (
        "local now = redis.call('GET', KEYS[1]) if now ~= ARGV[1] then return now end "
        "redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) return 1"
    )

    def __init__(self, server: RedisServer) -> None:
        self.socket = socket.create_connection((server.host, server.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sha = server.command("SCRIPT", "LOAD", self.SWAP)

    def call(self, *words: bytes) -> bytes:
        parts = [b"*%d\r\n" % len(words)]
        parts += [b"$%d\r\n%s\r\n" % (len(word), word) for word in words]
        self.socket.sendall(b"".join(parts))
        reply = self.socket.recv(65536)
        if reply[:1] != b"$":
            return reply
        head, _, data = reply.partition(b"\r\n")
        while len(data) < int(head[1:]) + 2:
            data += self.socket.recv(65536)
        return data[:-2]

    def load(self) -> bytes:
        return self.call(b"GETEX", b"session::" + ID.encode(), b"PX", b"300000")

    def swap(self, old: bytes, new: bytes) -> None:
        key = b"session::" + ID.encode()
        reply = self.call(b"EVALSHA", self.sha, b"1", key, old, new, b"300000")
        assert reply == b":1\r\n"


class MemcacheFloor:
    """The minimum on one socket: a gats, and a cas for a change."""

    def __init__(self, server: MemcachedServer) -> None:
        self.socket = socket.create_connection((server.host, server.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.token = b""

    def load(self) -> bytes:
        self.socket.sendall(b"gats 300 session::" + ID.encode() + b"\r\n")
        reply = self.socket.recv(65536)
        head, _, rest = reply.partition(b"\r\n")
        *_, length, self.token = head.split()
        while len(rest) < int(length) + 7:
            rest += self.socket.recv(65536)
        return rest[: int(length)]

    def swap(self, old: bytes, new: bytes) -> None:
        head = b"cas session::%s 16 300 %d %s\r\n" % (ID.encode(), len(new), self.token)
        self.socket.sendall(head + new + b"\r\n")
        assert self.socket.recv(100) == b"STORED\r\n"


def floor_views(floor: Any) -> dict[str, Any]:
    """Return views that do by hand what a session does."""

    def headers(response: Response) -> Response:
        response.vary = ["Cookie"]
        response.set_cookie("session_id", ID, max_age=300, httponly=True, samesite="Lax")
        return response

    def floor_read(request: Request) -> Response:
        assert request.cookies.get("session_id") == ID
        assert json.loads(floor.load())["visits"] >= 1
        return headers(Response("ok"))

    def floor_change(request: Request) -> Response:
        assert request.cookies.get("session_id") == ID
        old = floor.load()
        session = json.loads(old)
        session["visits"] += 1
        floor.swap(old, json.dumps(session).encode())
        return headers(Response("ok"))

    return {"read": floor_read, "change": floor_change, "bare": bare}


def interleave(calls: dict[str, Callable[[], None]]) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        for _ in range(200):
            call()
    gc.disable()
    for _ in range(ROUNDS):
        for name, call in random.sample(list(calls.items()), len(calls)):
            started = time.perf_counter()
            for _ in range(REQUESTS):
                call()
            times[name].append((time.perf_counter() - started) / REQUESTS * 1e6)
        gc.collect()
    gc.enable()
    return times


def show(times: dict[str, list[float]], ratios: list[tuple[str, str]]) -> None:
    for name, values in times.items():
        print(f"  {name:32}{statistics.median(values):8.1f} µs  (best {min(values):.1f})")
    for one, other in ratios:
        paired = [a / b for a, b in zip(times[one], times[other], strict=True)]
        best = min(times[one]) / min(times[other])
        print(f"  {one + ' / ' + other:42}{statistics.median(paired):6.2f}  (best {best:.2f})")


def compare(options: dict[str, Any], floor: Any, size: str) -> None:
    factory = SessionFactory(options)
    data = json.dumps({**CONTENTS[size], "__kvs_created": time.time()})
    factory.driver.raw_set(ID, data, 300)
    views = {
        "untouched": bare,
        "read": read,
        "change": change,
        "incr": increment,
        "nested": read_nested,
    }
    ours = build(lambda config: config.set_session_factory(factory), views)
    least = build(lambda config: None, floor_views(floor))
    calls = {
        "bare": caller(least, "/bare"),
        "untouched": caller(ours, "/untouched"),
        "floor read": caller(least, "/read"),
        "read": caller(ours, "/read"),
        "floor change": caller(least, "/change"),
        "change": caller(ours, "/change"),
        "incr": caller(ours, "/incr"),
    }
    ratios = [
        ("untouched", "bare"),
        ("read", "floor read"),
        ("change", "floor change"),
        ("incr", "change"),
    ]
    if size != "small":
        blind = SessionFactory(options)
        blind.session_class = Blind
        unseeing = build(lambda config: config.set_session_factory(blind), views)
        calls["read a list"] = caller(ours, "/nested")
        calls["read a list, undetected"] = caller(unseeing, "/nested")
        ratios.append(("read a list", "read a list, undetected"))
    print(f"{options['kvs']}, a {size} session of {len(data)} bytes")
    show(interleave(calls), ratios)


def end_many(server: RedisServer, others: int = 1_000_000, mine: int = 1000) -> None:
    """End 1,000 sessions of one user among a million others."""
    options = {"kvs": "redis", "kvs_kwargs": {"url": server.url}, "ttl": 3600}
    factory = SessionFactory(options)
    for start in range(0, others, 10_000):
        factory.driver.set_many({f"{n:040x}": SMALL for n in range(start, start + 10_000)})
    for _ in range(mine):
        request = Request.blank("/")
        session = factory(request)
        session.update(SMALL)
        session.bind("zoe")
        session.save()
    request = Request.blank("/")
    request.session = factory(request)
    started = time.perf_counter()
    assert len(list_sessions(request, "zoe")) == mine
    listed = time.perf_counter()
    assert end_sessions(request, "zoe") == mine
    ended = time.perf_counter()
    print(f"{mine} sessions of one user, {server.command('DBSIZE')} others: listed in "
          f"{listed - started:.3f} s, ended in {ended - listed:.3f} s")  # fmt: skip


def main(what: str = "redis") -> None:
    if what == "memcache":
        with MemcachedServer() as server:
            for size in CONTENTS:
                compare(
                    {"kvs": "memcache", "kvs_kwargs": {"servers": [server.url]}},
                    MemcacheFloor(server), size,
                )  # fmt: skip
        return
    with RedisServer() as server:
        if what == "users":
            end_many(server)
            return
        for size in CONTENTS:
            compare({"kvs": "redis", "kvs_kwargs": {"url": server.url}}, RedisFloor(server), size)


if __name__ == "__main__":
    main(*sys.argv[1:])

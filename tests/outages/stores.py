"""The stores that a test lets fail, and what the tests ask of each of them."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pyramid_kvs.exceptions import KVSError, KVSUnavailable
from pyramid_kvs.kvs import KVS
from tests.servers import MemcachedServer, PostgresServer, RedisServer, Server

_prefixes = (f"outage{number}::" for number in itertools.count())

KINDS: dict[str, type[Server]] = {
    "redis": RedisServer,
    "memcache": MemcachedServer,
    "postgresql": PostgresServer,
}

#: Seconds that a test allows beyond a promised time, for a slow machine.
SLACK = 0.4

#: Seconds after which a call ends, and after which one knows of a connection that the server is
#: silent.
DEADLINES = {"redis": 1.0, "memcache": 1.0, "postgresql": 2.4}
SILENCES = {"redis": 0.6, "memcache": 0.6, "postgresql": 2.4}

#: PostgreSQL's option, which is shorter here, for the time of the tests: 2 seconds by default.
STATEMENT_TIMEOUT = 1.0


#: The name of the option for the number of connections, and the others that go with it.
SIZES: dict[str, tuple[str, dict[str, Any]]] = {
    "redis": ("max_connections", {}),
    "memcache": ("max_connections", {}),
    "postgresql": ("pool_size", {"max_overflow": 0}),
}


class Store:
    """A driver's name and a server for it, which a test may stop, pause and configure."""

    def __init__(self, kvs: str, server: Server) -> None:
        self.kvs = kvs
        self.server = server
        #: Seconds within which each call ends.
        self.deadline = DEADLINES[kvs]
        #: Seconds that a visitor waits for a server that does not answer.
        self.silence = SILENCES[kvs]

    def kwargs(self, port: int | None = None, host: str | None = None) -> dict[str, Any]:
        """Return the driver's ``kvs_kwargs``, for the server or for a proxy."""
        host, port = host or self.server.host, port or self.server.port
        if self.kvs == "memcache":
            return {"servers": [f"{host}:{port}"]}
        if self.kvs == "postgresql":
            url = f"postgresql://postgres@{host}:{port}/kvs"
            return {"url": url, "statement_timeout": STATEMENT_TIMEOUT}
        return {"host": host, "port": port}

    def options(self, port: int | None = None, **kwargs: Any) -> dict[str, Any]:
        """Return a setting of the application that names the store."""
        return {"kvs": self.kvs, "kvs_kwargs": {**self.kwargs(port), **kwargs}}

    def driver(self, port: int | None = None, host: str | None = None, **kwargs: Any) -> KVS:
        """Return a driver with a new key prefix."""
        return KVS(self.kvs, {**self.kwargs(port, host), **kwargs}, next(_prefixes))

    def pooled(self, size: int, port: int | None = None, **kwargs: Any) -> KVS:
        """Return a driver with at most this number of connections."""
        name, others = SIZES[self.kvs]
        return self.driver(port, **{name: size}, **others, **kwargs)


Call = Callable[[KVS], Any]

#: Calls that need one key, as the features make them.
CALLS: dict[str, Call] = {
    "get": lambda driver: driver.get("key"),
    "set": lambda driver: driver.set("key", "value"),
    "get_many": lambda driver: driver.get_many([f"key{number}" for number in range(9)]),
    "set_many": lambda driver: driver.set_many({f"key{number}": 1 for number in range(9)}),
    "delete_many": lambda driver: driver.delete_many([f"key{number}" for number in range(9)]),
    "incr": lambda driver: driver.incr("count"),
    "add": lambda driver: driver.add("key", "value"),
    "update": lambda driver: driver.update("key", lambda value: [value]),
    "delete": lambda driver: driver.delete("key"),
    "expire": lambda driver: driver.expire("key", 5),
    "load": lambda driver: driver.raw_load("key", 60),
    "ping": lambda driver: driver.ping(),
}

#: Calls that must not change anything on a server that refuses changes.
CHANGES = ("set", "set_many", "incr", "add", "update")


def seconds(call: Callable[[], Any]) -> float:
    """Return how long a call takes, whether it fails as a store may fail or not."""
    started = time.monotonic()
    with contextlib.suppress(KVSUnavailable):
        call()
    return time.monotonic() - started


def outcome(call: Callable[[], Any]) -> Any:
    """Return what a call returns, or the error that it raises."""
    try:
        return call()
    except KVSError as error:
        return error


def at_once(count: int, call: Callable[[int], Any]) -> list[Any]:
    """Return what calls in as many threads return."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(call, range(count)))


def until(condition: Callable[[], Any], limit: float) -> float:
    """Return how long it takes until a condition is true, at most about ``limit`` seconds."""
    started = time.monotonic()
    while not condition() and time.monotonic() - started < limit:
        time.sleep(0.01)
    return time.monotonic() - started


def served(driver: KVS) -> bool:
    """Return whether a call on the driver works now."""
    return not isinstance(outcome(lambda: driver.get("key")), KVSError)

"""What the tests of the redis driver share."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pyramid_kvs.exceptions import KVSUnavailable
from pyramid_kvs.kvs import KVS, Stored
from tests.servers import RedisServer

#: A second, as documented, and one for a busy machine.
SOON = 2.0


@contextlib.contextmanager
def ends_soon() -> Iterator[None]:
    start = time.monotonic()
    yield
    assert time.monotonic() - start < SOON


def driver_of(server: RedisServer, prefix: str = "", **kwargs: Any) -> KVS:
    return KVS("redis", {"host": server.host, "port": server.port, **kwargs}, key_prefix=prefix)


def pool_of(driver: KVS) -> Any:
    return driver._transport.pool


def operations(driver: KVS) -> dict[str, Callable[[], Any]]:
    return {
        "get": lambda: driver.get("key"),
        "set": lambda: driver.set("key", 1),
        "add": lambda: driver.add("key", 1),
        "delete": lambda: driver.delete("key"),
        "get_many": lambda: driver.get_many(["key", "other"]),
        "set_many": lambda: driver.set_many({"key": 1, "other": 2}),
        "delete_many": lambda: driver.delete_many(["key"]),
        "incr": lambda: driver.incr("count"),
        "ttl_of": lambda: driver.ttl_of("key"),
        "expire": lambda: driver.expire("key", 9),
        "persist": lambda: driver.raw_expire("key", None),
        "update": lambda: driver.update("key", lambda value: 1),
        "load": lambda: driver.raw_load("key", renew=9),
        "swap": lambda: driver.raw_swap("swapped", None, "1", 9),
        "get_keys": lambda: driver.get_keys(),
        "flush": lambda: driver.flush(),
    }


def unavailable(operation: Callable[[], Any]) -> KVSUnavailable:
    with pytest.raises(KVSUnavailable) as raised, ends_soon():
        operation()
    return raised.value


def failure(operation: Callable[[], Any]) -> Exception | None:
    try:
        operation()
    except KVSUnavailable as error:
        return error
    return None


@contextlib.contextmanager
def holding(driver: KVS, count: int) -> Iterator[list[Any]]:
    """Open several connections at once, so that several are idle afterwards."""
    connections = [pool_of(driver).take() for _ in range(count)]
    for connection in connections:
        pool_of(driver).give(connection)
    yield connections


def clients(server: RedisServer) -> int:
    """Return how many are connected, including that of the test."""
    return int(server.command("INFO", "clients")["connected_clients"])


def kill_clients(server: RedisServer) -> None:
    """Close all connections except that of the test."""
    server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def kill_unnoticed(server: RedisServer, driver: KVS) -> None:
    """Close three idle connections, which look as if they had been used just now."""
    with holding(driver, 3) as connections:
        kill_clients(server)
    for connection in connections:
        connection.used_at = time.monotonic() + 60


def works(driver: KVS) -> bool:
    driver.set("key", {"a": [1]})
    driver.incr("count")
    driver.update("key", lambda value: {**value, "b": "é"})
    assert driver.raw_load("key", renew=9) == Stored(b'{"a": [1], "b": "\\u00e9"}')
    assert driver.get_many(["key", "none"]) == {"key": {"a": [1], "b": "é"}}
    driver.set_many({"x": 1, "y": 2})
    assert sorted(driver.get_keys()) == ["count", "key", "x", "y"]
    assert driver.delete("count") == 1
    driver.flush()
    driver.close()
    return driver.ping()


class SentinelServer(RedisServer):
    """A sentinel that watches one server. It keeps its state in its configuration file."""

    def __init__(self, watched: RedisServer, version: str = "") -> None:
        super().__init__(version=version)
        self.watched = watched

    def arguments(self) -> list[str]:
        config = self.directory / "sentinel.conf"
        config.write_text(
            f"sentinel monitor main {self.watched.host} {self.watched.port} 1\n"
            f"port {self.port}\nbind {self.host}\nunixsocket {self.socket_path}\n"
        )
        config.chmod(0o666)
        return [str(config), "--sentinel"]

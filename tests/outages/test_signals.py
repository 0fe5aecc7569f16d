"""A timeout holds while signals arrive.

A handled signal ends the system call that waits, and Python calls it again. A timeout that the
kernel counts for each system call would begin again each time, and never end.
"""

from __future__ import annotations

import contextlib
import functools
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis
from redis._parsers import _RESP2Parser

from pyramid_kvs.exceptions import KVSUnavailable
from pyramid_kvs.kvs import KVS
from tests.outages.proxies import Proxy, dead_port
from tests.outages.stores import SLACK, Store, seconds, until
from tests.servers import (
    LOOPBACK,
    MemcachedServer,
    RedisCluster,
    RedisSentinel,
    RedisServer,
    certificate,
    free_port,
)

#: The seconds between two signals, and after how many of them they stop, so that a call that would
#: never end fails the test.
INTERVAL, MOST = 0.1, 25

#: The timeouts of redis and memcached in these tests, and the seconds within which a call ends.
SHORT = {"socket_connect_timeout": 0.3, "socket_timeout": 0.3, "breaker": 0}
DEADLINE = 0.6

#: The options of each driver, and the seconds within which a call on an open connection ends.
FAST: dict[str, tuple[dict[str, Any], float]] = {
    "redis": (SHORT, DEADLINE),
    "memcache": (SHORT, DEADLINE),
    "postgresql": ({"statement_timeout": 0.3, "pool_timeout": 0.2, "breaker": 0}, 0.9),
}

#: More than the buffers of the system hold.
LARGE = b"x" * 20_000_000

Drivers = Callable[..., KVS]


@contextlib.contextmanager
def signals() -> Iterator[None]:
    """Have the process handle signals; check that several came."""
    received = []

    def handle(*args: object) -> None:
        received.append(args)
        if len(received) == MOST:
            signal.setitimer(signal.ITIMER_REAL, 0)

    previous = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, INTERVAL, INTERVAL)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert len(received) > 1


def assert_ends(call: Callable[[], Any], deadline: float = DEADLINE) -> None:
    """Check that a call fails in time although signals arrive."""

    def failing() -> None:
        with pytest.raises(KVSUnavailable):
            call()

    with signals():
        assert seconds(failing) < deadline + SLACK


# -- redis -----------------------------------------------------------------------------------


def python_parser(port: int) -> dict[str, Any]:
    """Return options of connections without hiredis."""
    pool = redis.ConnectionPool(host=LOOPBACK, port=port, parser_class=_RESP2Parser, **SOCKET)
    return {"connection_pool": pool}


SOCKET = {name: value for name, value in SHORT.items() if name.startswith("socket")}

#: Ways to talk to redis, by the port: with hiredis at the socket, or by redis-py's layers.
WAYS: dict[str, Callable[[int], dict[str, Any]]] = {
    "hiredis": lambda port: {"host": LOOPBACK, "port": port, **SOCKET},
    "python": python_parser,
    "resp3": lambda port: {"host": LOOPBACK, "port": port, "protocol": 3, **SOCKET},
    "tls": lambda port: {"url": f"rediss://localhost:{port}/0", **SOCKET},
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(way: str, tmp_path: Path, own_redis: Callable[..., RedisServer]) -> Any:
    """A redis, and ``port``, which is with TLS if the way is."""
    if way != "tls":
        return own_redis()
    folder, port = certificate(tmp_path), free_port()
    files = ["--tls-cert-file", f"{folder}/cert.pem", "--tls-key-file", f"{folder}/key.pem"]
    files += ["--tls-ca-cert-file", f"{folder}/cert.pem", "--tls-auth-clients", "no"]
    server = own_redis("--tls-port", str(port), *files)
    server.tls_port = port
    return server


@pytest.fixture
def proxy(server: Any) -> Iterator[Proxy]:
    with Proxy(getattr(server, "tls_port", server.port)) as proxy:
        yield proxy


@pytest.fixture
def driver(way: str, tmp_path: Path, proxy: Proxy) -> Drivers:
    """Return what makes drivers that reach the server through the proxy."""
    trust = {"ssl_ca_certs": str(tmp_path / "cert.pem")} if way == "tls" else {}

    def make() -> KVS:
        return KVS("redis", {**WAYS[way](proxy.port), **trust, "breaker": 0}, "signals::")

    return make


def test_redis_is_silent(driver: Drivers, server: RedisServer) -> None:
    known, new = driver(), driver()
    known.get("key")
    server.pause()
    assert_ends(lambda: known.get("key"))
    assert_ends(lambda: known.get_many(["key", "other"]))
    assert_ends(lambda: new.get("key"))


def test_redis_stops_within_a_reply(driver: Drivers, proxy: Proxy) -> None:
    known = driver()
    known.set("key", "x" * 1000)
    known.get("key")
    proxy.most = 9
    assert_ends(lambda: known.get("key"))


def test_redis_does_not_read(driver: Drivers, proxy: Proxy) -> None:
    known = driver()
    known.get("key")
    proxy.is_reading = False
    assert_ends(lambda: known.raw_set("key", LARGE, 60))


def test_a_unix_socket_of_redis(own_redis: Callable[..., RedisServer]) -> None:
    server = own_redis()
    options = {"unix_socket_path": server.socket_path, **SHORT}
    known, new = KVS("redis", options), KVS("redis", options)
    known.get("key")
    server.pause()
    assert_ends(lambda: known.get("key"))
    assert_ends(lambda: known.raw_set("key", LARGE, 60))
    assert_ends(lambda: new.get("key"))


def test_a_cluster_of_redis(own_redis_cluster: Callable[..., RedisCluster]) -> None:
    cluster = own_redis_cluster(replicas=0)
    options = {"url": cluster.url, **SHORT}
    known, new = KVS("redis", options), KVS("redis", options)
    keys = [f"key{number}" for number in range(20)]
    known.get_many(keys)
    for node in cluster.nodes:
        node.pause()
    assert_ends(lambda: known.get("key"))
    assert_ends(lambda: known.get_many(keys))
    assert_ends(lambda: known.raw_set("key", LARGE, 60))
    assert_ends(lambda: new.get("key"))


def test_sentinels_of_redis(own_redis_sentinel: Callable[..., RedisSentinel]) -> None:
    group = own_redis_sentinel(replicas=0, sentinels=2)
    options = {"url": group.url, **SHORT}
    known, new = KVS("redis", options), KVS("redis", options)
    known.get("key")
    for server in (*group.servers, *group.sentinels):
        server.pause()
    assert_ends(lambda: known.get("key"))
    assert_ends(lambda: new.get("key"))


# -- memcached -------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2])
def test_memcached(count: int, own_memcached: Callable[..., MemcachedServer]) -> None:
    servers = [own_memcached() for _ in range(count)]
    options = {"servers": [server.url for server in servers], **SHORT}
    known, new = KVS("memcache", options), KVS("memcache", options)
    keys = [f"key{number}" for number in range(40)]
    known.get_many(keys)
    for server in servers:
        server.pause()
    assert_ends(lambda: known.get("key"))
    assert_ends(lambda: known.get_many(keys))
    assert_ends(lambda: known.set_many(dict.fromkeys(keys, "x" * 1_000_000)))
    assert_ends(lambda: new.get("key"))


def test_a_unix_socket_of_memcached(own_memcached: Callable[..., MemcachedServer]) -> None:
    server = own_memcached(unix=True)
    options = {"servers": [server.url], **SHORT}
    known, new = KVS("memcache", options), KVS("memcache", options)
    known.get("key")
    server.pause()
    assert_ends(lambda: known.get("key"))
    assert_ends(lambda: known.set("key", "x" * 1_000_000))
    assert_ends(lambda: new.get("key"))


# -- each driver -----------------------------------------------------------------------------


def test_a_server_that_falls_silent(frail: Store) -> None:
    options, deadline = FAST[frail.kvs]
    known, new = frail.driver(**options), frail.driver()
    known.get("key")
    frail.server.pause()
    assert_ends(lambda: known.get("key"), deadline)
    assert_ends(lambda: new.get("key"), frail.deadline)


def test_a_network_that_falls_silent(frail: Store) -> None:
    with dead_port() as port:
        new = frail.driver(port)
        assert_ends(lambda: new.get("key"), frail.deadline)


def test_a_reply_of_which_only_a_part_comes(frail: Store) -> None:
    options, deadline = FAST[frail.kvs]
    with Proxy(frail.server.port) as proxy:
        known = frail.driver(proxy.port, **options)
        known.set("key", "x" * 1000)
        proxy.most = 9
        assert_ends(lambda: known.get("key"), deadline)


def test_a_server_that_does_not_read(frail: Store) -> None:
    """More is sent than the buffers of the system hold."""
    options, deadline = FAST[frail.kvs]
    values = {f"key{number}": "x" * 900_000 for number in range(25)}
    with Proxy(frail.server.port) as proxy:
        known = frail.driver(proxy.port, **options)
        known.get("key")
        proxy.is_reading = False
        assert_ends(lambda: known.set_many(values), deadline)


def test_no_connection_is_free(frail: Store) -> None:
    with Proxy(frail.server.port) as proxy, ThreadPoolExecutor(1) as pool:
        driver = frail.pooled(1, proxy.port)
        driver.set("busy", 1)
        proxy.delay = frail.deadline
        busy = pool.submit(functools.partial(seconds, lambda: driver.get("busy")))
        assert until(lambda: driver.connection_pools()[0].counts().in_use, 5) < 5
        assert_ends(lambda: driver.get("busy"), 0.5)
        busy.result()

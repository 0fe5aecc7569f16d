"""Connections that die, hang or are all in use."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from pyramid_kvs.drivers.redis import pack
from pyramid_kvs.exceptions import KVSUnavailable
from pyramid_kvs.kvs import KVS
from tests.drivers.redis.support import (
    clients,
    driver_of,
    ends_soon,
    failure,
    holding,
    kill_unnoticed,
    operations,
    pool_of,
    unavailable,
)
from tests.servers import RedisServer, wait_until


def test_server_dies_and_returns(own_redis):
    server = own_redis()
    driver = driver_of(server)
    driver.set("key", 1)
    server.kill()
    for operation in operations(driver).values():
        error = unavailable(operation)
        assert isinstance(error.__cause__, redis.RedisError)
        assert f"{server.host}:{server.port}" in str(error)
    assert driver.ping() is False
    server.start()
    assert driver.incr("count") == 1
    assert driver.get("key") is None


def test_server_hangs_and_returns(own_redis):
    """One timeout, on an idle connection and on a new one. Nothing is sent a second time."""
    server = own_redis()
    driver, fresh = driver_of(server, breaker=0), driver_of(server)
    driver.set("key", 1)
    server.pause()
    for operation in (
        lambda: driver.get("key"),
        lambda: driver.get("key"),
        lambda: driver.incr("count"),
        lambda: fresh.get("key"),
    ):
        assert isinstance(unavailable(operation).__cause__, redis.TimeoutError)
    with ends_soon():
        assert driver.ping() is False
    server.resume()
    assert driver.get("key") == 1
    wait_until(lambda: failure(lambda: fresh.get("key")) is None, "the end of the second", 2)


def test_hung_unix_socket(own_redis):
    """redis-py 5 and 6 lose the timeouts of unix sockets on the way."""
    server = own_redis()
    driver = KVS("redis", {"unix_socket_path": server.socket_path, "breaker": 0})
    driver.set("key", 1)
    server.pause()
    unavailable(lambda: driver.get("key"))
    unavailable(lambda: KVS("redis", {"url": f"unix://{server.socket_path}"}).get("key"))
    server.resume()
    assert driver.get("key") == 1


def test_app_starts_while_the_server_is_down(own_redis):
    server = own_redis()
    server.stop()
    driver = driver_of(server)
    unavailable(lambda: driver.get("key"))
    server.start()
    driver.set("key", 1)
    assert driver.get("key") == 1


def test_restart_fails_no_call(own_redis):
    """An idle connection is checked before a call that must not run twice uses it."""
    server = own_redis()
    driver = driver_of(server, socket_connect_timeout=10, socket_timeout=10)
    for operation in operations(driver).values():
        driver.set("key", 1)
        with holding(driver, 3):
            server.restart()
        operation()


def test_dead_connection_is_replaced_once(driver, server):
    driver.set("key", 1)
    kill_unnoticed(server, driver)
    assert driver.get("key") == 1
    assert driver.incr("count") == 1  # the other idle ones were dead as well, and are closed


def test_counter_is_not_sent_twice(driver, server):
    driver.incr("count")
    kill_unnoticed(server, driver)
    unavailable(lambda: driver.incr("count"))
    assert driver.incr("count") == 2


def test_stray_data_is_noticed(driver, server):
    """A connection on which a reply waits that nobody asked for is not used again."""
    driver.set("a", "A")
    connection = pool_of(driver).take()
    connection._connection.send_packed_command((pack(b"GET", b"a"),), False)
    wait_until(lambda: not connection.is_alive(), "reply")
    pool_of(driver).give(connection)
    connection.used_at -= 1
    assert driver.get("b") is None


def test_pool_exhausted(own_redis):
    server = own_redis()
    driver = driver_of(server, max_connections=1, socket_timeout=10)
    driver.set("key", 1)
    server.pause()
    errors: list[Any] = []
    thread = threading.Thread(target=lambda: errors.append(driver.get("key")))
    thread.start()
    try:
        wait_until(lambda: not pool_of(driver).counts().idle, "a call under way")
        assert "all 1 connections" in str(unavailable(lambda: driver.get("key")))
    finally:
        server.resume()
        thread.join()
    assert errors == [1]
    assert driver.get("key") == 1


def gets_sent(server: RedisServer, query: str = "", **kwargs: Any) -> int:
    """Return how often a get goes to a server that hangs."""
    url = f"redis://{server.host}:{server.port}{query}"
    driver = KVS("redis", {"url": url, "socket_timeout": 0.1, **kwargs})
    driver.ping()
    server.reset_calls()
    server.pause()
    try:
        with pytest.raises(KVSUnavailable):
            driver.get("key")
    finally:
        server.resume()
    return server.calls().get("get", 0)


def test_a_timeout_is_not_repeated(own_redis):
    assert gets_sent(own_redis()) == 1


@pytest.mark.filterwarnings("ignore:.*retry_on_timeout.*:DeprecationWarning")
def test_repeats_as_configured(own_redis):
    """On new connections, the repeated gets do not get past the handshake."""
    server = own_redis()
    for kwargs in (
        {"retry": Retry(NoBackoff(), 2)},
        {"retry_on_timeout": True},
        {"query": "?retry_on_timeout=true"},
    ):
        start = time.monotonic()
        assert gets_sent(server, **kwargs) >= 1
        assert time.monotonic() - start > 0.19


def test_close_and_go_on(own_redis):
    server = own_redis()
    driver = driver_of(server)
    driver.set("key", 1)
    driver._client.set("other", 1)
    assert clients(server) == 3
    driver.close()
    wait_until(lambda: clients(server) == 1, "end of connections")
    assert driver.get("key") == 1


@pytest.mark.parametrize("is_full", [False, True], ids=["fills", "is full"])
def test_a_send_buffer_that_fills(own_redis, is_full):
    """What the system does not take at once follows when the server reads again."""
    server = own_redis()
    driver = KVS("redis", {"unix_socket_path": server.socket_path, "socket_timeout": 20})
    driver.set("key", 1)
    with holding(driver, 1) as (connection,):
        raw = connection._connection._sock
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # the system takes its least
    server.pause()
    if is_full:
        with suppress(BlockingIOError):
            while True:
                os.write(raw.fileno(), b"\r\n" * 100)  # redis ignores an empty command
    resumes = threading.Timer(0.3, server.resume)
    resumes.start()
    driver.set("key", "v" * 15_000)
    resumes.join()
    assert driver.get("key") == "v" * 15_000
    assert server.command("INFO", "stats")["total_connections_received"] == 2

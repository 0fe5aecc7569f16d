"""The redis driver beyond the conformance suite: its bytes, round trips, faults and connections."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from pyramid_kvs.drivers.redis import Script, pack
from pyramid_kvs.exceptions import (
    KVSError,
    KVSNotSupported,
    KVSUnavailable,
    ValueTooLarge,
)
from pyramid_kvs.kvs import KVS, Stored
from tests.servers import RedisServer, free_port, need, wait_until

#: The documented second, and one for a busy machine.
SOON = 2.0

Start = Callable[..., RedisServer]


@contextlib.contextmanager
def ends_soon() -> Iterator[None]:
    start = time.monotonic()
    yield
    assert time.monotonic() - start < SOON


def driver_of(server: RedisServer, prefix: str = "", **kwargs: Any) -> KVS:
    return KVS("redis", {"host": server.host, "port": server.port, **kwargs}, key_prefix=prefix)


def pool_of(driver: KVS) -> Any:
    return driver._transport.pool


@pytest.fixture
def server(redis_server: RedisServer) -> RedisServer:
    return redis_server


@pytest.fixture
def driver(server: RedisServer) -> Iterator[KVS]:
    driver = driver_of(server)
    driver.ping()
    server.reset_calls()
    yield driver
    driver.close()


# -- what is stored --------------------------------------------------------------------------


def test_stores_the_codecs_bytes(driver, server):
    value = {"é": [1, 2.5, None], "a": "b"}
    driver.set("key", value)
    assert server.command("GET", "key") == json.dumps(value).encode()


def test_stores_under_prefix_and_key(server):
    driver_of(server, "pré::").set("kéy", 1)
    assert server.command("KEYS", "*") == ["pré::kéy".encode()]


@pytest.mark.parametrize(
    ("ttl", "left"),
    [(None, 300_000), (7, 7000), (1.5, 1500), (12.3456, 12_346), (40 * 86400, 40 * 86_400_000)],
)
def test_ttl_in_milliseconds(driver, server, ttl, left):
    driver.set("key", 1, ttl)
    assert left - 5000 < server.command("PTTL", "key") <= left


def test_tiny_ttl_is_a_millisecond(driver, server):
    driver.set("key", 1, 1e-9)
    assert server.command("PTTL", "key") <= 1
    wait_until(lambda: driver.get("key") is None, "expiry")


@pytest.mark.parametrize("ttl", [10**12, 1e300, float("inf")])
def test_huge_ttl(driver, ttl):
    """What exceeds redis' clock becomes the longest time that it takes."""
    driver.set("key", 1, ttl)
    driver.add("added", 1, ttl)
    driver.incr("count", ttl=ttl)
    driver.raw_swap("swapped", None, "1", ttl)
    driver.set("old", 1, 5)
    driver.raw_load("old", renew=ttl)
    driver.set("expiring", 1, 5)
    driver.expire("expiring", ttl)
    for key in ("key", "added", "count", "swapped", "old", "expiring"):
        assert driver.ttl_of(key) > 10**11


def test_no_ttl(server):
    driver = KVS("redis", {"port": server.port}, ttl=None)
    driver.set("key", 1)
    driver.incr("count")
    driver.set_many({"many": 1})
    for key in ("key", "count", "many"):
        assert server.command("PTTL", key) == -1


def test_counters_beyond_lua_numbers(driver):
    """A Lua number would round these."""
    assert driver.incr("count", 2**53 + 1) == 2**53 + 1
    assert driver.incr("count") == 2**53 + 2
    assert driver.decr("low", 2**53 + 1) == -(2**53) - 1


def test_counter_overflow(driver):
    driver.incr("count", 2**63 - 1)
    with pytest.raises(KVSError):
        driver.incr("count")
    assert driver.get("count") == 2**63 - 1


def test_data_of_any_codec(driver):
    for data in (b"", b"\0\xff\r\n$5\r\n", b"x" * 3_000_000, "é\ud800"):
        driver.raw_set("key", data, 10)
        expected = data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass")
        assert driver.raw_get("key") == expected


def test_swap_compares_bytes(driver):
    driver.raw_set("key", b"", 10)
    assert driver.raw_swap("key", None, b"new", 10) == (False, Stored(b""))
    assert driver.raw_swap("key", Stored("\0"), b"new", 10) == (False, Stored(b""))
    assert driver.raw_swap("key", Stored(""), b"new", 10).done
    assert driver.raw_swap("key", Stored(b"new"), b"", None).done
    assert driver.raw_get("key") == b""
    assert driver.ttl_of("key") < 0


def test_swap_of_absent(driver):
    assert driver.raw_swap("key", Stored(b"1"), b"2", 10) == (False, None)
    assert driver.raw_swap("key", None, None, 10).done
    assert driver.raw_get("key") is None


# -- keys ------------------------------------------------------------------------------------


def test_prefix_is_literal(server):
    for prefix in (r"a[bc]\d*?^-", "*", "[", "\\"):
        driver = driver_of(server, prefix)
        server.clear()
        server.command("MSET", "ab", 1, "a[bc]", 1, "xyz", 1, "a[bc]\\dXX^-1", 1)
        before = server.command("DBSIZE")
        driver.set_many({"one": 1, "two": 2})
        assert sorted(driver.get_keys()) == ["one", "two"]
        driver.flush()
        assert server.command("DBSIZE") == before


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("?", ["a", "鍵", "^"]),
        ("[a]", ["[a]"]),
        ("\\*", ["\\a"]),
        ("^*", ["^"]),
        ("*]", ["[a]"]),
        ("**?**?**", ["[a]", "\\a", "a\nb"]),
        ("a?b", ["a\nb"]),
        ("nothing", []),
    ],
)
def test_pattern(driver, pattern, found):
    driver.set_many(dict.fromkeys(["a", "鍵", "[a]", "\\a", "^", "a\nb"], 1))
    assert sorted(driver.get_keys(pattern)) == sorted(found)


def test_keys_that_are_no_text(server):
    """Other programs' keys under the prefix are not listed, but flushed."""
    driver = driver_of(server, "p:")
    server.command("SET", b"p:\xff", 1)
    assert driver.get_keys() == []
    driver.flush()
    assert server.command("DBSIZE") == 0


def test_many_keys(driver, server):
    keys = {f"k{number}": number for number in range(12_000)}
    driver.set_many(keys)
    assert driver.get_many(keys) == keys
    assert sorted(driver.get_keys()) == sorted(keys)
    driver.delete_many(list(keys)[:6000])
    assert server.command("DBSIZE") == 6000
    driver.flush()
    assert server.command("DBSIZE") == 0


def test_no_command_blocks_the_server(driver, server):
    driver.set_many({f"k{number}": number for number in range(50)})
    server.reset_calls()
    driver.get_keys("k1*")
    driver.flush()
    assert set(server.calls()) == {"scan", "unlink"}


# -- round trips -----------------------------------------------------------------------------


def test_commands(driver, server):
    """One command for each operation; those within a script cost no round trip."""
    driver.set("key", 1)
    for operation, expected in [
        (lambda: driver.get("key"), {"get": 1}),
        (lambda: driver.get("missing"), {"get": 1}),
        (lambda: driver.set("key", 1), {"set": 1}),
        (lambda: driver.add("key", 1), {"set": 1}),
        (lambda: driver.delete("other"), {"getdel": 1}),
        (lambda: driver.get_many(map(str, range(100))), {"mget": 1}),
        (lambda: driver.delete_many(map(str, range(100))), {"unlink": 1}),
        (lambda: driver.raw_load("key", renew=9), {"getex": 1}),
        (lambda: driver.raw_load_many(["key", "b"]), {"mget": 1}),
        (lambda: driver.ttl_of("key"), {"pttl": 1}),
        (lambda: driver.expire("key", 9), {"pexpire": 1}),
    ]:
        server.reset_calls()
        operation()
        assert server.calls() == expected


def test_scripts_are_one_call(driver, server):
    driver.incr("count")
    driver.update("key", lambda value: 1)
    for operation, inside in [
        (lambda: driver.incr("count"), {"incrby": 1, "pttl": 1}),
        (lambda: driver.incr("count2"), {"incrby": 1, "pttl": 1, "pexpire": 1}),
        (lambda: driver.raw_swap("key", Stored(b"1"), b"2", 9), {"get": 1, "set": 1}),
        (lambda: driver.raw_swap("key", Stored(b"9"), b"2", 9), {"get": 1}),
        (lambda: driver.raw_swap("key", Stored(b"2"), None, 9), {"get": 1, "del": 1}),
    ]:
        server.reset_calls()
        operation()
        assert server.calls() == {"evalsha": 1, **inside}


def test_set_many_is_one_send(driver, server):
    """The server reads all 100 commands at once, and the driver then reads all replies."""
    reads = server.command("INFO", "stats")["total_reads_processed"]
    driver.set_many({str(number): number for number in range(100)})
    assert server.calls()["set"] == 100
    between = server.command("INFO", "stats")["total_reads_processed"] - reads
    assert between <= 1 + 2 + 2  # ours, those of calls() and of the two INFO
    assert driver.get("99") == 99


def test_update_without_conflict_is_two(driver, server):
    driver.update("key", lambda value: 1)
    server.reset_calls()
    driver.update("key", lambda value: value + 1)
    assert server.calls() == {"get": 2, "evalsha": 1, "set": 1}  # one get is the script's


def test_lost_script_is_sent_again(driver, server):
    assert driver.incr("count") == 1
    server.command("SCRIPT", "FLUSH")
    assert driver.incr("count") == 2
    server.reset_calls()
    assert driver.incr("count") == 3
    assert "eval" not in server.calls()


def test_own_script(driver):
    script = Script("return {KEYS[1], ARGV[1], 7, false}")
    assert driver.run_script(script, [b"key"], [b"\r\n"]) == [b"key", b"\r\n", 7, None]


def test_no_connection_before_use(server):
    server.command("PING")
    received = server.command("INFO", "stats")["total_connections_received"]
    driver_of(server)
    assert server.command("INFO", "stats")["total_connections_received"] == received


# -- faults ----------------------------------------------------------------------------------


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
    """One time-out, on a free connection and on a new one; nothing is sent a second time."""
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
    """redis-py 5 and 6 lose the time-outs of unix sockets on the way."""
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
    """A free connection is looked at, so that what may not run twice does not meet a dead one."""
    server = own_redis()
    driver = driver_of(server)
    for operation in operations(driver).values():
        driver.set("key", 1)
        with holding(driver, 3):
            server.restart()
        operation()


@contextlib.contextmanager
def holding(driver: KVS, count: int) -> Iterator[list[Any]]:
    """Open several connections at once, so that several are free afterwards."""
    connections = [pool_of(driver).take() for _ in range(count)]
    for connection in connections:
        pool_of(driver).give(connection)
    yield connections


def clients(server: RedisServer) -> int:
    """Return how many are connected, the test's own included."""
    return int(server.command("INFO", "clients")["connected_clients"])


def kill_clients(server: RedisServer) -> None:
    """Close all connections but the test's own."""
    server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def kill_unnoticed(server: RedisServer, driver: KVS) -> None:
    """Close three free connections, which look as if they had been used just now."""
    with holding(driver, 3) as connections:
        kill_clients(server)
    for connection in connections:
        connection.used_at = time.monotonic() + 60


def test_dead_connection_is_replaced_once(driver, server):
    driver.set("key", 1)
    kill_unnoticed(server, driver)
    assert driver.get("key") == 1
    assert driver.incr("count") == 1  # the other free ones were dead as well, and are gone


def test_counter_is_not_sent_twice(driver, server):
    driver.incr("count")
    kill_unnoticed(server, driver)
    unavailable(lambda: driver.incr("count"))
    assert driver.incr("count") == 2


def test_stray_data_is_noticed(driver, server):
    """A connection that holds a reply nobody waits for is not used again."""
    driver.set("a", "A")
    connection = pool_of(driver).take()
    connection._connection.send_packed_command((pack(b"GET", b"a"),), False)
    wait_until(lambda: not connection.is_alive(), "reply")
    pool_of(driver).give(connection)
    connection.used_at -= 1
    assert driver.get("b") is None


def test_replica_without_its_master(own_redis):
    server = own_redis("--replica-serve-stale-data", "no")
    driver = driver_of(server)
    driver.set("key", 1)
    server.command("REPLICAOF", "127.0.0.1", str(free_port()))
    assert "MASTER is down" in str(unavailable(lambda: driver.get("key")))
    server.command("REPLICAOF", "NO", "ONE")
    assert driver.get("key") == 1


def test_replica(own_redis):
    server = own_redis()
    driver = driver_of(server)
    driver.set("key", 1)
    driver.incr("count")
    server.command("REPLICAOF", "127.0.0.1", str(free_port()))
    for operation in ("set", "set_many", "incr", "swap", "load"):
        error = unavailable(operations(driver)[operation])
        assert "read only replica" in str(error)
        assert error.__cause__ is not None
        assert pool_of(driver).counts().idle == 0  # the next connection may lead to another server
    assert driver.get("key") == 1
    server.command("REPLICAOF", "NO", "ONE")
    assert driver.incr("count") == 2


def test_too_few_replicas(own_redis):
    server = own_redis("--min-replicas-to-write", "1")
    error = unavailable(lambda: driver_of(server).set("key", 1))
    assert "NOREPLICAS" in str(error)


def test_out_of_memory(own_redis):
    server = own_redis()
    driver = driver_of(server)
    driver.incr("count")
    server.command("CONFIG", "SET", "maxmemory", 1)
    for operation in ("set", "add", "set_many", "incr", "swap"):
        assert "maxmemory" in str(unavailable(operations(driver)[operation]))
    assert driver.get("count") == 1
    server.command("CONFIG", "SET", "maxmemory", 0)
    assert driver.incr("count") == 2


def test_cannot_save(own_redis):
    """Redis takes no writes while its snapshots fail: here a directory is in their way."""
    server = own_redis()
    driver = driver_of(server)
    driver.set("key", 1)
    (server.directory / "dump.rdb" / "in the way").mkdir(parents=True)
    server.command("CONFIG", "SET", "save", "3600 1")
    server.command("BGSAVE")
    wait_until(lambda: "MISCONF" in str(failure(lambda: driver.set("key", 2))), "MISCONF")
    assert "MISCONF" in str(unavailable(lambda: driver.incr("count")))
    assert driver.get("key") in (1, 2)
    server.kill()  # asked to stop, it would insist on a snapshot


def test_busy_with_a_script(own_redis):
    server = own_redis("--lua-time-limit", "10")
    driver = driver_of(server)
    driver.ping()
    endless = redis.Redis(server.host, server.port, socket_timeout=30, retry=Retry(NoBackoff(), 0))

    def run() -> None:
        with pytest.raises(redis.ResponseError):
            endless.eval("while true do end", 0)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        wait_until(lambda: "BUSY" in str(failure(lambda: driver.get("key"))), "BUSY")
    finally:
        server.command("SCRIPT", "KILL")
        thread.join()
    assert driver.get("key") is None


def test_loading(own_redis):
    """While redis reads its data back after a start."""
    server = own_redis("--enable-debug-command", "yes")
    driver = driver_of(server)
    driver.set_many({str(number): "x" * 100 for number in range(2000)}, 1000)
    for name, value in {
        "key-load-delay": 1000,
        "loading-process-events-interval-bytes": 1024,
    }.items():
        server.command("CONFIG", "SET", name, value)
    loader = redis.Redis(server.host, server.port, socket_timeout=30, retry=Retry(NoBackoff(), 0))
    thread = threading.Thread(target=lambda: loader.execute_command("DEBUG", "RELOAD"))
    thread.start()
    try:
        wait_until(lambda: "loading" in str(failure(lambda: driver.get("1"))), "LOADING")
    finally:
        thread.join()
    assert driver.get("1") == "x" * 100


def test_server_is_full(own_redis):
    server = own_redis("--maxclients", "2")
    first, second = driver_of(server), driver_of(server)
    server.command("PING")
    first.set("key", 1)
    assert "max number of clients" in str(unavailable(lambda: second.get("key")))
    first.close()
    wait_until(second.ping, "room for a client")
    assert second.get("key") == 1


def test_wrong_type(driver, server):
    """A refusal for good; the connection stays."""
    server.command("LPUSH", "list", "x")
    server.reset_calls()
    for operation in (
        lambda: driver.get("list"),
        lambda: driver.delete("list"),
        lambda: driver.incr("list"),
        lambda: driver.raw_swap("list", None, "1", 9),
    ):
        with pytest.raises(KVSError, match="WRONGTYPE") as raised:
            operation()
        assert type(raised.value) is KVSError
        assert isinstance(raised.value.__cause__, redis.ResponseError)
    driver.set("key", 1)
    assert not any(name.startswith(("client", "hello")) for name in server.calls())


def test_counter_on_text(driver):
    driver.set("key", "text")
    with pytest.raises(KVSError, match="not an integer") as raised:
        driver.incr("key")
    assert type(raised.value) is KVSError
    assert driver.get("key") == "text"


def test_errors_in_a_batch(own_redis):
    """All replies are read before the first error is raised."""
    server = own_redis("--maxmemory-policy", "noeviction")
    driver = driver_of(server)
    driver.set("key", 1)
    server.command("CONFIG", "SET", "maxmemory", 1)
    with pytest.raises(KVSUnavailable, match="maxmemory"):
        driver.set_many({str(number): number for number in range(50)})
    assert driver.get("key") == 1
    server.command("CONFIG", "SET", "maxmemory", 0)
    assert driver.get_many(["key", "1"]) == {"key": 1}


@pytest.mark.parametrize("protocol", [2, 3])
def test_value_too_large(own_redis, protocol):
    server = own_redis("--proto-max-bulk-len", "1mb")
    driver = driver_of(server, protocol=protocol, socket_timeout=5)
    large = "x" * 1_500_000
    for operation in (
        lambda: driver.set("key", large),
        lambda: driver.add("key", large),
        lambda: driver.set_many({"key": large}),
        lambda: driver.raw_swap("key", None, large, 9),
    ):
        with pytest.raises(ValueTooLarge, match="1048576"):
            operation()
    driver.set("key", "small")
    assert driver.get("key") == "small"


def test_old_server(own_redis):
    """The server's message quotes the key, which goes no further."""
    server = own_redis("--rename-command", "GETEX", "")
    driver = driver_of(server)
    with pytest.raises(KVSNotSupported, match=r"Redis 6\.2") as raised:
        driver.raw_load("secret-id", renew=9)
    assert "secret-id" not in str(raised.value)
    assert "secret-id" not in str(raised.value.__cause__)


def test_cluster(own_redis):
    """A node is refused at the first connection, even if it has all keys."""
    server = own_redis("--cluster-enabled", "yes")
    with pytest.raises(KVSNotSupported, match=r"redis\+cluster://"):
        driver_of(server).get("key")
    server.command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    for kwargs in ({}, {"protocol": 3}, {"db": 1}):
        with pytest.raises(KVSNotSupported, match=r"redis\+cluster://"):
            driver_of(server, **kwargs).incr("count")


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


# -- retries as kvs_kwargs say ---------------------------------------------------------------


def gets_sent(server: RedisServer, **kwargs: Any) -> int:
    """Return how often a get goes to a server that hangs."""
    driver = driver_of(server, socket_timeout=0.1, **kwargs)
    driver.ping()
    server.reset_calls()
    server.pause()
    try:
        with pytest.raises(KVSUnavailable):
            driver.get("key")
    finally:
        server.resume()
    return server.calls().get("get", 0)


def test_time_out_is_not_repeated(own_redis):
    assert gets_sent(own_redis()) == 1


@pytest.mark.filterwarnings("ignore:.*retry_on_timeout.*:DeprecationWarning")
def test_repeats_as_configured(own_redis):
    """On connections opened anew, the repeated gets do not get past the handshake."""
    server = own_redis()
    for kwargs in ({"retry": Retry(NoBackoff(), 2)}, {"retry_on_timeout": True}):
        start = time.monotonic()
        assert gets_sent(server, **kwargs) >= 1
        assert time.monotonic() - start > 0.19


# -- a call that is broken off ----------------------------------------------------------------


class WorkerTimeout(BaseException):
    """As gunicorn's and gevent's: no Exception."""


@pytest.mark.parametrize("operation", ["get", "incr", "get_many", "set_many", "load", "swap"])
def test_broken_off_call(own_redis, operation):
    """Its reply does not come to the next call."""
    server = own_redis()
    driver = driver_of(server, socket_timeout=30, max_connections=1)
    driver.set_many({"key": "value of key", "mine": "value of mine"})

    def strike(*_: object) -> None:
        raise WorkerTimeout

    before = signal.signal(signal.SIGALRM, strike)
    server.pause()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(WorkerTimeout):
            operations(driver)[operation]()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        server.resume()
    assert driver.get("mine") == "value of mine"
    assert driver.get_many(["mine", "none"]) == {"mine": "value of mine"}


def test_strikes_at_random(own_redis, monkeypatch):
    """Exceptions at any point of many calls: no reply is mistaken, no connection is lost.

    Python ignores those that strike in a destructor; pytest would keep them, and what they hold.
    """
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    server = own_redis()
    driver = driver_of(server, max_connections=100)
    keys = {f"k{number}": f"value {number}" for number in range(20)}
    driver.set_many(keys)
    struck = 0

    def strike(*_: object) -> None:
        raise WorkerTimeout

    before = signal.signal(signal.SIGALRM, strike)
    try:
        for turn in range(4000):
            key = f"k{turn % 20}"
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-6 * (turn % 499 + 1))
                if turn % 2:
                    driver.set_many(keys)
                value = driver.get(key)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except (WorkerTimeout, UnboundLocalError):  # redis-py 5 to 7: out of a "finally"
                struck += 1
            else:
                assert value == keys[key]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert struck > 0
    for key, value in keys.items():
        assert driver.get(key) == value
    driver.close()
    gc.collect()
    assert pool_of(driver).counts() == (0, 0, 0)


# -- threads and forks -------------------------------------------------------------------------


def test_threads_get_their_own(driver):
    keys = {f"k{number}": number for number in range(8)}
    driver.set_many(keys)
    wrong = []

    def work(key: str, value: int) -> None:
        for _ in range(200):
            if driver.get(key) != value or driver.get_many([key]) != {key: value}:
                wrong.append(key)
            driver.incr("count")

    threads = [threading.Thread(target=work, args=item) for item in keys.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert driver.get("count") == 1600


def in_child(test: Callable[[], Any]) -> int:
    """Run a test in a forked child; return the child's pid."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            test()
            status = 0
        finally:
            os._exit(status)
    return pid


def test_fork(driver):
    """Loaded before the fork, used by parent and children at once."""
    keys = {str(number): f"value {number}" for number in range(4)}
    driver.set_many(keys)

    def work(key: str) -> None:
        for _ in range(300):
            assert driver.get(key) == keys[key]
            driver.incr("count")

    children = [in_child(lambda key=key: work(key)) for key in list(keys)[1:]]
    work("0")
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0]
    assert driver.get("count") == 1200


def test_fork_during_a_call(own_redis):
    """A thread of the parent waits for a reply; the child neither takes nor closes it."""
    server = own_redis()
    driver = driver_of(server, socket_timeout=30)
    driver.set_many({"a": "A", "b": "B"})
    found: list[Any] = []
    server.pause()
    thread = threading.Thread(target=lambda: found.append(driver.get("a")))
    thread.start()
    wait_until(lambda: not pool_of(driver).counts().idle, "a call under way")

    def child() -> None:
        assert driver.get("b") == "B"
        driver.close()
        assert driver.get("b") == "B"

    pid = in_child(child)
    server.resume()
    assert os.waitpid(pid, 0)[1] == 0
    thread.join()
    assert found == ["A"]
    assert driver.get("b") == "B"


def test_close_and_go_on(own_redis):
    server = own_redis()
    driver = driver_of(server)
    driver.set("key", 1)
    driver._client.set("other", 1)
    assert clients(server) == 3
    driver.close()
    wait_until(lambda: clients(server) == 1, "end of connections")
    assert driver.get("key") == 1


# -- ways to the server ------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"decode_responses": True},
        {"protocol": 3},
        {"protocol": 3, "decode_responses": True},
        {"health_check_interval": 1},
        {"max_connections": 1, "socket_keepalive": True},
        {"db": 3, "client_name": "app", "encoding": "latin-1"},
        {"db": "3", "port": None},
        {"retry": Retry(NoBackoff(), 2)},
        {"retry_on_error": [redis.ConnectionError]},
        {"socket_timeout": None, "socket_connect_timeout": 3},
    ],
)
def test_client_options(server, kwargs):
    if "port" in kwargs:
        kwargs = {**kwargs, "port": str(server.port)}
    assert works(driver_of(server, "p:", **kwargs))


@pytest.mark.parametrize("unix", [False, True])
@pytest.mark.parametrize("by_url", [False, True])
def test_time_outs_and_retries_of_the_client(server, unix, by_url):
    """The same for each version of redis-py and each way to name the server."""
    if by_url:
        kwargs = {"url": f"unix://{server.socket_path}" if unix else server.url}
    else:
        kwargs = {"unix_socket_path": server.socket_path} if unix else {"port": server.port}
    driver = KVS("redis", kwargs)
    driver.get("key")
    connection = pool_of(driver).take()._connection
    assert connection.socket_timeout == connection.socket_connect_timeout == 0.5
    assert connection._sock.gettimeout() == 0.5
    options = driver._client.connection_pool.connection_kwargs
    assert options["socket_timeout"] == options["socket_connect_timeout"] == 0.5
    assert options["retry"]._retries == 0
    assert driver._client.get("key") is None


def test_url(server):
    assert works(KVS("redis", {"url": server.url}))
    driver = KVS("redis", {"url": f"redis://{server.host}:{server.port}/5?socket_timeout=3"})
    driver.set("key", 1)
    assert server.command("INFO", "keyspace")["db5"]["keys"] == 1
    assert pool_of(driver).take()._connection.socket_timeout == 3
    driver.flush()


def test_unix_socket(server):
    assert works(KVS("redis", {"unix_socket_path": server.socket_path}))
    assert works(KVS("redis", {"url": f"unix://{server.socket_path}?db=2"}))


def test_given_pool(server):
    pool = redis.ConnectionPool(host=server.host, port=server.port, max_connections=2)
    assert works(KVS("redis", {"connection_pool": pool}))


class SentinelServer(RedisServer):
    """A sentinel that watches one server; it keeps its state in the file given first."""

    def __init__(self, watched: RedisServer) -> None:
        super().__init__()
        self.watched = watched

    def arguments(self) -> list[str]:
        config = self.directory / "sentinel.conf"
        config.write_text(
            f"sentinel monitor main {self.watched.host} {self.watched.port} 1\n"
            f"port {self.port}\nbind {self.host}\nunixsocket {self.socket_path}\n"
        )
        config.chmod(0o666)
        return [str(config), "--sentinel"]


def test_sentinel(own_redis):
    server = own_redis()
    with SentinelServer(server) as watcher:
        sentinel = redis.Sentinel([(watcher.host, watcher.port)], socket_timeout=0.5)
        client = sentinel.master_for("main", socket_timeout=0.5)
        driver = KVS("redis", {"connection_pool": client.connection_pool})
        assert works(driver)
        kill_clients(server)
        driver.set("key", 1)
        assert driver.get("key") == 1
        server.kill()
        assert "service main" in str(unavailable(lambda: driver.get("key")))


PASSWORD = "p@ss/w:rd%#é"
QUOTED = "p%40ss%2Fw%3Ard%25%23%C3%A9"


def test_password(own_redis):
    server = own_redis(requirepass=PASSWORD)
    address = f"{server.host}:{server.port}"
    assert works(KVS("redis", {"url": f"redis://:{QUOTED}@{address}/0"}))
    assert works(driver_of(server, password=PASSWORD))
    assert works(driver_of(server, password=PASSWORD, protocol=3))
    for kwargs in ({}, {"password": PASSWORD + "x"}, {"username": "nobody", "password": PASSWORD}):
        refused = driver_of(server, **kwargs)
        error = unavailable(lambda: refused.get("key"))  # noqa: B023
        assert PASSWORD not in str(error)


def test_user(own_redis):
    server = own_redis()
    name, quoted = "us@er:1", "us%40er%3A1"
    server.command("ACL", "SETUSER", name, "on", f">{PASSWORD}", "~p:*", "+@all", "-getdel")
    url = f"redis://{quoted}:{QUOTED}@{server.host}:{server.port}"
    driver = KVS("redis", {"url": url}, key_prefix="p:")
    driver.set("key", 1)
    assert driver.get("key") == 1
    with pytest.raises(KVSError) as raised:
        driver.delete("key")
    assert type(raised.value) is KVSError
    with pytest.raises(KVSError):
        KVS("redis", {"url": url}, key_prefix="other:").get("key")


def test_tls(own_redis, tmp_path):
    openssl = need("openssl")
    make = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [*make, "-nodes", "-days", "2", "-keyout", key, "-out", cert, *names],
        check=True,
        capture_output=True,
    )
    for path in (tmp_path, *tmp_path.parents[:2]):
        path.chmod(0o755)
    port = free_port()
    server = own_redis(
        *("--tls-port", str(port), "--tls-cert-file", str(cert), "--tls-key-file", str(key)),
        *("--tls-ca-cert-file", str(cert), "--tls-auth-clients", "no"),
    )
    url = f"rediss://127.0.0.1:{port}/0"
    driver = KVS("redis", {"url": url, "ssl_ca_certs": str(cert)})
    assert works(driver)
    connection = pool_of(driver).take()
    pool_of(driver).give(connection)
    connection.used_at -= 1
    assert connection.is_alive()
    kill_clients(server)
    assert driver.incr("count") == 1
    driver.flush()
    by_name = {"host": "localhost", "port": port, "ssl": True, "ssl_ca_certs": str(cert)}
    assert works(KVS("redis", by_name))
    assert "certificate" in str(unavailable(lambda: KVS("redis", {"url": url}).get("key"))).lower()
    server.pause()
    unavailable(lambda: driver.get("key"))
    unavailable(lambda: KVS("redis", by_name).get("key"))
    server.resume()


# -- arguments that cannot serve ---------------------------------------------------------------


@pytest.mark.parametrize(
    "kwargs",
    [
        {"hots": "localhost"},
        {"port": "many"},
        {"port": 0},
        {"port": 65536},
        {"port": 6379.5},
        {"host": 5},
        {"host": "a..b"},
        {"db": -1},
        {"db": "zero"},
        {"socket_timeout": "1"},
        {"socket_timeout": 0},
        {"socket_connect_timeout": True},
        {"retry": 3},
        {"max_connections": "10"},
        {"protocol": 4},
        {"single_connection_client": True},
        {"url": "http://localhost"},
        {"url": "localhost:6379"},
        {"url": "redis://localhost:port/0"},
        {"url": "redis://localhost/zero"},
        {"url": "redis://localhost/0/1"},
        {"url": "redis://localhost/0?db=x"},
        {"url": "redis://localhost/0?colour=red"},
        {"url": "redis://localhost", "colour": "red"},
        {"url": 6379},
        {"ssl": True, "ssl_cert_reqs": "perhaps"},
    ],
)
def test_refused_at_construction(kwargs):
    with pytest.raises((TypeError, ValueError)):
        KVS("redis", kwargs)


@pytest.mark.parametrize(
    "url", ["redis://:s3c/r3t@localhost:6379", "redis://:s3c#r3t@localhost", "redis://:s3c?r3t@h"]
)
def test_refused_url_is_not_quoted(url):
    """A password that is not percent-encoded cuts the URL in two; no piece of it is shown."""
    with pytest.raises(ValueError, match="url") as raised:
        KVS("redis", {"url": url})
    assert "s3c" not in str(raised.value)
    assert "r3t" not in str(raised.value)
    assert raised.value.__cause__ is None

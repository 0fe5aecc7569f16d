"""Commands that redis refuses, for now or for good."""

from __future__ import annotations

import threading
from functools import partial

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from pyramid_kvs.exceptions import KVSError, KVSNotSupported, KVSUnavailable, ValueTooLarge
from tests.drivers.redis.support import (
    driver_of,
    failure,
    operations,
    pool_of,
    unavailable,
)
from tests.servers import free_port, wait_until


@pytest.fixture
def own_redis(own_redis, redis_version):
    """Servers of each version, because their words differ."""
    return partial(own_redis, version=redis_version)


@pytest.fixture
def server(own_redis):
    return own_redis()


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
        assert pool_of(driver).counts().idle == 0  # the next one may lead to another server
    assert driver.get("key") == 1
    server.command("REPLICAOF", "NO", "ONE")
    assert driver.incr("count") == 2


def test_a_database_that_does_not_exist(server):
    """A mistake in the settings, not an outage."""
    driver = driver_of(server, db=16)
    for _ in range(2):
        with pytest.raises(KVSError, match="'db' or the URL names a database that") as raised:
            driver.get("key")
        assert not isinstance(raised.value, KVSUnavailable)
    assert not driver._transport.breaker.is_troubled


@pytest.mark.parametrize("kwargs", [{}, {"password": "wr0ng"}, {"username": "a", "password": "b"}])
def test_a_password(own_redis, kwargs):
    """It may be missing for now only. The reason says where to look."""
    driver = driver_of(own_redis(requirepass="s3cret"), **kwargs)
    with pytest.raises(
        KVSUnavailable, match="check 'username' and 'password', or the URL"
    ) as raised:
        driver.check()
    assert "wr0ng" not in str(raised.value)
    for operation in operations(driver).values():
        unavailable(operation)


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
    """Redis refuses writes while its snapshots fail. Here a directory has the name of the file."""
    server = own_redis()
    driver = driver_of(server)
    driver.set("key", 1)
    (server.directory / "dump.rdb" / "in the way").mkdir(parents=True)
    server.command("CONFIG", "SET", "save", "3600 1")
    server.command("BGSAVE")
    wait_until(lambda: "MISCONF" in str(failure(lambda: driver.set("key", 2))), "MISCONF")
    assert "MISCONF" in str(unavailable(lambda: driver.incr("count")))
    assert driver.get("key") in (1, 2)
    server.kill()  # it would not stop without a snapshot


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


def test_loading(own_redis, redis_version):
    """While redis reads its data back after a start."""
    # 6.2 listens only after each 2 MB that it has read. It compresses values.
    is_old = redis_version == "6.2"
    server = own_redis(
        *(("--rdbcompression", "no") if is_old else ("--enable-debug-command", "yes"))
    )
    driver = driver_of(server)
    value = "x" * (10_000 if is_old else 100)
    driver.set_many({str(number): value for number in range(2000)}, 1000)
    server.command("CONFIG", "SET", "key-load-delay", 1000)
    if not is_old:
        server.command("CONFIG", "SET", "loading-process-events-interval-bytes", 1024)
    loader = redis.Redis(server.host, server.port, socket_timeout=30, retry=Retry(NoBackoff(), 0))
    thread = threading.Thread(target=lambda: loader.execute_command("DEBUG", "RELOAD"))
    thread.start()
    try:
        wait_until(lambda: "loading" in str(failure(lambda: driver.get("1"))), "LOADING")
    finally:
        thread.join()
    assert driver.get("1") == value


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
    """A refusal for good. The connection stays open."""
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
    """The message of the server contains the key, which must not be passed on."""
    server = own_redis("--rename-command", "GETEX", "")
    driver = driver_of(server)
    with pytest.raises(KVSNotSupported, match=r"Redis 6\.2") as raised:
        driver.raw_load("secret-id", renew=9)
    assert "secret-id" not in str(raised.value)
    assert "secret-id" not in str(raised.value.__cause__)

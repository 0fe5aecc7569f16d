"""Servers that answer and refuse: for now (``KVSUnavailable``) or for good (``KVSError``)."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyramid_kvs.exceptions import KVSUnavailable, ValueTooLarge
from pyramid_kvs.kvs import KVS
from tests.outages.apps import build
from tests.outages.fake import answering
from tests.outages.proxies import Proxy
from tests.outages.stores import CALLS, CHANGES, outcome
from tests.servers import MemcachedServer, PostgresServer, RedisServer, find, need, wait_until

#: A new replica gets its copy without a wait for others.
AT_ONCE = ("--repl-diskless-sync-delay", "0")
LIMIT = {"limit": 3, "window": 60, "strategy": "fixed-window"}


def redis_driver(port: int, **kwargs: Any) -> KVS:
    return KVS("redis", {"host": "127.0.0.1", "port": port, **kwargs}, "refused::")


def assert_refused_for_now(driver: KVS, calls: tuple[str, ...] = CHANGES) -> None:
    """Each change is refused with our error for a store that is unavailable for now."""
    refused = {name: type(outcome(lambda name=name: CALLS[name](driver))) for name in calls}
    assert refused == dict.fromkeys(calls, KVSUnavailable)


# -- redis -----------------------------------------------------------------------------------


def test_a_replica_is_read_only(any_redis: RedisServer, redis_version: str) -> None:
    with RedisServer(*AT_ONCE, version=redis_version) as master:
        any_redis.command("REPLICAOF", master.host, master.port)
        wait_until(lambda: is_in_sync(any_redis), "the replica's first copy")
        driver = redis_driver(any_redis.port)
        assert driver.get("key") is None
        assert_refused_for_now(driver)
        assert not driver.ping()


def is_in_sync(replica: RedisServer) -> bool:
    return replica.command("INFO", "replication")["master_link_status"] == "up"


def test_a_full_server(any_redis: RedisServer) -> None:
    driver = redis_driver(any_redis.port)
    driver.set("key", 1)
    any_redis.command("CONFIG", "SET", "maxmemory", "1")
    assert_refused_for_now(driver)
    assert driver.get("key") == 1
    assert not driver.ping()
    any_redis.command("CONFIG", "SET", "maxmemory", "0")
    assert driver.incr("count") == 1
    assert driver.ping()


def test_a_server_that_cannot_save(any_redis: RedisServer) -> None:
    driver = redis_driver(any_redis.port)
    driver.set("key", 1)
    (any_redis.directory / "dump.rdb" / "in the way").mkdir(parents=True)
    any_redis.command("CONFIG", "SET", "save", "3600 1")
    any_redis.command("BGSAVE")
    wait_until(
        lambda: any_redis.command("INFO", "persistence")["rdb_last_bgsave_status"] == "err",
        "the failure of BGSAVE",
    )
    assert_refused_for_now(driver)
    assert not driver.ping()


def test_a_server_without_enough_replicas(any_redis: RedisServer) -> None:
    any_redis.command("CONFIG", "SET", "min-replicas-to-write", "1")
    assert_refused_for_now(redis_driver(any_redis.port))


def test_a_failover(any_redis: RedisServer, redis_version: str) -> None:
    """The old master becomes a replica; its name leads to the new one from then on.

    What the old one refuses did not run, so it is sent again, a counter too.
    """
    with RedisServer(version=redis_version) as new, Proxy(any_redis.port) as proxy:
        driver = redis_driver(proxy.port)
        limited = build(
            cache=options_of(proxy), session=options_of(proxy), ratelimit=options_of(proxy, **LIMIT)
        )
        assert driver.incr("count") == 1
        limited.get("/")
        any_redis.command("CONFIG", "SET", "repl-diskless-sync-delay", "0")
        new.command("REPLICAOF", any_redis.host, any_redis.port)
        wait_until(lambda: is_in_sync(new), "the replica's first copy")
        new.command("REPLICAOF", "NO", "ONE")
        any_redis.command("REPLICAOF", new.host, new.port)
        proxy.target = new.port
        results = [outcome(lambda: driver.incr("count")) for _ in range(20)]
        assert results == list(range(2, 22))
        statuses = [limited.get("/", status="*").status_int for _ in range(10)]
        assert statuses == [200] * 2 + [429] * 8
        assert limited.get("/visited", status="*").status_int == 429


def options_of(proxy: Proxy, **options: Any) -> dict[str, Any]:
    return {"kvs": "redis", "kvs_kwargs": {"host": "127.0.0.1", "port": proxy.port}, **options}


@pytest.mark.parametrize(
    "words",
    [
        "READONLY You can't write against a read only replica.",
        "OOM command not allowed when used memory > 'maxmemory'.",
        "MISCONF Redis is configured to save RDB snapshots, but it is not able to.",
        "LOADING Redis is loading the dataset in memory",
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        "NOREPLICAS Not enough good replicas to write.",
        "CLUSTERDOWN Hash slot not served",
        "ERR max number of clients reached",
        "ERR Error running script (call to f_0): @user_script:1: @user_script: 1: "
        "-READONLY You can't write against a read only replica.",
        "ERR Error running script (call to f_0): @user_script:1: @user_script: 1: "
        "-OOM command not allowed when used memory > 'maxmemory'.",
        "ERR Error running script (call to f_0): @user_script:1: @user_script: 1: "
        "-MISCONF Errors writing to the AOF file: No space left on device",
        # What proxies say whose server is down: HAProxy closes, twemproxy and Envoy say this.
        "ERR Connection refused",
        "ERR Connection timed out",
        "upstream failure",
        "no upstream host",
    ],
)
def test_words_of_redis_and_its_proxies(words: str) -> None:
    with answering(f"-{words}\r\n".encode()) as port:
        assert_refused_for_now(redis_driver(port), ("get", "set", "incr"))


# -- memcached -------------------------------------------------------------------------------


def memcached_driver(port: int, **kwargs: Any) -> KVS:
    return KVS("memcache", {"servers": [f"127.0.0.1:{port}"], **kwargs}, "refused::")


def test_a_full_memcached(own_memcached: Callable[..., MemcachedServer]) -> None:
    """With -M it refuses what it has no memory for, instead of removing something else."""
    server = own_memcached("-M", "-m", "2")
    driver = memcached_driver(server.port)
    value = "x" * 100_000
    results = [outcome(lambda n=n: driver.set(f"key{n}", value)) for n in range(100)]
    refused = [result for result in results if result is not None]
    assert refused
    assert {type(error) for error in refused} == {KVSUnavailable}
    assert driver.get("key0") == value


def test_a_value_that_is_too_large(own_memcached: Callable[..., MemcachedServer]) -> None:
    driver = memcached_driver(own_memcached().port)
    with pytest.raises(ValueTooLarge):
        driver.set("key", "x" * 2_000_000)
    driver.set("key", "small")
    assert driver.get("key") == "small"


@pytest.mark.parametrize(
    "words",
    [
        "SERVER_ERROR out of memory storing object",
        "SERVER_ERROR out of memory",
        "SERVER_ERROR backend unavailable",  # mcrouter, as its proxy
        "SERVER_ERROR proxy read timeout",
        "SERVER_ERROR Connection refused",  # twemproxy
        "SERVER_ERROR",
        "ERROR Too many open connections",
    ],
)
def test_words_of_memcached_and_its_proxies(words: str) -> None:
    with answering(f"{words}\r\n".encode()) as port:
        assert_refused_for_now(memcached_driver(port), ("get", "set", "incr", "add", "get_many"))


# -- PostgreSQL ------------------------------------------------------------------------------


@pytest.fixture
def postgres(postgres_server: PostgresServer) -> PostgresServer:
    """PostgreSQL with the driver's table."""
    pytest.importorskip("psycopg")
    KVS("postgresql", {"url": postgres_server.url}).initialize_schema()
    return postgres_server


def postgres_driver(server: PostgresServer, **kwargs: Any) -> KVS:
    return KVS("postgresql", {"url": server.url, **kwargs}, "refused::")


def test_lock_timeout(postgres: PostgresServer) -> None:
    """55P03: a lock of somebody else, as a backup or an ALTER TABLE takes it."""
    import psycopg

    driver = postgres_driver(postgres)
    driver.set("key", 1)
    driver.close()
    alter = f"ALTER DATABASE {postgres.dbname}"
    postgres.execute(f"{alter} SET lock_timeout = '100ms'")
    try:
        with psycopg.connect(postgres.dsn()) as connection:
            connection.execute("LOCK TABLE kvs")
            assert_refused_for_now(driver, ("get", "set", "incr"))
        assert driver.get("key") == 1
    finally:
        postgres.execute(f"{alter} RESET ALL", dbname="postgres")


@pytest.mark.parametrize(
    "state",
    [
        "55P03", "55006", "55000", "25P04", "25P03", "25006", "53100", "53200", "53300", "53400",
        "57014", "57P01", "57P02", "57P03", "58030", "58000", "08006", "40001", "40P01", "28000",
        "57P05", "57P04",
    ],
)  # fmt: skip
def test_states_that_pass(state: str, postgres: PostgresServer) -> None:
    """A trigger raises what the server raises in situations that are hard to make."""
    postgres.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"RAISE EXCEPTION 'refused' USING ERRCODE = '{state}'; END $$;"
        "CREATE TRIGGER refuse BEFORE INSERT OR UPDATE OR DELETE ON kvs "
        "EXECUTE FUNCTION refuse()"
    )
    driver = postgres_driver(postgres)
    assert_refused_for_now(driver, ("set", "incr"))
    postgres.execute("DROP TRIGGER refuse ON kvs")
    assert driver.incr("count") == 1


@pytest.fixture(scope="module")
def standby() -> Iterator[tuple[PostgresServer, PostgresServer]]:
    """A primary with the driver's table, and a standby that follows it."""
    pytest.importorskip("psycopg")
    program = find("pg_basebackup") or need("pg_basebackup")
    options = {"wal_level": "replica", "max_wal_senders": "4", "hot_standby": "on"}
    with PostgresServer(**options) as primary, contextlib.closing(PostgresServer()) as second:
        KVS("postgresql", {"url": primary.url}).initialize_schema()
        copy_cluster(program, primary, second)
        second.start()
        yield primary, second


def copy_cluster(program: str, primary: PostgresServer, standby: PostgresServer) -> None:
    subprocess.run(
        [program, "-h", str(primary.directory), "-p", str(primary.port), "-U", "postgres",
         "-D", str(standby.data), "-c", "fast", "-R"],
        check=True, capture_output=True,
    )  # fmt: skip
    standby.data.chmod(0o700)
    own_as(primary.data, standby.data)
    shutil.chown(standby.directory, primary.data.owner())


def own_as(model: Path, folder: Path) -> None:
    """Give a folder and all that is in it to the owner of another one."""
    for path in (folder, *folder.rglob("*")):
        shutil.chown(path, model.owner(), model.group())


def test_a_standby(standby: tuple[PostgresServer, PostgresServer]) -> None:
    """It reads and refuses writes. 0A000 is what it says to a serializable transaction."""
    primary, second = standby
    driver = postgres_driver(second)
    assert_refused_for_now(driver)
    assert not driver.ping()
    with pytest.raises(KVSUnavailable):
        driver.check()
    alter = f"ALTER DATABASE {primary.dbname}"
    primary.execute(f"{alter} SET default_transaction_isolation = 'serializable'")
    wait_until(lambda: refuses_serializable(second), "the setting on the standby", 10)
    serializable = postgres_driver(second)
    assert isinstance(outcome(lambda: serializable.get("key")), (KVSUnavailable, type(None)))
    assert_refused_for_now(serializable)
    primary.execute(f"{alter} RESET ALL", dbname="postgres")
    wait_until(lambda: not refuses_serializable(second), "the setting on the standby", 10)


def refuses_serializable(standby: PostgresServer) -> bool:
    import psycopg

    try:
        standby.execute("SELECT 1")
    except psycopg.errors.FeatureNotSupported:
        return True
    return False


def test_an_unlogged_table_on_a_standby(standby: tuple[PostgresServer, PostgresServer]) -> None:
    """Its data are not there: 0A000 also for a read."""
    primary, second = standby
    unlogged = {"unlogged": True, "table": "fast"}
    KVS("postgresql", {"url": primary.url, **unlogged}).initialize_schema()
    driver = postgres_driver(second, **unlogged)
    exists = "SELECT to_regclass('fast') IS NOT NULL AND to_regclass('fast_version') IS NOT NULL"
    wait_until(lambda: second.execute(exists) == [(True,)], "the table on the standby", 10)
    assert_refused_for_now(driver, ("get", "set", "incr"))

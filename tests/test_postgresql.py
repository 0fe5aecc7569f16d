"""The postgresql driver beyond the conformance suite: failure, pool, schema, purge, poolers."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import pwd
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pyramid_kvs.drivers import postgresql
from pyramid_kvs.exceptions import KVSError, KVSUnavailable, ValueTooLarge
from pyramid_kvs.kvs import KVS, Stored
from pyramid_kvs.messages import without_credentials
from tests.servers import (
    LOOPBACK,
    PostgresServer,
    Server,
    find,
    free_port,
    missing,
    need,
    wait_until,
)

psycopg = pytest.importorskip("psycopg", reason="pip install 'pyramid_kvs[postgresql]'")

from pyramid_kvs.drivers.postgresql import PostgresqlKVS  # noqa: E402
from pyramid_kvs.drivers.postgresql.client import Options, read_options  # noqa: E402
from pyramid_kvs.drivers.waiting_pool import WaitingPool  # noqa: E402

Make = Callable[..., PostgresqlKVS]


@pytest.fixture
def make() -> Iterator[Make]:
    """Build drivers on a server, closed at the end."""
    built: list[KVS] = []

    def make(server: PostgresServer, prefix: str = "p::", **kvs_kwargs: Any) -> PostgresqlKVS:
        driver = KVS("postgresql", {"url": server.url, **kvs_kwargs}, prefix)
        built.append(driver)
        assert isinstance(driver, PostgresqlKVS)
        return driver

    yield make
    for driver in built:
        driver.close()


@pytest.fixture
def store(postgres_server: PostgresServer, make: Make) -> PostgresqlKVS:
    driver = make(postgres_server)
    driver.initialize_schema()
    return driver


@pytest.fixture(scope="module")
def module_server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture
def frail(module_server: PostgresServer, make: Make) -> PostgresServer:
    """A server that this module's tests may stop and pause."""
    module_server.ensure().clear()
    make(module_server).initialize_schema()
    return module_server


@contextlib.contextmanager
def locked(server: PostgresServer, sql: str = "SELECT FROM kvs FOR UPDATE") -> Iterator[Any]:
    """Keep the locks of a statement, in a transaction that ends with the block."""
    with psycopg.connect(server.dsn()) as connection:
        connection.execute(sql)
        yield connection


def wait_for_blocked(server: PostgresServer, count: int = 1) -> None:
    wait_until(
        lambda: server.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")[0][0] >= count,
        "a statement that waits for a lock",
    )


def backends(server: PostgresServer) -> set[int]:
    rows = server.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'pyramid_kvs'")
    return {pid for (pid,) in rows}


# -- kvs_kwargs ------------------------------------------------------------------------------


def test_defaults() -> None:
    assert read_options({}) == Options(
        url="postgresql://",
        pool_size=10,
        max_overflow=10,
        max_backlog=-1,
        pool_timeout=0.5,
        pool_recycle=-1,
        statement_timeout=2.0,
        table="kvs",
        unlogged=False,
        prepare="auto",
    )


def test_unknown_key_names_the_closest() -> None:
    with pytest.raises(TypeError, match=r"unknown key 'pol_size'.*did you mean 'pool_size'"):
        KVS("postgresql", {"pol_size": 3})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pool_size", 0),
        ("pool_size", True),
        ("pool_size", "10"),
        ("max_overflow", -2),
        ("max_backlog", 1.5),
        ("pool_timeout", 0),
        ("pool_timeout", float("nan")),
        ("pool_recycle", 0),
        ("pool_recycle", -2),
        ("statement_timeout", None),
        ("statement_timeout", -1),
        ("table", "kvs; DROP TABLE users"),
        ("table", 'k"vs'),
        ("table", "a.b.c"),
        ("table", "9lives"),
        ("table", ""),
        ("table", "k" * 56),
        ("table", None),
        ("unlogged", 1),
        ("prepare", "yes"),
        ("url", None),
    ],
)
def test_refused_value(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name}: found .*, expected "):
        KVS("postgresql", {name: value})


@pytest.mark.parametrize(
    "url",
    [
        "postgres:/user:s3cret@host/db",
        "postgresql://user:s3cret/word@host/db",
        "postgresql://user:pass@s3cret@host/db",
        "postgresql://user:1,s3cret@host/db?port=1,s3cret",
        "postgresql://user:s3cret@host/db?colour=s3cret",
        "redis://:s3cret@host",
        "user s3cret",
    ],
)
def test_url_that_libpq_cannot_read_is_not_shown(url: str) -> None:
    with pytest.raises(ValueError, match="expected postgresql://") as caught:
        KVS("postgresql", {"url": url})
    assert "s3cret" not in str(caught.value)
    assert without_credentials(str(caught.value)) == str(caught.value), "masked as a real one"
    assert caught.value.__context__ is None or caught.value.__suppress_context__


# -- values and keys -------------------------------------------------------------------------


def test_text_stays_text_and_bytes_bytes(store: PostgresqlKVS) -> None:
    store.raw_set("text", "\u20ac\0", 300)
    store.raw_set("bytes", b"\xff\0", 300)
    assert store.raw_get_many(["text", "bytes"]) == {"text": "\u20ac\0", "bytes": b"\xff\0"}


def test_long_keys_do_not_collide(store: PostgresqlKVS, postgres_server: PostgresServer) -> None:
    long = "k" * 3000
    store.set(long, "one")
    store.set(long + "x", "two")
    mapped = postgres_server.execute("SELECT key FROM kvs WHERE long_key IS NOT NULL")
    assert len(mapped) == 2
    assert all(len(key) == 1032 for (key,) in mapped)
    lookalike = mapped[0][0].decode("latin-1")[3:]
    store.set(lookalike, "three")
    assert store.get_many([long, long + "x", lookalike]) == {
        long: "one",
        long + "x": "two",
        lookalike: "three",
    }
    assert sorted(store.get_keys("k*x")) == [long + "x"]
    assert sorted(store.get_keys("k" * 2999 + "?")) == [long]


def test_flush_of_a_long_prefix(store: PostgresqlKVS, make: Make, postgres_server: Any) -> None:
    inner, outer = "p::" + "k" * 1500, "p::" + "k" * 1499
    make(postgres_server, inner).set("a", 1)
    make(postgres_server, outer).set("b", 2)
    make(postgres_server, inner).flush()
    assert store.get_keys() == ["k" * 1499 + "b"]


@pytest.mark.parametrize("prefix", ["%", "_", "\\", "a_", "*", "?", "\xff"])
def test_flush_takes_the_prefix_literally(
    prefix: str, make: Make, store: PostgresqlKVS, postgres_server: PostgresServer
) -> None:
    everything = make(postgres_server, "")
    others = {"a", "ab", "ab:", "p::x", "\\\\", "\xfe", "\u0100"}
    for key in others - {"\\" + prefix}:
        everything.set(key, 1)
    before = set(everything.get_keys())
    mine = make(postgres_server, prefix)
    mine.set_many({"1": 1, "%": 2, "": 3})
    assert sorted(mine.get_keys()) == ["", "%", "1"]
    mine.flush()
    assert set(everything.get_keys()) == before


def test_key_lists_go_in_pages(
    store: PostgresqlKVS, monkeypatch: pytest.MonkeyPatch, postgres_server: PostgresServer
) -> None:
    from pyramid_kvs.drivers.postgresql import driver as postgresql

    monkeypatch.setattr(postgresql, "SCAN_ROWS", 10)
    monkeypatch.setattr(postgresql, "FLUSH_ROWS", 10)
    keys = {f"{number:03}" for number in range(30)}
    store.set_many(dict.fromkeys(keys, 1))
    store.set("expired", 1, ttl=1e-6)
    assert set(store.get_keys()) == keys
    assert len(store.get_keys("0?5")) == 3
    store.flush()
    assert postgres_server.execute("SELECT count(*) FROM kvs") == [(0,)]


def test_more_than_a_gigabyte_is_refused_unsent(store: PostgresqlKVS) -> None:
    with pytest.raises(ValueTooLarge, match="1,000,000,000 bytes"):
        store.raw_set("key", bytes(1_000_000_001), None)


def test_ttl_beyond_the_end_of_time(store: PostgresqlKVS) -> None:
    store.set("key", 1, ttl=1e18)
    assert store.ttl_of("key") > 1e11
    assert store.expire("key", 1e300)
    assert store.get("key") == 1


def test_counter_goes_beyond_64_bits(store: PostgresqlKVS) -> None:
    assert store.incr("n", 2**63) == 2**63
    assert store.decr("n", 2**64) == -(2**63)
    assert store.get("n") == -(2**63)


@pytest.mark.parametrize("data", ["1.5", "NaN", "1e3", " 1", "", "-", "\0", "9" * 100, b"\xff"])
def test_counting_what_is_no_number(store: PostgresqlKVS, data: str | bytes) -> None:
    store.raw_set("n", data, 300)
    with pytest.raises(KVSError, match="no whole number"):
        store.incr("n")
    assert store.raw_get("n") == data


# -- compare and set -------------------------------------------------------------------------


def test_swap_that_loses_a_race_sees_the_winner(
    store: PostgresqlKVS, postgres_server: PostgresServer
) -> None:
    """The winner commits while the statement waits, after its view of the table was taken."""
    store.raw_set("key", "old", 300)
    with ThreadPoolExecutor() as pool:
        with locked(postgres_server, "UPDATE kvs SET data = 'winner'"):
            swap = pool.submit(store.raw_swap, "key", Stored("old"), "mine", 300)
            wait_for_blocked(postgres_server)
        assert swap.result() == (False, Stored("winner"))


def test_insert_that_loses_a_race_sees_the_winner(
    store: PostgresqlKVS, postgres_server: PostgresServer
) -> None:
    insert = "INSERT INTO kvs (key, is_text, data) VALUES ('p::key', true, 'winner')"
    with ThreadPoolExecutor() as pool:
        with locked(postgres_server, insert):
            swap = pool.submit(store.raw_swap, "key", None, "mine", 300)
            wait_for_blocked(postgres_server)
        assert swap.result() == (False, Stored("winner"))


def test_same_data_by_another_writer_is_a_conflict(store: PostgresqlKVS) -> None:
    store.raw_set("key", "theirs", 300)
    assert store.raw_swap("key", Stored("old"), "theirs", 300) == (False, Stored("theirs"))


def test_renewal_is_left_out_while_most_is_left(
    store: PostgresqlKVS, postgres_server: PostgresServer
) -> None:
    def renewed(left: float, ttl: float) -> bool:
        store.raw_set("key", "data", left)
        before = postgres_server.execute("SELECT xmin FROM kvs")
        assert store.raw_load("key", renew=ttl) == Stored("data")
        assert store.ttl_of("key") == pytest.approx(ttl, rel=0.1, abs=5)
        return postgres_server.execute("SELECT xmin FROM kvs") != before

    assert not renewed(295, 300)
    assert renewed(200, 300)
    assert renewed(300, 100)  # shorter than what is left
    assert not renewed(86400 - 30, 86400)
    assert renewed(86400 - 90, 86400)  # more than a minute ago


# -- round trips -----------------------------------------------------------------------------


def test_one_statement_for_each_operation(
    own_postgres: Callable[..., PostgresServer], make: Make
) -> None:
    server = own_postgres(log_statement="all", log_line_prefix="%a>")
    driver = make(server, pool_size=1)
    driver.initialize_schema()
    stored = Stored("1")
    operations: list[Callable[[], object]] = [
        lambda: driver.get("a"),
        lambda: driver.set("a", 1),
        lambda: driver.add("a", 1),
        lambda: driver.incr("a"),
        lambda: driver.expire("a", 30),
        lambda: driver.ttl_of("a"),
        lambda: driver.raw_load("a", renew=300),
        lambda: driver.raw_swap("a", stored, "1", 300),
        lambda: driver.raw_swap("b", None, "1", 300),
        lambda: driver.raw_swap("b", stored, "2", 300),
        lambda: driver.raw_swap("b", stored, None, 300),
        lambda: driver.delete("a"),
        lambda: driver.get_many(["a", "b"]),
        lambda: driver.raw_load_many(["a", "b"]),
        lambda: driver.set_many({"a": 1, "b": 2}),
        lambda: driver.delete_many(["a", "b"]),
        lambda: driver.get_keys(),
    ]
    for operation in operations:
        operation()
        before = server.log.count("pyramid_kvs>LOG:")
        driver._rows_written = -100  # or else some writes are followed by a purge
        operation()
        assert server.log.count("pyramid_kvs>LOG:") == before + 1, server.log[-2000:]


# -- a store that is away --------------------------------------------------------------------


def test_built_and_used_while_the_server_is_down(make: Make, frail: PostgresServer) -> None:
    frail.stop()
    driver = make(frail)
    started = time.monotonic()
    with pytest.raises(KVSUnavailable, match="no connection to PostgreSQL") as caught:
        driver.get("key")
    assert time.monotonic() - started < 1
    assert isinstance(caught.value.__cause__, psycopg.OperationalError)
    assert not driver.ping()
    frail.start()
    assert driver.incr("key") == 1


def test_restart_is_not_noticed(make: Make, frail: PostgresServer) -> None:
    driver = make(frail, pool_size=3)
    run_at_once(driver, frail, 3)
    frail.restart()
    assert [driver.incr("n") for _ in range(5)] == [1, 2, 3, 4, 5]


def test_terminated_backends_are_not_noticed(
    make: Make, store: PostgresqlKVS, postgres_server: PostgresServer
) -> None:
    driver = make(postgres_server, pool_size=3)
    run_at_once(driver, postgres_server, 3)
    before = backends(postgres_server)
    assert len(before) >= 3
    postgres_server.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE application_name = 'pyramid_kvs'"
    )
    assert [driver.incr("n") for _ in range(5)] == [1, 2, 3, 4, 5]
    assert not before & backends(postgres_server)


def run_at_once(driver: KVS, server: PostgresServer, count: int) -> None:
    """Make the driver open as many connections."""
    for number in range(count):
        driver.set(f"at once {number}", 0)
    with ThreadPoolExecutor(count) as pool, locked(server):
        for number in range(count):
            pool.submit(driver.set, f"at once {number}", 1)
        wait_for_blocked(server, count)


def test_backend_terminated_under_way(
    store: PostgresqlKVS, postgres_server: PostgresServer
) -> None:
    """A count that may have moved is not repeated; a write that may run twice is."""
    store.incr("n")
    store.set("value", 1)
    with ThreadPoolExecutor() as pool, locked(postgres_server):
        count = pool.submit(store.incr, "n")
        wait_for_blocked(postgres_server)
        (blocked,) = backends(postgres_server)
        postgres_server.execute("SELECT pg_terminate_backend(%s, 5000)", (blocked,))
        assert isinstance(count.exception(), KVSUnavailable)
    assert store.get("n") == 1
    with ThreadPoolExecutor() as pool:
        with locked(postgres_server):
            written = pool.submit(store.set, "value", 2)
            wait_for_blocked(postgres_server)
            (blocked,) = backends(postgres_server)
            postgres_server.execute("SELECT pg_terminate_backend(%s, 5000)", (blocked,))
            wait_for_blocked(postgres_server)
        written.result()
    assert store.get("value") == 2


def test_hung_server(make: Make, frail: PostgresServer) -> None:
    """Each call ends within 3 seconds, on an open connection and on a new one."""
    driver = make(frail)
    driver.set("key", 1)
    frail.pause()
    for call in (driver.get, driver.incr):
        started = time.monotonic()
        with pytest.raises(KVSUnavailable):
            call("key")
        assert time.monotonic() - started < 3
    frail.resume()
    wait_until(lambda: driver.ping(), "the return of the server", 5)
    assert driver.get("key") == 1


def test_port_that_never_answers(make: Make) -> None:
    with socket.create_server((LOOPBACK, 0)) as silent:
        port = silent.getsockname()[1]
        url = f"postgresql://{LOOPBACK}:{port},{LOOPBACK}:{port}/db"
        started = time.monotonic()
        with pytest.raises(KVSUnavailable):
            KVS("postgresql", {"url": url}).get("key")
        assert time.monotonic() - started < 3


def test_second_host_of_a_list(store: PostgresqlKVS, postgres_server: PostgresServer) -> None:
    url = f"postgresql://postgres@{LOOPBACK}:1,{LOOPBACK}:{postgres_server.port}/kvs"
    driver = KVS("postgresql", {"url": url}, "p::")
    driver.set("key", 1)
    assert store.get("key") == 1
    driver.close()


def test_unix_socket(store: PostgresqlKVS, postgres_server: PostgresServer) -> None:
    driver = KVS("postgresql", {"url": postgres_server.socket_url}, "p::")
    driver.set("key", 1)
    assert store.get("key") == 1
    driver.close()


def test_passfile(own_postgres: Callable[..., PostgresServer], make: Make, tmp_path: Path) -> None:
    server = own_postgres()
    server.execute("CREATE ROLE app LOGIN PASSWORD 's3cret'; ALTER DATABASE kvs OWNER TO app")
    server.execute("ALTER SCHEMA public OWNER TO app")
    (server.data / "pg_hba.conf").write_text(
        "local all postgres trust\nhost all app 127.0.0.1/32 scram-sha-256\n"
    )
    server.execute("SELECT pg_reload_conf()")
    url = f"postgresql://app@{LOOPBACK}:{server.port}/kvs"
    with pytest.raises(KVSUnavailable, match="password"):
        wait_until(lambda: make(server, url=url).get("key"), "the new pg_hba.conf", 5)
    passfile = tmp_path / "pgpass"
    passfile.write_text(f"{LOOPBACK}:*:kvs:app:s3cret\n")
    passfile.chmod(0o600)
    driver = make(server, url=f"{url}?passfile={passfile}")
    driver.initialize_schema()
    driver.set("key", 1)
    assert driver.get("key") == 1
    with pytest.raises(KVSUnavailable) as caught:
        make(server, url=url.replace("app@", "app:wr0ng@")).get("key")
    assert "wr0ng" not in str(caught.value) + str(caught.value.__cause__)


def test_standby_refuses_writes(store: PostgresqlKVS, postgres_server: PostgresServer) -> None:
    store.set("key", 1)
    alter = f"ALTER DATABASE {postgres_server.dbname}"
    postgres_server.execute(f"{alter} SET default_transaction_read_only = on")
    try:
        store.close()
        assert store.get("key") == 1
        with pytest.raises(KVSUnavailable, match="read-only"):
            store.set("key", 2)
    finally:
        postgres_server.execute(f"{alter} RESET ALL", dbname="postgres")
    store.set("key", 3)  # where connections of before are read-only still, as after a failover
    assert store.get("key") == 3


def test_tls_connection_is_used_again(
    own_postgres: Callable[..., PostgresServer], make: Make
) -> None:
    """What TLS sends by itself, such as session tickets, is not taken for the server's end."""
    server = own_postgres()
    certificate, key = server.data / "server.crt", server.data / "server.key"
    command = [
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([need("openssl"), *command, *files], check=True, capture_output=True)
    for path in (certificate, key):
        os.chown(path, server.data.stat().st_uid, -1)
        path.chmod(0o600)
    server.execute("ALTER SYSTEM SET ssl = on")
    server.execute("SELECT pg_reload_conf()")
    driver = make(server, url=f"{server.url}?sslmode=require")
    wait_until(lambda: _answers(driver), "TLS", 10)
    before = backends(server)
    for number in range(5):
        driver.set("key", str(number) * 1_000_000)
        assert driver.get("key") == str(number) * 1_000_000
    assert backends(server) == before
    assert server.execute("SELECT count(*) FROM pg_stat_ssl WHERE ssl") == [(1,)]


def _answers(driver: PostgresqlKVS) -> bool:
    with contextlib.suppress(KVSUnavailable):
        driver.initialize_schema()
        return True
    return False


def test_too_many_connections(
    store: PostgresqlKVS, make: Make, postgres_server: PostgresServer
) -> None:
    url = limited_role(postgres_server, "CONNECTION LIMIT 1")
    first, second = make(postgres_server, url=url), make(postgres_server, url=url)
    assert first.get("key") is None
    with pytest.raises(KVSUnavailable, match="too many connections"):
        second.get("key")
    first.close()
    wait_until(second.ping, "the end of the first connection", 5)


def limited_role(server: PostgresServer, options: str = "") -> str:
    """Return the URL of a role that may use the tables and nothing else."""
    role = f"role_{random.randrange(10**9)}"
    server.execute(
        f"CREATE ROLE {role} LOGIN {options}; REVOKE CREATE ON SCHEMA public FROM PUBLIC;"
        f"GRANT USAGE ON SCHEMA public TO {role};"
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON kvs TO {role};"
        f"GRANT SELECT ON kvs_version TO {role}"
    )
    return server.url.replace("postgres@", f"{role}@")


def test_statement_timeout_keeps_the_connection(
    store: PostgresqlKVS, make: Make, postgres_server: PostgresServer
) -> None:
    driver = make(postgres_server, statement_timeout=0.1)
    driver.set("s3cret-key", 1)
    before = backends(postgres_server)
    with locked(postgres_server), pytest.raises(KVSUnavailable, match="took longer") as caught:
        driver.set("s3cret-key", "s3cret-value")
    assert "s3cret" not in str(caught.value) + str(caught.value.__cause__)
    assert driver.get("s3cret-key") == 1
    assert backends(postgres_server) == before


def test_serializable_by_default_is_no_trouble(
    store: PostgresqlKVS, make: Make, postgres_server: PostgresServer
) -> None:
    alter = f"ALTER DATABASE {postgres_server.dbname}"
    postgres_server.execute(f"{alter} SET default_transaction_isolation = 'serializable'")
    try:
        count_at_once(make(postgres_server))
    finally:
        postgres_server.execute(f"{alter} RESET ALL", dbname="postgres")


def count_at_once(driver: KVS, threads: int = 8, each: int = 25) -> None:
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda _: [driver.incr("at once") for _ in range(each)], range(threads)))
    assert driver.get("at once") == threads * each


# -- pool, threads, processes ----------------------------------------------------------------


def test_connections_are_bounded(
    store: PostgresqlKVS, make: Make, postgres_server: PostgresServer
) -> None:
    driver = make(postgres_server, pool_size=2, max_overflow=1, pool_timeout=5)
    store.close()
    wait_until(lambda: not backends(postgres_server), "the end of other connections")
    with ThreadPoolExecutor(8) as pool:
        with locked(postgres_server, "LOCK TABLE kvs"):
            calls = [pool.submit(driver.incr, "n") for _ in range(8)]
            wait_for_blocked(postgres_server, 3)
            assert len(backends(postgres_server)) == 3
        assert sorted(call.result() for call in calls) == list(range(1, 9))
    wait_until(lambda: len(backends(postgres_server)) == 2, "the end of the overflow", 5)


@contextlib.contextmanager
def full_pool(
    make: Make, server: PostgresServer, **kvs_kwargs: Any
) -> Iterator[tuple[KVS, ThreadPoolExecutor]]:
    """Make a driver whose only connection is busy until the block ends."""
    driver = make(server, pool_size=1, max_overflow=0, **kvs_kwargs)
    driver.set("key", 0)
    with ThreadPoolExecutor(4) as pool, locked(server):
        pool.submit(driver.set, "key", 1)
        wait_for_blocked(server)
        yield driver, pool


def test_full_pool(store: PostgresqlKVS, make: Make, postgres_server: PostgresServer) -> None:
    none_free = pytest.raises(KVSUnavailable, match="all 1 connections are in use; none came free")
    with full_pool(make, postgres_server, pool_timeout=0.1) as (driver, _), none_free:
        driver.get("other")
    assert driver.get("other") is None


def test_backlog_of_none(store: PostgresqlKVS, make: Make, postgres_server: PostgresServer) -> None:
    with full_pool(make, postgres_server, max_backlog=0, pool_timeout=60) as (driver, _):
        started = time.monotonic()
        with pytest.raises(KVSUnavailable, match="0 callers wait"):
            driver.get("other")
        assert time.monotonic() - started < 30
    assert driver.get("other") is None


def test_backlog_of_one(store: PostgresqlKVS, make: Make, postgres_server: PostgresServer) -> None:
    with full_pool(make, postgres_server, max_backlog=1, pool_timeout=30) as (driver, pool):
        waiting = [pool.submit(driver.get, "key") for _ in range(2)]
        wait_until(lambda: any(call.done() for call in waiting), "a call that is refused")
        (refused,) = [call for call in waiting if call.done()]
        assert isinstance(refused.exception(), KVSUnavailable)
        waiting.remove(refused)
    assert waiting[0].result() == 1


def test_backlog_of_none_opens_all_connections(
    store: PostgresqlKVS, make: Make, postgres_server: PostgresServer
) -> None:
    """Opening a connection is no wait: all that are allowed can be opened at once."""
    driver = make(postgres_server, pool_size=1, max_overflow=4, max_backlog=0)
    with ThreadPoolExecutor(5) as pool:
        with locked(postgres_server, "LOCK TABLE kvs"):
            calls = [pool.submit(driver.incr, "n") for _ in range(5)]
            wait_for_blocked(postgres_server, 5)
        assert sorted(call.result() for call in calls) == [1, 2, 3, 4, 5]


class Idle:
    """A connection that is always usable."""

    generation = 0
    slot = None
    opened_at = 0.0

    def is_usable(self) -> bool:
        return True

    def close(self) -> None:
        pass


def test_place_of_a_lost_connection_is_free_again() -> None:
    pool = WaitingPool(lambda _: Idle(), size=1, backlog=0)
    pool.take(time.monotonic() + 1)  # and nobody gives it back
    pool.give(pool.take(time.monotonic() + 1))


def test_waiter_that_gives_up_leaves_the_line() -> None:
    pool = WaitingPool(lambda _: Idle(), size=1, backlog=1, timeout=0.01)
    taken = pool.take(time.monotonic() + 1)
    for _ in range(3):
        with pytest.raises(KVSUnavailable, match="none came free"):
            pool.take(time.monotonic() + 1)
    pool.give(taken)
    assert pool.take(time.monotonic() + 1) is taken


def test_recycled_connection(
    store: PostgresqlKVS, make: Make, postgres_server: PostgresServer
) -> None:
    driver = make(postgres_server, pool_recycle=0.001)
    store.close()
    wait_until(lambda: not backends(postgres_server), "the end of other connections")
    driver.get("key")
    first = backends(postgres_server)
    driver.get("key")
    wait_until(lambda: first.isdisjoint(backends(postgres_server)), "the end of the first", 5)


def test_close_and_go_on(store: PostgresqlKVS, postgres_server: PostgresServer) -> None:
    store.set("key", 1)
    store.close()
    wait_until(lambda: not backends(postgres_server), "the end of all connections", 5)
    assert store.get("key") == 1


def test_threads_count_exactly(store: PostgresqlKVS) -> None:
    count_at_once(store)


def test_fork(store: PostgresqlKVS, postgres_server: PostgresServer) -> None:
    """Children open their own connections; the parent's go on working after their end."""
    store.incr("n")
    before = backends(postgres_server)

    def work(count: int) -> None:
        for _ in range(count):
            store.incr("n")

    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=work, args=(20,)) for _ in range(3)]
    for process in processes:
        process.start()
    work(20)
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert store.get("n") == 81
    assert before <= backends(postgres_server)


class BrokenOff(BaseException):
    """As a worker's time-out or a gevent.Timeout."""


def test_call_broken_off_leaves_no_reply(
    store: PostgresqlKVS, postgres_server: PostgresServer
) -> None:
    store.set_many({"blocked": "wrong", "other": "right"})
    before = backends(postgres_server)

    def break_off(*_: object) -> None:
        raise BrokenOff

    def alarm() -> None:
        wait_for_blocked(postgres_server)
        os.kill(os.getpid(), signal.SIGUSR1)

    previous = signal.signal(signal.SIGUSR1, break_off)
    try:
        with locked(postgres_server):
            threading.Thread(target=alarm, daemon=True).start()
            with pytest.raises(BrokenOff):
                store.raw_swap("blocked", Stored('"wrong"'), "new", 300)
            assert store.incr("n") == 1
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert store.get("other") == "right"
    wait_until(lambda: before.isdisjoint(backends(postgres_server)), "the end of the broken-off")


# -- schema ----------------------------------------------------------------------------------


def test_missing_table(make: Make, postgres_server: PostgresServer) -> None:
    driver = make(postgres_server)
    with pytest.raises(KVSError, match="table 'kvs' is not there: run 'pkvs migrate'") as caught:
        driver.get("key")
    assert not isinstance(caught.value, KVSUnavailable)


def test_dry_run_creates_nothing(
    make: Make, postgres_server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pyramid_kvs")
    driver = make(postgres_server)
    driver.initialize_schema(dry_run=True)
    assert 'CREATE TABLE IF NOT EXISTS "kvs"' in caplog.text
    assert postgres_server.execute("SELECT FROM pg_tables WHERE schemaname = 'public'") == []
    driver.initialize_schema()
    caplog.clear()
    driver.set("key", 1)
    driver.initialize_schema()
    assert "nothing to do" in caplog.text
    assert "CREATE" not in caplog.text
    assert driver.get("key") == 1


def test_two_at_once(postgres_server: PostgresServer, make: Make) -> None:
    with ThreadPoolExecutor(8) as pool:
        created = [pool.submit(make(postgres_server).initialize_schema) for _ in range(8)]
        for one in created:
            one.result()
    assert postgres_server.execute("SELECT version FROM kvs_version") == [(1,)]


def test_schema_by_an_administrator(make: Make, postgres_server: PostgresServer) -> None:
    """The file runs as it is, and the application's role needs no right to create."""
    path = Path(postgresql.__file__).with_name("schema.sql")
    for _ in range(2):
        postgres_server.execute(path.read_text())
    driver = make(postgres_server, url=limited_role(postgres_server))
    driver.initialize_schema()
    driver.set("key", 1)
    assert driver.incr("n") == 1
    assert sorted(driver.get_keys()) == ["key", "n"]
    assert driver.purge() == 0
    driver.flush()


def test_missing_right(store: PostgresqlKVS, make: Make, postgres_server: PostgresServer) -> None:
    url = limited_role(postgres_server)
    role = url.partition("//")[2].partition("@")[0]
    postgres_server.execute(f"REVOKE ALL ON kvs FROM {role}")
    driver = make(postgres_server, url=url)
    with pytest.raises(KVSError, match="GRANT SELECT") as caught:
        driver.get("key")
    assert not isinstance(caught.value, KVSUnavailable)
    postgres_server.execute("DROP TABLE kvs, kvs_version")
    with pytest.raises(KVSError, match=r"schema\.sql as a role that may"):
        driver.initialize_schema()


def test_schema_of_a_later_release(store: PostgresqlKVS, postgres_server: PostgresServer) -> None:
    postgres_server.execute("UPDATE kvs_version SET version = 2")
    with pytest.raises(KVSError, match=r"version 2.*knows 1"):
        store.initialize_schema()


@pytest.mark.parametrize("table", ["sessions.kvs", "Select", "my_table"])
def test_table_of_another_name(table: str, make: Make, postgres_server: PostgresServer) -> None:
    postgres_server.execute("CREATE SCHEMA sessions")
    driver = make(postgres_server, table=table)
    driver.initialize_schema()
    driver.initialize_schema()
    driver.set("key", 1)
    assert driver.get("key") == 1
    assert driver.purge() == 0
    schema, _, name = f"public.{table}".rpartition(".")
    found = postgres_server.execute(
        "SELECT tablename FROM pg_tables WHERE schemaname = %s ORDER BY 1",
        (schema.rpartition(".")[2],),
    )
    assert found == [(name,), (f"{name}_version",)]


def test_unlogged(make: Make, postgres_server: PostgresServer) -> None:
    driver = make(postgres_server, unlogged=True)
    driver.initialize_schema()
    kinds = "SELECT relname, relpersistence FROM pg_class WHERE relname IN ('kvs', 'kvs_version')"
    assert dict(postgres_server.execute(kinds)) == {"kvs": "u", "kvs_version": "p"}


# -- expired rows ----------------------------------------------------------------------------


def fill(server: PostgresServer, prefix: str, count: int, ttl: float) -> None:
    server.execute(
        "INSERT INTO kvs (key, is_text, data, expires) "
        "SELECT convert_to(%s || n, 'UTF8'), true, '1', now() + %s * interval '1 second' "
        "FROM generate_series(1, %s) n",
        (prefix, ttl, count),
    )


def rows_of(server: PostgresServer) -> int:
    return int(server.execute("SELECT count(*) FROM kvs")[0][0])


def test_purge_removes_what_expired(store: PostgresqlKVS, postgres_server: PostgresServer) -> None:
    fill(postgres_server, "p::live", 500, 300)
    fill(postgres_server, "p::dead", 20_000, -1)
    fill(postgres_server, "another::dead", 500, -1)
    store.raw_set("for ever", "1", None)
    assert store.purge() == 20_500
    assert rows_of(postgres_server) == 501
    assert store.purge() == 0


def test_purge_passes_over_locked_rows(
    store: PostgresqlKVS, postgres_server: PostgresServer
) -> None:
    fill(postgres_server, "dead", 100, -1)
    with locked(postgres_server, "SELECT FROM kvs WHERE key = 'dead7' FOR UPDATE"):
        assert store.purge() == 99
    assert store.purge() == 1


def test_reading_removes_nothing(store: PostgresqlKVS, postgres_server: PostgresServer) -> None:
    fill(postgres_server, "p::dead", 100, -1)
    for number in range(1, 50):
        assert store.get(f"dead{number}") is None
        assert store.raw_load(f"dead{number}", renew=300) is None
    assert store.get_keys() == []
    assert rows_of(postgres_server) == 100


def test_writes_remove_what_expired(store: PostgresqlKVS, postgres_server: PostgresServer) -> None:
    """A table under a steady load of short-lived keys stays small, without any purge()."""
    fill(postgres_server, "p::dead", 2000, -1)
    for number in range(1000):
        store.set(f"live{number % 10}", number)
    assert rows_of(postgres_server) == 10


def test_purging_does_not_wait_for_a_connection(
    store: PostgresqlKVS, postgres_server: PostgresServer, make: Make
) -> None:
    with full_pool(make, postgres_server, pool_timeout=30) as (driver, _):
        started = time.monotonic()
        driver._purge_now_and_then(1000)  # type: ignore[attr-defined]
        assert time.monotonic() - started < 15


def test_write_succeeds_where_purging_fails(
    store: PostgresqlKVS, make: Make, postgres_server: PostgresServer
) -> None:
    fill(postgres_server, "p::dead", 100, -1)
    postgres_server.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE 'no'; END $$; "
        "CREATE TRIGGER refuse BEFORE DELETE ON kvs FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    for number in range(40):
        store.set("key", number)
    assert store.get("key") == 39
    assert rows_of(postgres_server) == 101


@pytest.mark.parametrize("size", [100, 1900, 100_000])
def test_renewals_stay_hot(
    store: PostgresqlKVS, postgres_server: PostgresServer, size: int
) -> None:
    """No index and none of a large value is written again."""
    data = "".join(random.Random(1).choices("0123456789abcdefghijklmnop", k=size))
    for number in range(20):
        store.raw_set(f"session{number}", data, 300)
    toast = postgres_server.execute(
        "SELECT pg_relation_size(reltoastrelid) FROM pg_class WHERE relname = 'kvs'"
    )
    for turn in range(1, 11):
        for number in range(20):
            store.raw_load(f"session{number}", renew=1000.0 * turn)
    store.close()
    wait_until(lambda: updates(postgres_server)[0] == 200, "the counts of the updates", 30)
    # Another snapshot at the wrong moment keeps a full page from being pruned.
    assert updates(postgres_server)[1] >= 180
    assert toast == postgres_server.execute(
        "SELECT pg_relation_size(reltoastrelid) FROM pg_class WHERE relname = 'kvs'"
    )


def updates(server: PostgresServer) -> tuple[int, int]:
    return server.execute(
        "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'kvs'"
    )[0]  # type: ignore[return-value]


# -- pgbouncer -------------------------------------------------------------------------------


class PgBouncer(Server):
    """A pgbouncer in transaction mode before a server's database."""

    program = "pgbouncer"

    def __init__(self, server: PostgresServer, size: int) -> None:
        if find("pgbouncer") is None:
            missing("pgbouncer is not installed: apt-get install pgbouncer")
        super().__init__()
        self.port = free_port()
        (self.directory / "users").write_text('"postgres" ""\n')
        (self.directory / "ini").write_text(
            f"[databases]\nkvs = host={server.host} port={server.port} dbname=kvs\n"
            f"[pgbouncer]\nlisten_addr = {self.host}\nlisten_port = {self.port}\n"
            f"unix_socket_dir =\nauth_type = trust\nauth_file = {self.directory}/users\n"
            f"pool_mode = transaction\ndefault_pool_size = {size}\n"
            "server_round_robin = 1\n"
        )
        for path in (self.directory, *self.directory.iterdir()):
            path.chmod(0o755)

    def account(self) -> str:
        names = {entry.pw_name for entry in pwd.getpwall()}
        return "postgres" if "postgres" in names else "nobody"

    def arguments(self) -> list[str]:
        return [str(self.directory / "ini")]

    def is_ready(self) -> bool:
        with psycopg.connect(self.url, connect_timeout=2):
            return True

    @property
    def url(self) -> str:
        return f"postgresql://postgres@{self.host}:{self.port}/kvs"


@pytest.mark.parametrize("prepare", ["auto", False])
def test_pgbouncer_in_transaction_mode(
    prepare: Any, store: PostgresqlKVS, make: Make, postgres_server: PostgresServer
) -> None:
    with PgBouncer(postgres_server, size=3) as bouncer:
        driver = make(postgres_server, url=bouncer.url, prepare=prepare)
        driver.initialize_schema()
        count_at_once(driver)
        assert not driver._client._prepares
        driver.set_many({"a": 1, "b": 2})
        assert driver.get_many(["a", "b", "c"]) == {"a": 1, "b": 2}
        assert driver.update("a", lambda value: value + 1) == 2
        assert driver.purge() == 0
        driver.flush()
        assert driver.get_keys() == []


def test_system_libpq(store: PostgresqlKVS, postgres_server: PostgresServer) -> None:
    """psycopg in Python on the system's libpq does the same, where that is installed."""
    code = (
        "import sys\nfrom pyramid_kvs.kvs import KVS\n"
        "driver = KVS('postgresql', {'url': sys.argv[1]}, 'p::')\n"
        "driver.set('key', 'value' * 100000)\nassert len(driver.get('key')) == 500000\n"
        "assert driver.incr('n') == 1\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, postgres_server.url],
        env={**os.environ, "PSYCOPG_IMPL": "python"},
        capture_output=True,
        text=True,
        check=False,
    )
    if "libpq library not found" in done.stderr or "no pq wrapper" in done.stderr:
        pytest.skip("no libpq on this system")
    assert done.returncode == 0, done.stderr

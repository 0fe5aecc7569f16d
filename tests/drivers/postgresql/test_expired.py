"""Expired rows of the postgresql driver's table, and renewals that write little."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.drivers.postgresql.helpers import Make, PostgresqlKVS, locked, wait_for_blocked
from tests.servers import PostgresServer, wait_until


def fill(server: PostgresServer, prefix: str, count: int, ttl: float) -> None:
    server.execute(
        "INSERT INTO kvs (key, is_text, data, expires) "
        "SELECT convert_to(%s || n, 'UTF8'), true, '1', now() + %s * interval '1 second' "
        "FROM generate_series(1, %s) n",
        (prefix, ttl, count),
    )


def rows_of(server: PostgresServer) -> int:
    return int(server.execute("SELECT count(*) FROM kvs")[0][0])


def test_purge_removes_all_expired_rows(
    store: PostgresqlKVS, postgres_server: PostgresServer
) -> None:
    fill(postgres_server, "p::live", 500, 300)
    fill(postgres_server, "p::dead", 20_000, -1)
    fill(postgres_server, "another::dead", 500, -1)
    store.raw_set("forever", "1", None)
    assert store.purge() == 20_500
    assert rows_of(postgres_server) == 501
    assert store.purge() == 0


def test_purge_skips_locked_rows(store: PostgresqlKVS, postgres_server: PostgresServer) -> None:
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


def test_writes_remove_expired_rows(store: PostgresqlKVS, postgres_server: PostgresServer) -> None:
    """A table with a steady load of short-lived keys stays small without any purge()."""
    fill(postgres_server, "p::dead", 2000, -1)
    for number in range(1000):
        store.set(f"live{number % 10}", number)
    assert rows_of(postgres_server) == 10


LOCK = "SELECT FROM kvs WHERE key = 'p::key' FOR UPDATE"


def test_purging_does_not_wait_for_a_connection(
    store: PostgresqlKVS, postgres_server: PostgresServer, make: Make
) -> None:
    """It is left out if no connection is idle."""
    fill(postgres_server, "dead", 100, -1)
    driver = make(postgres_server, pool_size=1, max_overflow=0, pool_timeout=30)
    driver.set("key", 0)
    with ThreadPoolExecutor(1) as pool, locked(postgres_server, LOCK):
        pool.submit(driver.set, "key", 1)
        wait_for_blocked(postgres_server)
        started = time.monotonic()
        driver._expired.note_written(1000)
        assert time.monotonic() - started < 15
        assert rows_of(postgres_server) == 101
    driver._expired.note_written(1000)
    assert rows_of(postgres_server) == 1


def test_a_write_succeeds_if_purging_fails(
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
    """Neither an index nor a large value is written again."""
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

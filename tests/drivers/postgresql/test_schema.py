"""The tables of the postgresql driver: creating them, and permissions."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pyramid_kvs.drivers import postgresql
from pyramid_kvs.exceptions import KVSError, KVSUnavailable
from tests.drivers.postgresql.helpers import Make, PostgresqlKVS, limited_role
from tests.servers import PostgresServer


def test_missing_table(make: Make, postgres_server: PostgresServer) -> None:
    driver = make(postgres_server)
    with pytest.raises(KVSError, match="table 'kvs' does not exist: run 'pkvs migrate'") as caught:
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


def test_several_processes_create_the_tables_at_once(
    postgres_server: PostgresServer, make: Make
) -> None:
    with ThreadPoolExecutor(8) as pool:
        created = [pool.submit(make(postgres_server).initialize_schema) for _ in range(8)]
        for one in created:
            one.result()
    assert postgres_server.execute("SELECT version FROM kvs_version") == [(1,)]


def test_schema_by_an_administrator(make: Make, postgres_server: PostgresServer) -> None:
    """The file runs as it is, and the application's role needs no permission to create tables."""
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


def test_missing_permission(
    store: PostgresqlKVS, make: Make, postgres_server: PostgresServer
) -> None:
    url = limited_role(postgres_server)
    role = url.partition("//")[2].partition("@")[0]
    postgres_server.execute(f"REVOKE ALL ON kvs FROM {role}")
    driver = make(postgres_server, url=url)
    with pytest.raises(KVSError, match="GRANT SELECT") as caught:
        driver.get("key")
    assert not isinstance(caught.value, KVSUnavailable)
    postgres_server.execute("DROP TABLE kvs, kvs_version")
    with pytest.raises(KVSError, match=r"schema\.sql as a role that has permission"):
        driver.initialize_schema()


def test_tables_of_a_later_release(store: PostgresqlKVS, postgres_server: PostgresServer) -> None:
    postgres_server.execute("UPDATE kvs_version SET version = 2")
    with pytest.raises(KVSError, match=r"version 2.*knows version 1"):
        store.initialize_schema()


@pytest.mark.parametrize("table", ["sessions.kvs", "Select", "my_table"])
def test_table_with_another_name(table: str, make: Make, postgres_server: PostgresServer) -> None:
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


def test_a_table_name_in_a_database_with_another_encoding(
    make: Make, postgres_server: PostgresServer
) -> None:
    """The names are what other programs see, too."""
    postgres_server.execute(
        "CREATE DATABASE latin ENCODING LATIN1 LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    )
    driver = make(postgres_server, url=postgres_server.url_of("latin"), table="clés")
    try:
        driver.initialize_schema()
        driver.set("é", "é")
        assert driver.get("é") == "é"
        tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
        found = postgres_server.execute(tables, dbname="latin")
        assert found == [("clés",), ("clés_version",)]
    finally:
        driver.close()
        postgres_server.execute("DROP DATABASE latin WITH (FORCE)", dbname="postgres")

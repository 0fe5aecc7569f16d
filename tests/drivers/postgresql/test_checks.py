"""Whether PostgreSQL can serve the application, as ``check()`` and ``ping()`` say."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from pyramid_kvs.exceptions import KVSError, KVSUnavailable
from pyramid_kvs.kvs import KVS
from tests.drivers.postgresql.helpers import Make, PostgresqlKVS, limited_role, locked
from tests.servers import PostgresServer


def assert_fails(driver: KVS, reason: str, passes: bool) -> None:
    """Check that a driver cannot serve.

    :param passes: whether the reason is one that passes by itself.
    """
    with pytest.raises(KVSError, match=reason) as caught:
        driver.check()
    assert isinstance(caught.value, KVSUnavailable) == passes
    assert not driver.ping()


def test_a_server_that_can_serve_has_no_rows_left(
    store: PostgresqlKVS, postgres_server: PostgresServer
) -> None:
    store.check()
    assert store.ping()
    assert postgres_server.execute("SELECT FROM kvs") == []


def test_a_missing_table(make: Make, postgres_server: PostgresServer) -> None:
    assert_fails(make(postgres_server), "does not exist: run 'pkvs migrate'", passes=False)


@pytest.mark.parametrize("permission", ["SELECT", "INSERT", "UPDATE", "DELETE"])
def test_a_missing_permission(
    permission: str, store: PostgresqlKVS, make: Make, postgres_server: PostgresServer
) -> None:
    url = limited_role(postgres_server)
    driver = make(postgres_server, url=url)
    assert driver.ping()
    role = url.partition("//")[2].partition("@")[0]
    postgres_server.execute(f"REVOKE {permission} ON kvs FROM {role}")
    assert_fails(driver, "does not have permission", passes=False)


def test_a_server_that_is_read_only(store: PostgresqlKVS, postgres_server: PostgresServer) -> None:
    alter = f"ALTER DATABASE {postgres_server.dbname}"
    postgres_server.execute(f"{alter} SET default_transaction_read_only = on")
    try:
        store.close()
        assert_fails(store, "read-only", passes=True)
    finally:
        postgres_server.execute(f"{alter} RESET ALL", dbname="postgres")
    assert store.ping()


def test_a_full_disk(store: PostgresqlKVS, postgres_server: PostgresServer, tmp_path: Path) -> None:
    """The table is on a device that is full, for new pages."""
    (oid, path), *_ = postgres_server.execute(
        "SELECT oid::int8, pg_relation_filepath(oid) FROM pg_class WHERE relname = 'kvs'"
    )
    del oid
    file = postgres_server.data / path
    store.close()
    postgres_server.execute("CHECKPOINT")
    file.unlink()
    file.symlink_to("/dev/full")
    try:
        assert_fails(store, "DiskFull", passes=True)
    finally:
        file.unlink()
        with suppress(Exception):
            postgres_server.execute("DROP TABLE kvs")


def test_tables_that_are_being_created_do_not_delay_a_check(
    make: Make, postgres_server: PostgresServer
) -> None:
    """Another process runs ``pkvs migrate`` and waits in it."""
    with locked(postgres_server, "SELECT pg_advisory_xact_lock(7740114503)") as other:
        other.execute("CREATE TABLE kvs ()")
        assert_fails(make(postgres_server, statement_timeout=0.5), "does not exist", passes=False)

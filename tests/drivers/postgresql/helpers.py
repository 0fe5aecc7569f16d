"""What the tests of the postgresql driver share."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pyramid_kvs.kvs import KVS
from tests.servers import PostgresServer, wait_until

# All test modules import this one.
psycopg = pytest.importorskip("psycopg", reason="pip install 'pyramid_kvs[postgresql]'")

from pyramid_kvs.drivers.postgresql import PostgresqlKVS  # noqa: E402
from pyramid_kvs.drivers.postgresql.connection import CAN_CANCEL  # noqa: E402

__all__ = ["CAN_CANCEL", "PostgresqlKVS", "psycopg"]

Make = Callable[..., PostgresqlKVS]


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


def run_at_once(driver: KVS, server: PostgresServer, count: int) -> None:
    """Make the driver open this many connections."""
    for number in range(count):
        driver.set(f"at once {number}", 0)
    with ThreadPoolExecutor(count) as pool, locked(server):
        for number in range(count):
            pool.submit(driver.set, f"at once {number}", 1)
        wait_for_blocked(server, count)


def count_at_once(driver: KVS, threads: int = 8, each: int = 25) -> None:
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda _: [driver.incr("at once") for _ in range(each)], range(threads)))
    assert driver.get("at once") == threads * each


def limited_role(server: PostgresServer, options: str = "") -> str:
    """Return the URL of a role that has permission to use the tables and nothing else."""
    role = f"role_{random.randrange(10**9)}"
    server.execute(
        f"CREATE ROLE {role} LOGIN {options}; REVOKE CREATE ON SCHEMA public FROM PUBLIC;"
        f"GRANT USAGE ON SCHEMA public TO {role};"
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON kvs TO {role};"
        f"GRANT SELECT ON kvs_version TO {role}"
    )
    return server.url.replace("postgres@", f"{role}@")

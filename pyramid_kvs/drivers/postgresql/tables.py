"""Create the postgresql driver's tables."""

from __future__ import annotations

import logging

from ...exceptions import KVSError
from .client import Client
from .columns import from_int8
from .statements import Statement, schema

log = logging.getLogger("pyramid_kvs.drivers.postgresql")

VERSION = 1

#: Two processes that start at once create the tables one after the other. Without the lock,
#: IF NOT EXISTS fails with "table or index already exists".
PROLOGUE = """SET LOCAL statement_timeout = '50s';
SELECT pg_advisory_xact_lock(7740114503);
"""
TIMEOUT = 60


def create_tables(
    client: Client, statements: dict[str, Statement], unlogged: bool, dry_run: bool
) -> None:
    """Create the tables, unless they exist. Then no permission to create tables is needed."""
    if _found_version(client, statements) == VERSION:
        log.info("table %s exists, in version %s: nothing to do", client.table, VERSION)
        return
    sql = schema(client.table, unlogged)
    log.info("%s:\n%s", "this would run" if dry_run else "running", sql)
    if not dry_run:
        client.run_script(PROLOGUE + sql, TIMEOUT)


def _found_version(client: Client, statements: dict[str, Statement]) -> int | None:
    result = client.run(statements["find_tables"], repeatable=True)
    if result.get_value(0, 0) != b"\x01" or result.get_value(0, 1) != b"\x01":
        return None
    found = client.run(statements["version"], repeatable=True).get_value(0, 0)
    version = None if found is None else from_int8(found)
    if version is not None and version > VERSION:
        raise KVSError(
            f"table {client.table!r} has version {version}; this release of pyramid_kvs knows "
            f"version {VERSION}: install a newer release"
        )
    return version

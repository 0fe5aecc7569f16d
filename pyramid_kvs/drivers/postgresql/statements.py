"""The SQL of the postgresql driver."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from importlib.resources import files
from typing import NamedTuple

from psycopg.pq import Format

#: A parameter in binary form.
Param = bytes | None


class Statement(NamedTuple):
    """A statement whose parameters and results are in binary form."""

    sql: bytes
    #: Made from the SQL, so that behind a pooler the name cannot mean another statement.
    name: bytes
    formats: list[int]


def statement(sql: str) -> Statement:
    """Return a statement with parameters ``$1``, ``$2``..., each of which has a cast."""
    text = " ".join(sql.split()).encode()
    name = b"kvs_" + hashlib.sha256(text).hexdigest()[:32].encode()
    count = sum(f"${number}::".encode() in text for number in range(1, 10))
    return Statement(text, name, [Format.BINARY] * count)


LIVE = "(t.expires IS NULL OR t.expires > now())"
COLUMNS = "(expires, is_text, key, long_key, data)"
ROW = "(now() + $5::float8 * interval '1 second', $4::boolean, $1::bytea, $2::bytea, $3::bytea)"
REPLACE = "data = excluded.data, is_text = excluded.is_text, expires = excluded.expires"
#: A row without a key that has the server's time in milliseconds since 1970.
TIME = """
    UNION ALL
    SELECT NULL::bytea,
        decode((extract(epoch FROM clock_timestamp()) * 1000)::int8::text, 'escape'), NULL::boolean
"""
#: The result of a compare-and-set: whether it was done, or else the data at the key. Its second
#: arm sees the table as it was when the statement began.
OUTCOME = """
    SELECT true, NULL::bytea, NULL::boolean FROM done
    UNION ALL
    SELECT false, t.data, t.is_text FROM {table} t
    WHERE t.key = $1::bytea AND {live} AND NOT EXISTS (SELECT FROM done)
"""

SQL = {
    "get": "SELECT t.data, t.is_text FROM {table} t WHERE t.key = $1::bytea AND {live}",
    "get_with_ttl": """
        SELECT t.data, t.is_text, date_part('epoch', t.expires - now()) FROM {table} t
        WHERE t.key = $1::bytea AND {live}
    """,
    "get_many": """
        SELECT t.key, t.data, t.is_text FROM {table} t
        WHERE t.key = ANY ($1::bytea[]) AND {live}
    """,
    "load_renewed": """
        WITH done AS (
            UPDATE {table} t SET expires = now() + $2::float8 * interval '1 second'
            WHERE t.key = $1::bytea AND {live} AND (
                t.expires IS NULL
                OR t.expires < now() + $3::float8 * interval '1 second'
                OR t.expires > now() + $2::float8 * interval '1 second')
            RETURNING t.data, t.is_text)
        SELECT data, is_text FROM done
        UNION ALL
        SELECT t.data, t.is_text FROM {table} t
        WHERE t.key = $1::bytea AND {live} AND NOT EXISTS (SELECT FROM done)
    """,
    "load_with": """
        WITH done AS (
            UPDATE {table} t SET expires = now() + $2::float8 * interval '1 second'
            WHERE t.key = $1::bytea AND {live} AND (
                t.expires IS NULL
                OR t.expires < now() + $3::float8 * interval '1 second'
                OR t.expires > now() + $2::float8 * interval '1 second')
            RETURNING t.key, t.data, t.is_text)
        SELECT key, data, is_text FROM done
        UNION ALL
        SELECT t.key, t.data, t.is_text FROM {table} t
        WHERE t.key = ANY ($4::bytea[]) AND {live} AND t.key NOT IN (SELECT key FROM done)
    """,
    "set": """
        INSERT INTO {table} AS t {columns} VALUES {row} ON CONFLICT (key) DO UPDATE SET {replace}
    """,
    "set_many": """
        INSERT INTO {table} AS t {columns}
        SELECT now() + $5::float8 * interval '1 second', row.is_text, row.key, row.long_key,
            row.data
        FROM unnest($1::bytea[], $2::bytea[], $3::bytea[], $4::boolean[])
            AS row (key, long_key, data, is_text)
        ORDER BY row.key
        ON CONFLICT (key) DO UPDATE SET {replace}
    """,
    "add": """
        INSERT INTO {table} AS t {columns} VALUES {row} ON CONFLICT (key) DO UPDATE
        SET {replace} WHERE t.expires <= now() RETURNING true
    """,
    "incr": """
        INSERT INTO {table} AS t {columns} VALUES {row} ON CONFLICT (key) DO UPDATE
        SET is_text = true,
            data = CASE WHEN t.expires <= now() THEN excluded.data ELSE decode((
                encode(t.data, 'escape')::numeric + encode(excluded.data, 'escape')::numeric
                )::text, 'escape') END,
            expires = CASE WHEN t.expires <= now() OR t.expires IS NULL THEN excluded.expires
                ELSE t.expires END
        WHERE t.expires <= now()
            OR length(t.data) <= 41 AND encode(t.data, 'escape') ~ '^-?[0-9]{{1,40}}$'
        RETURNING t.data
    """,
    "delete": """
        DELETE FROM {table} t WHERE t.key = $1::bytea RETURNING t.data, t.is_text, {live}
    """,
    # An array of the locked keys, for "key IN (SELECT ...)" may scan the whole table.
    "delete_many": """
        WITH page AS MATERIALIZED (
            SELECT t.key FROM {table} t
            WHERE t.key = ANY ($1::bytea[]) ORDER BY t.key FOR UPDATE)
        DELETE FROM {table} t WHERE t.key = ANY (ARRAY(SELECT key FROM page))
    """,
    "ttl": """
        SELECT extract(epoch FROM t.expires - now())::float8 FROM {table} t
        WHERE t.key = $1::bytea AND {live}
    """,
    "ttl_many": """
        SELECT t.key, extract(epoch FROM t.expires - now())::float8 FROM {table} t
        WHERE t.key = ANY ($1::bytea[]) AND {live}
    """,
    "expire": """
        UPDATE {table} t SET expires = now() + $2::float8 * interval '1 second'
        WHERE t.key = $1::bytea AND {live} RETURNING true
    """,
    "swap_absent": """
        WITH done AS (
            INSERT INTO {table} AS t {columns} VALUES {row} ON CONFLICT (key) DO UPDATE
            SET {replace} WHERE t.expires <= now() RETURNING true)
        {outcome}
    """,
    "swap": """
        WITH done AS (
            UPDATE {table} t SET data = $3::bytea, is_text = $4::boolean,
                expires = now() + $5::float8 * interval '1 second'
            WHERE t.key = $1::bytea AND {live} AND t.data = $2::bytea RETURNING true)
        {outcome}
    """,
    "swap_many": """
        WITH wanted AS MATERIALIZED (
            SELECT * FROM unnest(
                $1::bytea[], $2::bytea[], $3::bytea[], $4::bytea[], $5::boolean[], $6::float8[]
            ) AS row (key, long_key, old, data, is_text, ttl)),
        done AS (
            INSERT INTO {table} AS t {columns}
            SELECT now() + w.ttl * interval '1 second', w.is_text, w.key, w.long_key, w.data
            FROM wanted w
            WHERE w.old IS NULL
                OR EXISTS (SELECT FROM {table} t WHERE t.key = w.key AND {live})
            ORDER BY w.key
            ON CONFLICT (key) DO UPDATE SET {replace}
            WHERE (SELECT CASE WHEN {live} THEN t.data = w.old ELSE w.old IS NULL END
                FROM wanted w WHERE w.key = t.key)
            RETURNING t.key)
        SELECT key, true, NULL::bytea, NULL::boolean FROM done
        UNION ALL
        SELECT t.key, false, t.data, t.is_text FROM {table} t
        WHERE t.key = ANY ($1::bytea[]) AND {live} AND t.key NOT IN (SELECT key FROM done)
    """,
    "swap_removed": """
        WITH done AS (
            DELETE FROM {table} t
            WHERE t.key = $1::bytea AND {live} AND t.data = $2::bytea RETURNING true)
        {outcome}
    """,
    "scan": """
        WITH page AS MATERIALIZED (
            SELECT t.key, coalesce(t.long_key, t.key) AS full_key, {live} AS is_live
            FROM {table} t
            WHERE t.key >= $1::bytea AND ($2::bytea IS NULL OR t.key < $2::bytea)
            ORDER BY t.key LIMIT $4::int8)
        SELECT full_key, NULL::bytea FROM page WHERE is_live AND full_key LIKE $3::bytea
        UNION ALL
        (SELECT NULL::bytea, key FROM page ORDER BY key OFFSET $4::int8 - 1)
    """,
    "flush": """
        WITH page AS MATERIALIZED (
            SELECT t.key, coalesce(t.long_key, t.key) AS full_key FROM {table} t
            WHERE t.key >= $1::bytea AND ($2::bytea IS NULL OR t.key < $2::bytea)
            ORDER BY t.key LIMIT $4::int8 FOR UPDATE),
        done AS (
            DELETE FROM {table} t
            WHERE t.key = ANY (ARRAY(SELECT key FROM page WHERE full_key LIKE $3::bytea)))
        SELECT NULL::bytea, key FROM page ORDER BY key OFFSET $4::int8 - 1
    """,
    "purge": """
        WITH page AS MATERIALIZED (
            SELECT t.ctid FROM {table} t
            WHERE t.ctid >= $1::text::tid AND t.ctid < $2::text::tid AND t.expires <= now()
            LIMIT $3::int8 FOR UPDATE SKIP LOCKED),
        done AS (
            DELETE FROM {table} t
            WHERE t.ctid = ANY (ARRAY(SELECT ctid FROM page)) AND t.expires <= now()
            RETURNING true)
        SELECT (SELECT count(*) FROM done),
            pg_relation_size('{table}') / current_setting('block_size')::int8
    """,
    "find_tables": """
        SELECT to_regclass('{table}') IS NOT NULL, to_regclass('{version_table}') IS NOT NULL
    """,
    "version": "SELECT max(version)::int8 FROM {version_table}",
}
SQL |= {f"{name}_timed": SQL[name] + TIME for name in ("get_many", "load_with")}


def quoted(table: str) -> str:
    """Return a checked table name as SQL."""
    return ".".join(f'"{part}"' for part in table.split("."))


@lru_cache
def statements(table: str) -> dict[str, Statement]:
    """Return the statements by name, for one table."""
    tables = {"table": quoted(table), "version_table": quoted(f"{table}_version")}
    parts = {"row": ROW, "columns": COLUMNS, "replace": REPLACE, "live": LIVE}
    outcome = OUTCOME.format(**tables, **parts)
    return {
        name: statement(sql.format(**tables, **parts, outcome=outcome)) for name, sql in SQL.items()
    }


def schema(table: str = "kvs", unlogged: bool = False) -> str:
    """Return the SQL that creates the tables, if they do not exist."""
    sql = files(__package__).joinpath("schema.sql").read_text("utf-8")
    names = {"kvs": quoted(table), "kvs_version": quoted(f"{table}_version")}
    sql = re.sub(r"\bkvs(_version)?\b", lambda match: names[match[0]], sql)
    sql = re.sub(r"--.*", "", sql)
    if unlogged:
        sql = sql.replace("CREATE TABLE", "CREATE UNLOGGED TABLE", 1)
    return re.sub(r"\s*\n(\s*\n)*", "\n", sql).strip()

"""The postgresql driver: one table, and one statement and round trip for each operation."""

from __future__ import annotations

import hashlib
import logging
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg

from ..exceptions import KVSError, KVSUnavailable, ValueTooLarge
from ..kvs import DONE, KVS, Data, Stored, Swap, decode_key, encode_key, unknown_name
from . import libpq
from .libpq import BOOL, BYTEA, FLOAT8, Param, Statement, array, boolean, float8, int8
from .statements import schema, statements
from .waiting_pool import WaitingPool

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

log = logging.getLogger(__name__)

VERSION = 1

#: A B-tree entry holds about 2,700 bytes. What is longer than this is shortened, to a length
#: that no key stored as it is has.
LONGEST_KEY = 1000
#: A message of the protocol and a field both end at 1 GB.
LARGEST = 1_000_000_000
#: The longest life, 30,000 years: the end of timestamptz is not far behind.
LONGEST_TTL = 1e12

#: A renewal within this part of the ttl, and this many seconds, is left out: a session that is
#: read all the time is not written all the time.
RENEWAL_SLACK = 0.1
RENEWAL_SLACK_SECONDS = 60.0

#: After every so many rows written, as many pages of the table are searched for expired rows:
#: one page for each row, which is more than a row fills.
PURGE_EVERY = 16
PURGE_PAGES = 128
PURGE_ROWS_OF_PAGE = 6

SCAN_ROWS = 10_000
FLUSH_ROWS = 1_000


# -- kvs_kwargs ------------------------------------------------------------------------------


class Options(NamedTuple):
    """What ``kvs_kwargs`` may hold; times in seconds."""

    url: str = "postgresql://"
    pool_size: int = 10
    max_overflow: int = 10
    max_backlog: int = -1
    pool_timeout: float = 0.5
    pool_recycle: float = -1
    statement_timeout: float = 2.0
    table: str = "kvs"
    unlogged: bool = False
    prepare: bool | str = "auto"


def read_options(kwargs: Mapping[str, Any]) -> Options:
    """Return ``kvs_kwargs``, checked.

    :raises TypeError: an unknown key.
    :raises ValueError: a value that is not allowed.
    """
    for name, value in kwargs.items():
        if name not in CHECKS:
            raise TypeError(unknown_name("key", name, sorted(CHECKS)))
        is_allowed, allowed = CHECKS[name]
        if not is_allowed(value):
            found = "a value that is not shown" if name == "url" else repr(value)
            raise ValueError(f"{name}: found {found}, expected {allowed}")
    return Options(**kwargs)


def _is_whole(least: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and value >= least


def _is_seconds(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value <= 86400


def _is_seconds_or_never(value: Any) -> bool:
    return value == -1 or (type(value) in (int, float) and 0 < value < float("inf"))


def _is_table(value: Any) -> bool:
    parts = value.split(".") if isinstance(value, str) else []
    return 1 <= len(parts) <= 2 and all(
        re.fullmatch(r"[^\W\d][\w$]*", part) and len(part.encode()) <= 55 for part in parts
    )


CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "url": (
        lambda value: isinstance(value, str),
        "a text, for example 'postgresql://user:password@localhost:5432/dbname'",
    ),
    "pool_size": (_is_whole(1), "a whole number from 1"),
    "max_overflow": (_is_whole(-1), "a whole number from 0, or -1: any number"),
    "max_backlog": (_is_whole(-1), "a whole number from 0, or -1: any number"),
    "pool_timeout": (_is_seconds, "a number of seconds above 0, at most 86400"),
    "pool_recycle": (_is_seconds_or_never, "a number of seconds above 0, or -1: never"),
    "statement_timeout": (_is_seconds, "a number of seconds above 0, at most 86400"),
    "table": (
        _is_table,
        "a name like 'kvs' or 'myschema.kvs': letters, digits and underscores, "
        "at most 55 bytes each, no quotes",
    ),
    "unlogged": (lambda value: isinstance(value, bool), "true or false"),
    "prepare": (
        lambda value: value == "auto" or isinstance(value, bool),
        "'auto', true or false",
    ),
}


# -- keys and data ---------------------------------------------------------------------------


def stored_key(full_key: bytes) -> tuple[bytes, bytes | None]:
    """Return the columns ``key`` and ``long_key``."""
    if len(full_key) <= LONGEST_KEY:
        return full_key, None
    return full_key[:LONGEST_KEY] + hashlib.sha256(full_key).digest(), full_key


def encode_data(data: Data) -> tuple[bytes, bytes]:
    """Return the columns ``data`` and ``is_text``."""
    if isinstance(data, str):
        return data.encode("utf-8", "surrogatepass"), boolean(True)
    return bytes(data), boolean(False)


def decode_data(data: bytes, is_text: bytes) -> Data:
    return data.decode("utf-8", "surrogatepass") if is_text == b"\x01" else data


def seconds(ttl: float | None) -> bytes | None:
    return None if ttl is None else float8(min(ttl, LONGEST_TTL))


def successor(prefix: bytes) -> bytes | None:
    """Return the least key above all that begin with the prefix; ``None``: there is none."""
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes([kept[-1] + 1]) if kept else None


def like(prefix: bytes, pattern: str) -> bytes:
    """Return a LIKE pattern of bytes that matches at least what the pattern of text does."""
    rest = _escaped(encode_key(pattern)).replace(b"*", b"%").replace(b"?", b"_%")
    return _escaped(prefix) + rest


def _escaped(literal: bytes) -> bytes:
    return re.sub(rb"([\\%_])", rb"\\\1", literal)


def regex(pattern: str) -> re.Pattern[str]:
    special = {"*": ".*", "?": "."}
    parts = re.findall(r"\*+|\?|[^*?]+", pattern)
    return re.compile("".join(special.get(part[0], re.escape(part)) for part in parts), re.DOTALL)


# -- the client ------------------------------------------------------------------------------


class Client:
    """A pool, and what may be done again when a connection turns out to be dead.

    A call ends within ``pool_timeout`` + ``statement_timeout`` + ``GRACE`` seconds: 2.7 by
    default.
    """

    #: How much later than the server's own time-out ours comes.
    GRACE = 0.2
    ASIDE_TIMEOUT = 0.25
    CONNECT_TIMEOUT = 2.0
    ATTEMPTS = 4

    def __init__(self, options: Options) -> None:
        self.table = options.table
        self._statement_timeout = options.statement_timeout + self.GRACE
        self._patience = options.pool_timeout + self._statement_timeout
        self._prepares = options.prepare is not False
        self._prepares_always = options.prepare is True
        self._server = libpq.Server(
            options.url,
            {
                "statement_timeout": str(max(1, round(options.statement_timeout * 1000))),
                "default_transaction_isolation": r"read\ committed",
            },
            self.CONNECT_TIMEOUT,
        )
        self._pool = WaitingPool(
            self._connect,
            options.pool_size,
            options.max_overflow,
            options.max_backlog,
            options.pool_timeout,
            options.pool_recycle,
        )

    def run(
        self,
        statement: Statement,
        params: Sequence[Param] = (),
        repeatable: bool = False,
    ) -> PGresult:
        """Run a statement in a transaction of its own.

        :param repeatable: it may run twice, where a connection broke under way.
        :raises KVSError: see :func:`failure`.
        """
        if sum(len(param) for param in params if param) > LARGEST:
            raise ValueTooLarge(f"PostgreSQL takes at most {LARGEST:,} bytes at once")
        deadline = time.monotonic() + self._patience
        return self._attempt(statement, params, repeatable, deadline, self.ATTEMPTS)

    def _attempt(
        self,
        statement: Statement,
        params: Sequence[Param],
        repeatable: bool,
        deadline: float,
        attempts: int,
    ) -> PGresult:
        try:
            return self._run(statement, params, deadline)
        except psycopg.Error as error:
            if attempts == 1 or not self._may_repeat(error, repeatable):
                raise failure(error, self.table) from error
            attempts = 2 if is_outworn(error) else attempts
        return self._attempt(statement, params, repeatable, deadline, attempts - 1)

    def run_aside(self, statement: Statement, params: Sequence[Param]) -> PGresult:
        """Run what may be left out: soon, without waiting in line, or not at all."""
        try:
            return self._run(statement, params, time.monotonic() + self.ASIDE_TIMEOUT, waits=False)
        except psycopg.Error as error:
            raise failure(error, self.table) from error

    def run_script(self, sql: str, patience: float) -> None:
        """Run several statements in one transaction."""
        deadline = time.monotonic() + patience
        connection = self._pool.take(deadline)
        try:
            connection.run_script(f"BEGIN;\n{sql}\nCOMMIT;", deadline)
        except psycopg.Error as error:
            self._pool.drop(connection)
            raise failure(error, self.table) from error
        except BaseException:
            self._pool.drop(connection)
            raise
        self._pool.give(connection)

    def close(self) -> None:
        self._pool.close()

    def _connect(self, deadline: float) -> libpq.Connection:
        try:
            return self._server.connect(deadline)
        except psycopg.Error as error:
            reason = " ".join(str(error).split())
            raise KVSUnavailable(f"no connection to PostgreSQL: {reason}") from error

    def _run(
        self,
        statement: Statement,
        params: Sequence[Param],
        deadline: float,
        waits: bool = True,
    ) -> PGresult:
        connection = self._pool.take(deadline, waits)
        try:
            until = min(deadline, time.monotonic() + self._statement_timeout)
            result = connection.run(statement, params, until, self._prepares)
        except BaseException as error:
            if isinstance(error, psycopg.Error) and connection.is_idle():
                self._pool.give(connection)
            else:
                self._pool.drop(connection)
            raise
        self._pool.give(connection)
        return result

    def _may_repeat(self, error: psycopg.Error, repeatable: bool) -> bool:
        if error.sqlstate in LOST_STATEMENT and not self._prepares_always:
            if self._prepares:
                log.info("prepared statements are off: a pooler in between does not keep them")
            self._prepares = False
            return True
        if error.sqlstate in ROLLED_BACK:
            return True
        if is_outworn(error):
            self._pool.close()
        return error.sqlstate == READ_ONLY or (repeatable and is_broken(error))


LOST_STATEMENT = {"26000", "42P05"}
ROLLED_BACK = {"40001", "40P01"}
READ_ONLY = "25006"
UNAVAILABLE_CLASSES = {"08", "28", "40", "53", "57", "58"}
UNAVAILABLE = {
    READ_ONLY: "it is read-only, as a standby is",
    "53300": "it has too many connections",
    "57014": "the statement took longer than statement_timeout",
    "57P01": "it is shutting down, or an administrator ended the connection",
    "57P03": "it is starting up or shutting down",
}
REFUSED = {
    "3F000": "the schema of table {table!r} is not there",
    "42P01": "table {table!r} is not there: run 'pkvs migrate' with the application's ini file",
    "42501": "the role may not do this: GRANT SELECT, INSERT, UPDATE, DELETE on table {table!r} "
    "and SELECT on {table}_version; to create them, run pyramid_kvs/drivers/postgresql.sql as "
    "a role that may",
    "42703": "table {table!r} is not one of pyramid_kvs, or of another version",
}


def is_outworn(error: psycopg.Error) -> bool:
    """Return whether the idle connections may be as useless as the one with this error.

    After a failover they lead to the former primary, where a new one may find the present one.
    """
    return is_broken(error) or isinstance(error, libpq.TIMED_OUT) or error.sqlstate == READ_ONLY


def is_broken(error: psycopg.Error) -> bool:
    """Return whether the connection broke, rather than took too long or refused."""
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError) and not isinstance(
            error, libpq.TIMED_OUT
        )
    return error.sqlstate[:2] == "08" or error.sqlstate in ("57P01", "57P02", "57P05")


def failure(error: psycopg.Error, table: str) -> KVSError:
    """Return our error for one of the server or of libpq, without keys or data."""
    state = error.sqlstate
    if isinstance(error, libpq.TIMED_OUT):
        return KVSUnavailable("PostgreSQL did not answer in time")
    if state is None:
        return KVSUnavailable("the connection to PostgreSQL broke")
    if state in UNAVAILABLE or state[:2] in UNAVAILABLE_CLASSES:
        reason = UNAVAILABLE.get(state, f"{type(error).__name__}, SQLSTATE {state}")
        return KVSUnavailable(f"PostgreSQL refuses for now: {reason}")
    if state == "54000":
        return ValueTooLarge("PostgreSQL cannot take a value of this size")
    reason = REFUSED.get(state, f"{type(error).__name__}, SQLSTATE {state}")
    return KVSError(f"PostgreSQL refuses: {reason.format(table=table)}")


# -- the driver ------------------------------------------------------------------------------


class PostgresqlKVS(KVS):
    """Keys and values in one table of a PostgreSQL database.

    Deadlines are kept by the server's clock. Expired rows are invisible at once; some writes
    remove a few of them, and :meth:`purge` all.
    """

    _client: Client

    def _create_client(self, **kwargs: Any) -> Client:
        options = read_options(kwargs)
        self._unlogged = options.unlogged
        self._statements = statements(options.table)
        self._rows_written = 0
        self._page: int | None = None
        return Client(options)

    # -- one key --------------------------------------------------------------------------

    def raw_get(self, key: str, default: Any = None) -> Any:
        result = self._run("get", (self._stored_key(key),), repeatable=True)
        return _data(result) if result.ntuples else default

    def raw_set(self, key: str, data: Data, ttl: float | None) -> None:
        self._run("set", self._row(key, data, ttl), repeatable=True)
        self._purge_now_and_then()

    def raw_add(self, key: str, data: Data, ttl: float | None) -> bool:
        result = self._run("add", self._row(key, data, ttl))
        self._purge_now_and_then()
        return result.ntuples > 0

    def raw_delete(self, key: str) -> Data | None:
        result = self._run("delete", (self._stored_key(key),))
        is_live = result.ntuples and result.get_value(0, 2) == b"\x01"
        return _data(result) if is_live else None

    def raw_incr(self, key: str, delta: int, ttl: float | None) -> int:
        result = self._run("incr", self._row(key, str(delta), ttl))
        self._purge_now_and_then()
        if not result.ntuples:
            raise KVSError("what stands at the key is no whole number")
        return int(result.get_value(0, 0) or b"")

    def raw_ttl(self, key: str) -> float:
        result = self._run("ttl", (self._stored_key(key),), repeatable=True)
        if not result.ntuples:
            return -2.0
        left = result.get_value(0, 0)
        return -1.0 if left is None else libpq.from_float8(left)

    def raw_expire(self, key: str, ttl: float | None) -> bool:
        params = (self._stored_key(key), seconds(ttl))
        return self._run("expire", params, repeatable=True).ntuples > 0

    # -- several keys ---------------------------------------------------------------------

    def raw_get_many(self, keys: list[str]) -> dict[str, Data]:
        by_stored = {self._stored_key(key): key for key in keys}
        wanted = array(BYTEA, list(by_stored))
        result = self._run("get_many", (wanted,), repeatable=True)
        return {
            by_stored[key]: decode_data(data, is_text)  # type: ignore[arg-type, index]
            for key, data, is_text in libpq.rows(result)
        }

    def raw_set_many(self, mapping: Mapping[str, Data], ttl: float | None) -> None:
        rows = [self._row(key, data, None) for key, data in mapping.items()]
        keys, long_keys, datas, texts, _ = zip(*rows, strict=True)
        params = (
            array(BYTEA, keys),
            array(BYTEA, long_keys),
            array(BYTEA, datas),
            array(BOOL, texts),
            seconds(ttl),
        )
        self._run("set_many", params, repeatable=True)
        self._purge_now_and_then(len(rows))

    def raw_delete_many(self, keys: list[str]) -> None:
        stored = [self._stored_key(key) for key in keys]
        self._run("delete_many", (array(BYTEA, stored),), repeatable=True)

    # -- compare and set ------------------------------------------------------------------

    def raw_load(self, key: str, renew: float | None = None) -> Stored | None:
        """Return the data; see :meth:`KVS.raw_load`.

        :param renew: not written where more than 90 % of it is left, and all but a minute.
        """
        if renew is None:
            data = self.raw_get(key)
            return None if data is None else Stored(data)
        params = (self._stored_key(key), *_renewal(renew))
        result = self._run("load_renewed", params, repeatable=True)
        return Stored(_data(result)) if result.ntuples else None

    def raw_load_many(self, keys: list[str]) -> dict[str, Stored]:
        return {key: Stored(data) for key, data in self.raw_get_many(keys).items()}

    def raw_swap(
        self,
        key: str,
        old: Stored | None,
        data: Data | None,
        ttl: float | None,
        flags: int | None = None,
    ) -> Swap:
        result = self._swap(key, old, data, ttl)
        if result is not None and result.ntuples and result.get_value(0, 0) == b"\x01":
            self._purge_now_and_then()
            return DONE
        current = None
        if result is not None and result.ntuples:
            current = Stored(_data(result, 1))
        if (current and current.data) == (old and old.data):
            # It changed while the statement ran, which therefore shows what was there before.
            current = self.raw_load(key)
        return Swap(data is None and old is None and current is None, current)

    def _swap(
        self, key: str, old: Stored | None, data: Data | None, ttl: float | None
    ) -> PGresult | None:
        if data is None:
            if old is None:
                return None
            return self._run("swap_removed", (self._stored_key(key), encode_data(old.data)[0]))
        if old is None:
            return self._run("swap_absent", self._row(key, data, ttl))
        params = (
            self._stored_key(key),
            encode_data(old.data)[0],
            *encode_data(data),
            seconds(ttl),
        )
        return self._run("swap", params)

    # -- rate limits ----------------------------------------------------------------------

    def raw_load_session(
        self, session_key: str | None, renew: float | None, keys: list[str]
    ) -> tuple[Stored | None, dict[str, Stored]]:
        """Load a session and other keys; see :meth:`KVS.raw_load_session` and :meth:`raw_load`."""
        if session_key is None:
            return None, self.raw_load_many(keys)
        if renew is None:
            found = self.raw_load_many([session_key, *keys])
            return found.pop(session_key, None), found
        by_stored = {self._stored_key(key): key for key in (session_key, *keys)}
        params = (
            self._stored_key(session_key),
            *_renewal(renew),
            array(BYTEA, list(by_stored)),
        )
        result = self._run("load_session", params, repeatable=True)
        found = {
            by_stored[key]: Stored(decode_data(data, is_text))  # type: ignore[arg-type, index]
            for key, data, is_text in libpq.rows(result)
        }
        return found.pop(session_key, None), found

    def raw_swap_many(
        self, swaps: list[tuple[str, Stored | None, Data, float | None]]
    ) -> list[Swap]:
        """Run several swaps in one statement, which takes its locks in the order of the keys."""
        columns = zip(*(self._swap_row(*swap) for swap in swaps), strict=True)
        types = (BYTEA, BYTEA, BYTEA, BYTEA, BOOL, FLOAT8)
        params = [array(oid, column) for oid, column in zip(types, columns, strict=True)]
        result = self._run("swap_many", params)
        self._purge_now_and_then()
        found = {key: rest for key, *rest in libpq.rows(result)}
        return [self._swapped(swap, found.get(self._stored_key(swap[0]))) for swap in swaps]

    def _swap_row(
        self, key: str, old: Stored | None, data: Data, ttl: float | None
    ) -> tuple[bytes | None, ...]:
        row = self._row(key, data, ttl)
        return *row[:2], None if old is None else encode_data(old.data)[0], *row[2:]

    def _swapped(
        self,
        swap: tuple[str, Stored | None, Data, float | None],
        found: list[bytes | None] | None,
    ) -> Swap:
        if found is not None and found[0] == b"\x01":
            return DONE
        current = None if found is None else Stored(decode_data(found[1] or b"", found[2] or b""))
        old = swap[1]
        if (current and current.data) == (old and old.data):
            current = self.raw_load(swap[0])  # see raw_swap
        return Swap(False, current)

    # -- all keys -------------------------------------------------------------------------

    def get_keys(self, pattern: str = "*") -> list[str]:
        matches = regex(pattern).fullmatch
        start = len(self.key_prefix)
        texts = (decode_key(full_key[start:]) for full_key in self._scan("scan", pattern))
        return [text for text in texts if matches(text)]

    def flush(self) -> None:
        for _ in self._scan("flush", "*"):
            pass

    def _scan(self, name: str, pattern: str) -> Iterator[bytes]:
        """Go through the keys that begin as the pattern does, some thousand a round trip."""
        rows = SCAN_ROWS if name == "scan" else FLUSH_ROWS
        head = self._get_key(re.split(r"[*?]", pattern)[0])[:LONGEST_KEY]
        condition = like(self.key_prefix, pattern)
        low: bytes | None = head
        while low is not None:
            params = (low, successor(head), condition, int8(rows))
            result = self._run(name, params, repeatable=True)
            low = None
            for full_key, last in libpq.rows(result):
                if full_key is not None:
                    yield full_key
                elif last is not None:
                    low = last + b"\x00"

    # -- expired rows ---------------------------------------------------------------------

    def purge(self) -> int:
        """Remove all expired rows of the table; return how many there were.

        It goes in steps of one statement each, and leaves out rows that somebody has locked.
        """
        total = page = 0
        pages = 1
        while page < pages:
            result = self._run("purge", _purge_params(page, PURGE_PAGES), repeatable=True)
            removed, pages = _purged(result)
            total += removed
            if removed < PURGE_PAGES * PURGE_ROWS_OF_PAGE:
                page += PURGE_PAGES
        return total

    def _purge_now_and_then(self, rows: int = 1) -> None:
        """Count rows that were written; after some of them, remove a few expired ones."""
        self._rows_written += rows
        if self._rows_written < PURGE_EVERY:
            return
        pages = min(self._rows_written, PURGE_PAGES)
        self._rows_written = 0
        try:
            self._purge_some(pages)
        except KVSError as error:
            log.debug("expired rows were not removed: %s", error)

    def _purge_some(self, pages: int) -> None:
        page = self._page or 0
        purge = self._statements["purge"]
        removed, size = _purged(self._client.run_aside(purge, _purge_params(page, pages)))
        if self._page is None:  # so that short-lived processes do not all begin with the same
            self._page = random.randrange(max(1, size))
        elif removed < pages * PURGE_ROWS_OF_PAGE:
            self._page = page + pages if page + pages < size else 0

    # -- the store ------------------------------------------------------------------------

    def close(self) -> None:
        self._client.close()

    def initialize_schema(self, dry_run: bool = False) -> None:
        """Create the tables, unless they are there, for which no right to create is needed."""
        table = self._client.table
        if self._found_version() == VERSION:
            log.info("table %s is there, of version %s: nothing to do", table, VERSION)
            return
        sql = schema(table, self._unlogged)
        log.info("%s:\n%s", "this would run" if dry_run else "running", sql)
        if not dry_run:
            self._client.run_script(PROLOGUE + sql, patience=60)

    def _found_version(self) -> int | None:
        result = self._run("find_tables", repeatable=True)
        if result.get_value(0, 0) != b"\x01" or result.get_value(0, 1) != b"\x01":
            return None
        found = self._run("version", repeatable=True).get_value(0, 0)
        version = None if found is None else libpq.from_int8(found)
        if version is not None and version > VERSION:
            raise KVSError(
                f"table {self._client.table!r} is of version {version}; this release of "
                f"pyramid_kvs knows {VERSION}: install a newer one"
            )
        return version

    # -- helpers --------------------------------------------------------------------------

    def _run(self, name: str, params: Sequence[Param] = (), repeatable: bool = False) -> PGresult:
        return self._client.run(self._statements[name], params, repeatable)

    def _stored_key(self, key: str) -> bytes:
        return stored_key(self._get_key(key))[0]

    def _row(
        self, key: str, data: Data, ttl: float | None
    ) -> tuple[bytes, bytes | None, bytes, bytes, bytes | None]:
        return *stored_key(self._get_key(key)), *encode_data(data), seconds(ttl)


#: Two processes that start at once do it one after the other. "table or index already exists"
#: is what IF NOT EXISTS gives without the lock.
PROLOGUE = """SET LOCAL statement_timeout = '50s';
SELECT pg_advisory_xact_lock(7740114503);
"""


def _renewal(ttl: float) -> tuple[bytes, bytes]:
    """Return a new ttl, and how much of it must be left for the row to stay as it is."""
    ttl = min(ttl, LONGEST_TTL)
    return float8(ttl), float8(ttl - min(ttl * RENEWAL_SLACK, RENEWAL_SLACK_SECONDS))


def _purge_params(first: int, pages: int) -> tuple[bytes, bytes, bytes]:
    rows = pages * PURGE_ROWS_OF_PAGE
    return b"(%d,0)" % first, b"(%d,0)" % (first + pages), int8(rows)


def _purged(result: PGresult) -> tuple[int, int]:
    """Return how many rows were removed, and how many pages the table has."""
    removed, size = (libpq.from_int8(result.get_value(0, column) or b"") for column in (0, 1))
    return removed, size


def _data(result: PGresult, column: int = 0) -> Data:
    data = result.get_value(0, column)
    is_text = result.get_value(0, column + 1)
    return decode_data(data or b"", is_text or b"")

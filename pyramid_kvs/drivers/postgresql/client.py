"""The postgresql driver's ``kvs_kwargs``, its pool, its repeats and its errors."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg

from ...exceptions import KVSError, KVSUnavailable, ValueTooLarge
from ...messages import unknown_name
from ..waiting_pool import WaitingPool
from . import libpq
from .libpq import Param, Statement

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

log = logging.getLogger("pyramid_kvs.drivers.postgresql")

#: A message of the protocol and a field both end at 1 GB.
LARGEST = 1_000_000_000


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
        "a text, for example 'postgresql://localhost:5432/dbname'",
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
    "and SELECT on {table}_version; to create them, run the driver's schema.sql as a role that may",
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
        return KVSUnavailable("PostgreSQL did not answer within statement_timeout")
    if state is None:
        return KVSUnavailable("the connection to PostgreSQL broke")
    if state in UNAVAILABLE or state[:2] in UNAVAILABLE_CLASSES:
        reason = UNAVAILABLE.get(state, f"{type(error).__name__}, SQLSTATE {state}")
        return KVSUnavailable(f"PostgreSQL refuses for now: {reason}")
    if state == "54000":
        return ValueTooLarge("PostgreSQL cannot take a value of this size")
    reason = REFUSED.get(state, f"{type(error).__name__}, SQLSTATE {state}")
    return KVSError(f"PostgreSQL refuses: {reason.format(table=table)}")

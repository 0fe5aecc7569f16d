"""The postgresql driver's pool, and the calls that are repeated on another connection."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import psycopg

from ...exceptions import KVSUnavailable, ValueTooLarge
from ..pool import Pool
from .connection import Connection
from .errors import (
    LOST_STATEMENT,
    READ_ONLY,
    ROLLED_BACK,
    as_kvs_error,
    is_broken,
    may_lead_elsewhere,
)
from .options import Options
from .server import Server
from .statements import Param, Statement

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

log = logging.getLogger("pyramid_kvs.drivers.postgresql")

#: A message of the protocol and a field both end at 1 GB.
LARGEST = 1_000_000_000


class Client:
    """Runs statements, each in a separate transaction and before a deadline.

    A call ends within ``pool_timeout`` + ``statement_timeout`` + ``GRACE`` seconds, and 0.2
    seconds later if it is canceled on a server that hangs: after 2.9 seconds by default.
    """

    #: How much later than the server's own timeout the client's timeout ends.
    GRACE = 0.2
    ASIDE_TIMEOUT = 0.25
    CONNECT_TIMEOUT = 2.0
    ATTEMPTS = 4

    def __init__(self, options: Options) -> None:
        self.table = options.table
        self._timeout = options.statement_timeout + self.GRACE
        self._prepares = options.prepare is not False
        self._prepares_always = options.prepare is True
        self._server = Server(
            options.url,
            {
                "statement_timeout": str(max(1, round(options.statement_timeout * 1000))),
                "default_transaction_isolation": r"read\ committed",
            },
            self.CONNECT_TIMEOUT,
        )
        self._pool = Pool(
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
        """Run a statement and return its result.

        :param repeatable: it may run twice. It does if the connection broke during the call.
        :raises KVSError: see :func:`.errors.as_kvs_error`.
        """
        if sum(len(param) for param in params if param) > LARGEST:
            raise ValueTooLarge(f"PostgreSQL takes at most {LARGEST:,} bytes at once")
        connection = self._take()
        connection.deadline = connection.taken_at + self._timeout
        return self._attempt(connection, statement, params, repeatable, self.ATTEMPTS)

    def run_aside(self, statement: Statement, params: Sequence[Param]) -> PGresult | None:
        """Run a statement that may be left out: soon, on an idle connection, or not at all."""
        connection = self._pool.take_idle()
        if connection is None:
            return None
        if not connection.is_usable():
            self._pool.drop(connection)
            return None
        connection.deadline = connection.taken_at + self.ASIDE_TIMEOUT
        return self._attempt(connection, statement, params, False, 1)

    def run_script(self, sql: str, timeout: float) -> None:
        """Run several statements in one transaction."""
        connection = self._take()
        connection.deadline = connection.taken_at + timeout
        try:
            connection.run_script(f"BEGIN;\n{sql};\nCOMMIT;")
        except psycopg.Error as error:
            self._give_up(connection)  # it may be in a failed transaction
            raise as_kvs_error(error, self.table) from error
        except BaseException:
            self._give_up(connection)
            raise
        self._pool.give(connection)

    def close(self) -> None:
        self._pool.close()

    def _connect(self, began: float) -> Connection:
        try:
            return self._server.connect(began + self._timeout)
        except psycopg.Error as error:
            raise KVSUnavailable(f"no connection to PostgreSQL: {error}") from error

    def _take(self) -> Connection:
        connection = self._pool.take()
        return connection if connection.is_usable() else self._pool.replace(connection)

    def _give_up(self, connection: Connection) -> None:
        try:
            connection.cancel_statement()
        finally:
            self._pool.drop(connection)

    # -- repeats --------------------------------------------------------------------------

    def _attempt(
        self,
        connection: Connection,
        statement: Statement,
        params: Sequence[Param],
        repeatable: bool,
        attempts: int,
    ) -> PGresult:
        try:
            result = connection.run(statement, params, self._prepares)
        except psycopg.Error as error:
            connection, attempts = self._after(error, connection, repeatable, attempts)
        except BaseException:
            self._give_up(connection)
            raise
        else:
            self._pool.give(connection)
            return result
        return self._attempt(connection, statement, params, repeatable, attempts)

    def _after(
        self, error: psycopg.Error, connection: Connection, repeatable: bool, attempts: int
    ) -> tuple[Connection, int]:
        """Return a connection for another attempt and how many are left, or raise the error."""
        leads_elsewhere = may_lead_elsewhere(error)
        if leads_elsewhere:
            self._pool.close()
        if attempts == 1 or not self._may_repeat(error, connection, repeatable):
            if connection.is_idle():
                self._pool.give(connection)
            else:
                self._give_up(connection)
            raise as_kvs_error(error, self.table) from error
        if not leads_elsewhere:
            return connection, attempts - 1
        deadline, connection = connection.deadline, self._pool.replace(connection)
        connection.deadline = deadline
        return connection, 1

    def _may_repeat(self, error: psycopg.Error, connection: Connection, repeatable: bool) -> bool:
        if error.sqlstate in LOST_STATEMENT:
            self._note_lost_statements(connection)
            return True
        if error.sqlstate == READ_ONLY or error.sqlstate in ROLLED_BACK:
            return True
        return repeatable and is_broken(error)

    def _note_lost_statements(self, connection: Connection) -> None:
        connection.forget_statements()
        if self._prepares and not self._prepares_always:
            log.info("prepared statements are off: a pooler in between does not keep them")
            self._prepares = False

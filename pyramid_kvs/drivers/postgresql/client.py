"""The postgresql driver's client: statements that run before a deadline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg

from ...exceptions import ValueTooLarge
from .connection import Connection
from .connections import Connections
from .errors import as_kvs_error
from .recovery import Recovery
from .statements import Param, Statement

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

#: A message of the protocol and a field both end at 1 GB.
LARGEST = 1_000_000_000


class Client(Connections):
    """Runs statements, each in a separate transaction and before a deadline.

    A call ends within ``pool_timeout`` + ``statement_timeout`` + ``GRACE`` seconds, and 0.2
    seconds later if it is canceled on a server that hangs: after 2.9 seconds by default. See
    :mod:`.recovery` for a call that is repeated. It ends after 2.9 seconds, too.
    """

    ASIDE_TIMEOUT = 0.25

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
        connection = self.take()
        connection.deadline = connection.taken_at + self.timeout
        try:
            result = connection.run(statement, params, self.prepares)
        except psycopg.Error as error:
            recovery = Recovery(self, connection, statement, params, repeatable)
            connection, result = recovery.run(error)
        except BaseException:
            self.give_up(connection)
            raise
        self.pool.give(connection)
        if self.breaker.is_troubled:
            self.breaker.answered()
        return result

    def run_aside(self, statement: Statement, params: Sequence[Param]) -> PGresult | None:
        """Run a statement that may be left out: soon, on an idle connection, or not at all."""
        connection = None if self.breaker.is_troubled else self.pool.take_idle()
        if connection is None:
            return None
        if not connection.is_usable():
            self.pool.drop(connection)
            return None
        connection.deadline = connection.taken_at + self.ASIDE_TIMEOUT
        with self._closing(connection):
            result = connection.run(statement, params, self.prepares)
        self.pool.give(connection)
        return result

    def run_script(self, sql: str, timeout: float) -> None:
        """Run several statements in one transaction."""
        connection = self.take()
        connection.deadline = connection.taken_at + timeout
        with self._closing(connection):  # it may be in a failed transaction
            connection.run_script(f"BEGIN;\n{sql};\nCOMMIT;")
        self.pool.give(connection)

    @contextmanager
    def _closing(self, connection: Connection) -> Iterator[None]:
        """Close the connection if the block raises, and raise the package's error."""
        try:
            yield
        except psycopg.Error as error:
            self.give_up(connection)
            raise as_kvs_error(error, self.table) from error
        except BaseException:
            self.give_up(connection)
            raise

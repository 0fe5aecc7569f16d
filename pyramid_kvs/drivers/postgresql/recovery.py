"""What follows when a statement fails: a probe of the server, a repeat, an error."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

import psycopg

from ...exceptions import KVSUnavailable
from ...kvs.stored import pause
from ..pooled import LONG_IDLE, PROBE_TIMEOUT
from .connection import Connection, cancel
from .connections import Connections
from .errors import (
    LOST_STATEMENT,
    NOT_SUPPORTED,
    READ_ONLY,
    ROLLED_BACK,
    TIMED_OUT,
    as_kvs_error,
    is_broken,
    may_lead_elsewhere,
)
from .statements import Param, Statement, statement

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

#: How much later than the client's timeout a call ends that is repeated after a probe.
EXTRA = 0.5

IS_ALIVE = statement("SELECT true")
IS_STANDBY = statement("SELECT pg_is_in_recovery()")


class Recovery:
    """A call whose statement failed. It is repeated, or it ends with an error.

    The statement was not executed if the server lost it, rolled it back or is read-only. Then it
    is repeated in any case. If the connection broke, nobody knows, and it is repeated if it may
    run twice.

    :param connection: the connection on which the first attempt failed.
    :param repeatable: the statement may run twice.
    """

    def __init__(
        self,
        connections: Connections,
        connection: Connection,
        statement: Statement,
        params: Sequence[Param],
        repeatable: bool,
    ) -> None:
        self._connections = connections
        self._connection = connection
        self._statement = statement
        self._params = params
        self._repeatable = repeatable
        self._attempt = 0
        self._may_move = True

    def run(self, error: psycopg.Error) -> tuple[Connection, PGresult]:
        """Repeat the statement after an error; return the result and the connection it is from.

        :raises KVSError: see :func:`.errors.as_kvs_error`.
        """
        while True:
            self._after(error)
            self._attempt += 1
            try:
                result = self._connection.run(self._statement, self._params, self._prepares())
            except psycopg.Error as following:
                error = following
            except BaseException:
                self._connections.give_up(self._connection)
                raise
            else:
                return self._connection, result

    def _prepares(self) -> bool:
        # A pooler may lead each attempt to another server process.
        return self._connections.prepares and self._attempt < 2

    def _after(self, error: psycopg.Error) -> None:
        """Make ready for another attempt, or raise the error of the call."""
        error = self._explained(error)
        if isinstance(error, TIMED_OUT):
            self._after_timeout(error)
        elif may_lead_elsewhere(error):
            self._after_break(error)
        elif error.sqlstate in LOST_STATEMENT and self._attempt < 3:
            self._connections.note_lost_statements(self._connection)
        elif error.sqlstate in ROLLED_BACK and self._has_time():
            pause(self._attempt + 1)
        else:
            self._end(error)

    def _has_time(self) -> bool:
        return monotonic() < self._connection.deadline - self._connections.GRACE

    def _explained(self, error: psycopg.Error) -> psycopg.Error:
        """Return an error that says that the server is a standby, if that is the reason."""
        if error.sqlstate != NOT_SUPPORTED or not self._connection.is_idle():
            return error
        with suppress(psycopg.Error):
            result = self._connection.run(IS_STANDBY, (), prepare=False)
            if result.get_value(0, 0) == b"\x01":
                return psycopg.errors.ReadOnlySqlTransaction(str(error))
        return error

    # -- another connection ---------------------------------------------------------------

    def _after_break(self, error: psycopg.Error) -> None:
        """Replace a connection that broke or leads to a standby, and all others of the pool.

        After a failover they lead to the former primary. A new one may find the present primary.
        """
        self._connections.pool.close()
        is_safe = self._repeatable or error.sqlstate == READ_ONLY
        if not is_safe or not self._may_move:
            self._end(error)
        deadline = self._connection.deadline
        self._connection = self._connections.pool.replace(self._connection)
        self._connection.deadline = deadline
        self._may_move = False

    def _after_timeout(self, error: psycopg.Error) -> None:
        connection, connections = self._connection, self._connections
        another = self._replace_if_answered() if connection.was_long_idle else None
        if another is None:
            try:
                if not self._attempt:  # else the server answered during this call
                    connections.pool.close()
                    connections.breaker.timed_out(connection.taken_at)
            finally:
                connections.give_up(connection)
            raise as_kvs_error(error, connections.table) from error
        if not self._repeatable:
            connections.pool.give(another)
            raise as_kvs_error(error, connections.table) from error
        self._connection = another
        self._may_move = False

    def _replace_if_answered(self) -> Connection | None:
        """Return a new connection instead of a silent one, if the server answers on it soon.

        Nobody knows whether the server hangs, or a firewall forgot the idle connection. It has
        then forgotten the others that are as old, too.
        """
        connections, silent = self._connections, self._connection
        connections.pool.close_unused_since(silent.taken_at - LONG_IDLE)
        began, request = silent.taken_at, silent.cancel_request()
        deadline = monotonic() + PROBE_TIMEOUT
        silent.taken_at = deadline - connections.timeout
        try:
            another = connections.pool.replace(silent)
        except KVSUnavailable:
            return None
        try:
            another.deadline = deadline
            another.run(IS_ALIVE, (), prepare=False)
            cancel(request)
        except psycopg.Error:
            connections.pool.drop(another)
            return None
        except BaseException:
            connections.pool.drop(another)
            raise
        another.taken_at = began
        another.deadline = began + connections.timeout + EXTRA
        return another

    # -- the end --------------------------------------------------------------------------

    def _end(self, error: psycopg.Error) -> None:
        """Raise the error of the call, after giving back the connection or closing it."""
        connections, connection = self._connections, self._connection
        try:
            if is_broken(error):
                connections.breaker.failed()
            elif connections.breaker.is_troubled:
                connections.breaker.answered()
        finally:
            if connection.is_idle():
                connections.pool.give(connection)
            else:
                connections.give_up(connection)
        raise as_kvs_error(error, connections.table) from error

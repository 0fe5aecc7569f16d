"""The connections to a PostgreSQL server, and what a process knows of the server."""

from __future__ import annotations

import logging

import psycopg

from ...exceptions import KVSUnavailable
from ...kvs import Breaker, Breakers
from ..pool import Pool
from .connection import Connection, cancel
from .errors import TIMED_OUT
from .options import Options
from .server import Server

log = logging.getLogger("pyramid_kvs.drivers.postgresql")


class Connections:
    """A pool of connections with a circuit breaker."""

    #: How much later than the server's own timeout the client's timeout ends.
    GRACE = 0.2
    CONNECT_TIMEOUT = 2.0

    def __init__(self, options: Options) -> None:
        self.table = options.table
        #: How long a call waits for a reply, in seconds.
        self.timeout = options.statement_timeout + self.GRACE
        self.prepares = options.prepare is not False
        self._prepares_always = options.prepare is True
        self._server = Server(
            options.url,
            {
                "statement_timeout": str(max(1, round(options.statement_timeout * 1000))),
                "default_transaction_isolation": r"read\ committed",
            },
            self.CONNECT_TIMEOUT,
        )
        self.breaker = Breaker(f"PostgreSQL at {self._server}", options.breaker)
        self.pool = Pool(
            self._connect,
            options.pool_size,
            options.max_overflow,
            options.max_backlog,
            options.pool_timeout,
            options.pool_recycle,
        )

    def share_breakers(self, breakers: Breakers) -> None:
        self.breaker = breakers.get(self.breaker.server, self.breaker.seconds)

    def databases(self) -> list[str]:
        """Return the database on each of the hosts, as ``host:port/database``."""
        return [f"{host}/{self._server.database}" for host in str(self._server).split(",")]

    def close(self) -> None:
        self.pool.close()

    def give_up(self, connection: Connection) -> None:
        """Close a connection, and cancel what the server still runs for it."""
        try:
            cancel(connection.cancel_request())
        finally:
            self.pool.drop(connection)

    def note_lost_statements(self, connection: Connection) -> None:
        """Prepare the statements of a connection again, or do without from now on."""
        connection.forget_statements()
        if self.prepares and not self._prepares_always:
            log.info("prepared statements are off: a pooler in between does not keep them")
            self.prepares = False

    def take(self) -> Connection:
        if self.breaker.is_troubled:
            self.breaker.admit()
        connection = self.pool.take()
        return connection if connection.is_usable() else self.pool.replace(connection)

    def _connect(self, began: float) -> Connection:
        try:
            return self._server.connect(began + self.timeout)
        except psycopg.Error as error:
            if isinstance(error, TIMED_OUT):
                self.breaker.timed_out(began)
            else:
                self.breaker.failed()
            raise KVSUnavailable(f"no connection to PostgreSQL: {error}") from error

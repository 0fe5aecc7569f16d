"""A PostgreSQL connection, each wait of which ends at a deadline.

psycopg's own connections do not bound the wait for a server that hangs. Neither
``statement_timeout`` nor ``tcp_user_timeout`` ends it, because the kernel of a stopped process
acknowledges what it receives.
"""

from __future__ import annotations

import math
import select
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg import generators, pq
from psycopg.waiting import Wait

from ..pool import Pooled
from .errors import TIMED_OUT, refusal

if TYPE_CHECKING:
    from psycopg.abc import PQGen, PQGenConn
    from psycopg.pq.abc import PGcancelConn, PGconn, PGresult

    from .statements import Param, Statement

if not hasattr(select, "poll"):
    raise ImportError("the postgresql driver needs select.poll, which this system does not have")

T = TypeVar("T")

READ, WRITE = int(Wait.R), int(Wait.W)
EVENTS = {
    READ: select.POLLIN,
    WRITE: select.POLLOUT,
    READ | WRITE: select.POLLIN | select.POLLOUT,
}
BINARY = pq.Format.BINARY
GOOD = (int(pq.ExecStatus.COMMAND_OK), int(pq.ExecStatus.TUPLES_OK))

#: Before libpq 17, psycopg cancels in one call that blocks every thread of the process for as
#: long as the server hangs.
CAN_CANCEL = hasattr(psycopg, "capabilities") and psycopg.capabilities.has_cancel_safe()
CANCEL_TIMEOUT = 0.2


class Connection(Pooled, psycopg.Connection[Any]):
    """One connection, outside of any transaction, used by one thread at a time."""

    #: By ``time.monotonic()``. Each call sets it.
    deadline = 0.0

    def __init__(self, pgconn: PGconn) -> None:
        Pooled.__init__(self)
        psycopg.Connection.__init__(self, pgconn)
        self._statements: set[bytes] = set()
        self._replies = _poll(pgconn.socket, READ)

    def __del__(self, *_: Any) -> None:
        """Close without a ResourceWarning, which psycopg shows: the pool may be collected."""

    def close(self) -> None:
        self.pgconn.finish()

    def is_usable(self) -> bool:
        # An idle connection has nothing to read, unless the server closed it.
        return not self._replies.poll(0)

    def is_idle(self) -> bool:
        """Return whether the server waits for a statement, outside of a transaction."""
        return self.pgconn.transaction_status == pq.TransactionStatus.IDLE

    def run(self, statement: Statement, params: Sequence[Param], prepare: bool) -> PGresult:
        """Send a statement and return its result, both in binary form.

        psycopg's cursors take 9 microseconds longer, of 20.

        :param prepare: keep the server's plan for the next time, under a name.
        :raises psycopg.errors.ConnectionTimeout: no whole reply before the deadline.
        :raises psycopg.OperationalError: the connection broke; ``sqlstate`` is ``None``.
        :raises psycopg.Error: the server refused the statement; ``sqlstate`` says why.
        """
        pgconn, listed = self.pgconn, [*params]  # psycopg 3.1 takes no tuple
        if not prepare:
            pgconn.send_query_params(statement.sql, listed, None, statement.formats, BINARY)
            return self._reply()
        if statement.name not in self._statements:
            pgconn.send_prepare(statement.name, statement.sql)
            self._reply()
            self._statements.add(statement.name)
        pgconn.send_query_prepared(statement.name, listed, statement.formats, BINARY)
        return self._reply()

    def run_script(self, sql: str) -> None:
        """Run several statements without parameters; see :meth:`run` for errors."""
        self.pgconn.send_query(sql.encode())
        self._reply()

    def forget_statements(self) -> None:
        """Prepare statements again, because the server does not have them any more."""
        self._statements.clear()

    def cancel_request(self) -> PGcancelConn | None:
        """Return the request that cancels what the server still runs, or ``None``."""
        is_running = self.pgconn.transaction_status == pq.TransactionStatus.ACTIVE
        return self.pgconn.cancel_conn() if CAN_CANCEL and is_running else None

    def wait(self, gen: PQGen[T], *_: Any, **__: Any) -> T:
        """Run one of psycopg's generators until it ends.

        :raises psycopg.errors.ConnectionTimeout: it does not end before ``deadline``.
        """
        try:
            wanted = next(gen)
            while True:
                replies = self._replies if wanted == READ else _poll(self.pgconn.socket, wanted)
                wanted = gen.send(_ready(replies, self.deadline))
        except StopIteration as end:
            result: T = end.value
            return result

    def _reply(self) -> PGresult:
        results: list[PGresult] = self.wait(generators.execute(self.pgconn))
        for result in results:
            if result.status not in GOOD:
                raise refusal(result, self.pgconn)
        if not results:
            raise psycopg.OperationalError("the server closed the connection")
        return results[-1]


def connect(conninfo: str, deadline: float) -> Connection:
    """Open a connection to one address.

    :raises psycopg.OperationalError: the server does not accept it before the deadline.
    """
    return Connection(_finish(generators.connect(conninfo), deadline))


def cancel(request: PGcancelConn | None) -> None:
    """Cancel on the server the statement of a call that was given up."""
    if request is not None:
        with suppress(psycopg.Error):
            request.start()
            _finish(generators.cancel(request), monotonic() + CANCEL_TIMEOUT)


def _finish(gen: PQGenConn[T], deadline: float) -> T:
    """Run one of psycopg's generators that name the socket, which may change."""
    try:
        descriptor, wanted = next(gen)
        while True:
            ready = _ready(_poll(descriptor, wanted), deadline)
            descriptor, wanted = gen.send(ready)
    except StopIteration as end:
        result: T = end.value
        return result


def _poll(descriptor: int, wanted: int) -> select.poll:
    poll = select.poll()
    poll.register(descriptor, EVENTS[wanted])
    return poll


def _ready(poll: select.poll, deadline: float) -> int:
    """Wait for a socket; return what can be done with it.

    A signal does not restart the time: Python goes on with the rest of it.
    """
    left = deadline - monotonic()
    ready = poll.poll(math.ceil(left * 1000)) if left > 0 else None
    if not ready:
        raise TIMED_OUT("the server does not answer")
    events = ready[0][1]
    can_write = WRITE if events & select.POLLOUT else 0
    # An error or a hang-up is read, too. Then libpq says what happened.
    return can_write | READ if events & ~select.POLLOUT else can_write

"""A PostgreSQL connection on psycopg's wrapper of libpq, each wait of which has a deadline.

``psycopg.Connection`` has no bound for a statement on a server that hangs: neither
``statement_timeout`` nor ``tcp_user_timeout`` end the wait for a stopped process whose kernel
acknowledges what it gets. It costs twice as much besides.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import select
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import psycopg.errors
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ..waiting_pool import Slot

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn, PGresult

Param = bytes | None

BINARY = 1
BYTEA = 17
FLOAT8 = 701
BOOL = 16
READABLE = select.POLLIN
READABLE_OR_WRITABLE = select.POLLIN | select.POLLOUT
GOOD = (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK)
TIMED_OUT = psycopg.errors.ConnectionTimeout


class Statement(NamedTuple):
    """A statement whose parameters and results are in binary form."""

    sql: bytes
    #: Made from the text, so that behind a pooler the name cannot mean another statement.
    name: bytes
    formats: list[int]


def statement(sql: str) -> Statement:
    """Return a statement with parameters ``$1``, ``$2``..., each of which has a cast."""
    text = " ".join(sql.split()).encode()
    name = b"kvs_" + hashlib.sha256(text).hexdigest()[:32].encode()
    count = sum(f"${number}::".encode() in text for number in range(1, 10))
    return Statement(text, name, [BINARY] * count)


# -- parameters and results ------------------------------------------------------------------


def float8(number: float) -> bytes:
    return struct.pack("!d", number)


def from_float8(data: bytes) -> float:
    return float(struct.unpack("!d", data)[0])


def int8(number: int) -> bytes:
    return struct.pack("!q", number)


def from_int8(data: bytes) -> int:
    return int.from_bytes(data, "big", signed=True)


def boolean(value: bool) -> bytes:
    return b"\x01" if value else b"\x00"


def array(oid: int, items: Sequence[Param]) -> bytes:
    """Return a PostgreSQL array with one dimension.

    :param oid: the type of its elements.
    """
    head = struct.pack("!iiI", 1, None in items, oid) + struct.pack("!ii", len(items), 1)
    return head + b"".join(_elements(items))


def _elements(items: Sequence[Param]) -> Iterator[bytes]:
    for item in items:
        if item is None:
            yield b"\xff\xff\xff\xff"
        else:
            yield struct.pack("!i", len(item))
            yield item


def rows(result: PGresult) -> Iterator[tuple[bytes | None, ...]]:
    """Return the rows of a result, ``None`` for null."""
    columns = range(result.nfields)
    for row in range(result.ntuples):
        yield tuple(result.get_value(row, column) for column in columns)


# -- connections -----------------------------------------------------------------------------


class Connection:
    """One connection, outside of any transaction, used by one thread at a time."""

    generation = 0
    slot: Slot | None = None

    def __init__(self, pgconn: PGconn) -> None:
        self.opened_at = time.monotonic()
        self._pgconn = pgconn
        self._prepared: set[bytes] = set()
        pgconn.nonblocking = 1
        self._arrivals = select.poll()
        self._arrivals.register(pgconn.socket, READABLE)

    def is_usable(self) -> bool:
        # An idle connection has nothing to read, unless the server closed it.
        return not self._arrivals.poll(0)

    def is_idle(self) -> bool:
        """Return whether the server waits for a statement, outside of a transaction."""
        return self._pgconn.transaction_status == pq.TransactionStatus.IDLE

    def close(self) -> None:
        """Close without waiting; a statement under way goes on in the server."""
        self._pgconn.finish()

    def run(
        self, statement: Statement, params: Sequence[Param], deadline: float, prepare: bool
    ) -> PGresult:
        """Send a statement and return its result.

        :param prepare: keep the server's plan for the next time, under a name.
        :raises psycopg.errors.ConnectionTimeout: no whole reply before the deadline.
        :raises psycopg.OperationalError: the connection broke; ``sqlstate`` is ``None``.
        :raises psycopg.Error: the server refused the statement; ``sqlstate`` says why.
        """
        pgconn = self._pgconn
        listed = [*params]  # psycopg 3.1 takes no tuple
        if not prepare:
            pgconn.send_query_params(statement.sql, listed, None, statement.formats, BINARY)
            return self._reply(deadline)
        if statement.name not in self._prepared:
            pgconn.send_prepare(statement.name, statement.sql)
            self._reply(deadline)
            self._prepared.add(statement.name)
        pgconn.send_query_prepared(statement.name, listed, statement.formats, BINARY)
        return self._reply(deadline)

    def run_script(self, sql: str, deadline: float) -> None:
        """Run several statements, without parameters; see :meth:`run` for errors."""
        self._pgconn.send_query(sql.encode())
        self._reply(deadline)

    def _reply(self, deadline: float) -> PGresult:
        """Return the last result, of which there is one for each statement of a script."""
        pgconn = self._pgconn
        while pgconn.flush():
            self._wait_to_send(deadline)
        last = None
        while True:
            while pgconn.is_busy():
                _wait(self._arrivals, deadline)
                pgconn.consume_input()
            result = pgconn.get_result()
            if result is None:
                break
            last = result if last is None or last.status in GOOD else last
        if last is None:
            raise psycopg.OperationalError("the server closed the connection")
        if last.status not in GOOD:
            raise _refusal(last, pgconn)
        return last

    def _wait_to_send(self, deadline: float) -> None:
        # A server with a reply under way may stop reading until we read.
        either = select.poll()
        either.register(self._pgconn.socket, READABLE_OR_WRITABLE)
        if _wait(either, deadline) & ~select.POLLOUT:
            self._pgconn.consume_input()


def _wait(poll: select.poll, deadline: float) -> int:
    left = deadline - time.monotonic()
    ready = poll.poll(math.ceil(left * 1000)) if left > 0 else None
    if not ready:
        raise TIMED_OUT("the server does not answer")
    return ready[0][1]


def _refusal(result: PGresult, pgconn: PGconn) -> psycopg.Error:
    """Return the server's error without its DETAIL and CONTEXT, which may hold data."""
    sqlstate = result.error_field(pq.DiagnosticField.SQLSTATE)
    primary = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY)
    if sqlstate is None:  # libpq's own: the connection broke
        return psycopg.OperationalError(_text(pgconn.error_message))
    try:
        found = psycopg.errors.lookup(sqlstate.decode())
    except KeyError:
        return UnknownState(sqlstate.decode(), _text(primary or b""))
    return found(_text(primary or b""))


class UnknownState(psycopg.DatabaseError):
    """An error of the server that psycopg has no name for."""

    def __init__(self, sqlstate: str, message: str) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


def _text(message: bytes) -> str:
    return message.decode("utf-8", "replace").strip()


# -- connecting ------------------------------------------------------------------------------


PORT = re.compile(r"[0-9]{0,5}")
UNREADABLE = (
    "url: libpq cannot read it (it is not shown: it may hold a password); expected "
    "postgresql://host:5432/dbname, with user and password before the host, and %XX for special "
    "characters in them"
)


class Server:
    """Where to connect: what a URL says, host by host.

    :raises ValueError: libpq cannot read the URL; the message shows none of it.
    """

    def __init__(self, url: str, options: Mapping[str, str], connect_timeout: float) -> None:
        self._params = parse(url)
        self._connect_timeout = _connect_timeout(self._params, connect_timeout)
        self._options = " ".join(f"-c {name}={value}" for name, value in options.items())
        self._takes_options = bool(options)

    def connect(self, deadline: float) -> Connection:
        """Open a connection to the first host that takes one.

        :raises psycopg.OperationalError: none does.
        """
        deadline = min(deadline, time.monotonic() + self._connect_timeout)
        try:
            return self._connect(deadline)
        except psycopg.OperationalError as error:
            # pgbouncer: "unsupported startup parameter: options", or "... in options: ..."
            if not self._takes_options or "startup parameter" not in str(error):
                raise
        self._takes_options = False
        return self._connect(deadline)

    def _connect(self, deadline: float) -> Connection:
        hosts = list(_each_host(self._params))
        for number, params in enumerate(hosts):
            left = max(0.0, deadline - time.monotonic())
            until = time.monotonic() + left / (len(hosts) - number)
            try:
                return Connection(_open(self._conninfo(params), until))
            except psycopg.OperationalError:
                if number == len(hosts) - 1:
                    raise
        raise AssertionError("a URL has at least one host")

    def _conninfo(self, params: dict[str, str]) -> bytes:
        params.setdefault("fallback_application_name", "pyramid_kvs")
        params.setdefault("keepalives_idle", "60")  # firewalls forget connections without a word
        if self._takes_options:
            # The last one wins: what the URL says comes after ours.
            own = params.get("options") or os.environ.get("PGOPTIONS", "")
            params["options"] = f"{self._options} {own}".strip()
        return make_conninfo("", **params).encode()


def parse(url: str) -> dict[str, str]:
    """Return libpq's parameters of a connection URI, or of a text of ``key=value`` pairs."""
    try:
        found = conninfo_to_dict(url)
    except psycopg.Error:
        raise ValueError(UNREADABLE) from None
    params = {name: str(value) for name, value in found.items() if value is not None}
    # Parts of a password with "/" or "@" in it, which libpq's messages would show.
    ports = params.get("port", "").split(",")
    if "@" in params.get("host", "") or not all(PORT.fullmatch(port) for port in ports):
        raise ValueError(UNREADABLE)
    return params


def _connect_timeout(params: dict[str, str], default: float) -> float:
    given = params.pop("connect_timeout", "")
    try:
        seconds = int(given)
    except ValueError:
        return default
    return max(seconds, 2) if seconds > 0 else default  # as libpq, but never without end


def _each_host(params: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Split lists of hosts: libpq has no deadline of its own for each where nothing blocks."""
    lists = {
        name: params[name].split(",") for name in ("host", "hostaddr", "port") if name in params
    }
    count = max((len(values) for values in lists.values()), default=1)
    for number in range(count):
        own = {name: values[number % len(values)] for name, values in lists.items()}
        yield {**params, **own}


def _open(conninfo: bytes, deadline: float) -> PGconn:
    pgconn = pq.PGconn.connect_start(conninfo)
    try:
        _finish_connecting(pgconn, deadline)
    except BaseException:
        pgconn.finish()
        raise
    return pgconn


def _finish_connecting(pgconn: PGconn, deadline: float) -> None:
    while pgconn.status != pq.ConnStatus.BAD:
        state = pgconn.connect_poll()
        if state == pq.PollingStatus.OK:
            return
        if state == pq.PollingStatus.FAILED:
            break
        poll = select.poll()  # libpq may have gone on to another socket
        reading = state == pq.PollingStatus.READING
        poll.register(pgconn.socket, READABLE if reading else select.POLLOUT)
        _wait(poll, deadline)
    raise psycopg.OperationalError(_text(pgconn.error_message))

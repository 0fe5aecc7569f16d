"""The errors of PostgreSQL: what they mean for the connection, the call and its caller."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import psycopg.errors
from psycopg.pq import DiagnosticField

from ...exceptions import KVSError, KVSUnavailable, ValueTooLarge

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn, PGresult

TIMED_OUT = psycopg.errors.ConnectionTimeout

#: The server does not have a prepared statement, or it has it already.
LOST_STATEMENT = {"26000", "42P05"}
ROLLED_BACK = {"40001", "40P01"}
READ_ONLY = "25006"
NOT_SUPPORTED = "0A000"
BROKEN = {"57P01", "57P02", "57P05"}
UNAVAILABLE_CLASSES = {"08", "28", "40", "53", "57", "58"}
#: The reasons of states that pass by themselves. An empty one is not worth more than the state.
UNAVAILABLE = {
    "25P03": "",
    "25P04": "the statement took longer than transaction_timeout",
    "55000": "",
    "55006": "",
    "55P03": "a lock was held longer than lock_timeout",
    READ_ONLY: "it is read-only, as a standby is",
    "53300": "it has too many connections",
    "57014": "the statement took longer than statement_timeout",
    "57P01": "it is shutting down, or an administrator ended the connection",
    "57P03": "it is starting up or shutting down",
}
#: Messages of poolers that are full or whose server is down, which have no SQLSTATE.
PASSING = re.compile(
    r"login failed|(cannot|could not|failed to|unable to) (connect|acquire|get|obtain)"
    r"|no more connections|(too many|max(imum)?) (client )?(connection|client)s?|max_client_conn"
    r"|connections?\b.* (closed|lost|reset|refused|terminated|unavailable|exhausted)"
    r"|timed.?out|timeout|crashed|shutting down|starting up|not available|unavailable",
    re.IGNORECASE,
)
#: An internal error, which is the state of such messages.
INTERNAL = "XX000"
REFUSED = {
    "3F000": "the schema of table {table!r} does not exist",
    "42P01": "table {table!r} does not exist: run 'pkvs migrate' with the application's ini file",
    "42501": "the role does not have permission: GRANT SELECT, INSERT, UPDATE, DELETE on table "
    "{table!r} and SELECT on {table}_version; to create the tables, run the driver's schema.sql "
    "as a role that has permission",
    "42703": "table {table!r} does not belong to pyramid_kvs, or to another version of it",
}


class UnknownState(psycopg.DatabaseError):
    """An error of the server that psycopg has no name for."""

    def __init__(self, sqlstate: str, message: str) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


def refusal(result: PGresult, pgconn: PGconn) -> psycopg.Error:
    """Return the server's error without its DETAIL and CONTEXT, which may contain data."""
    sqlstate = result.error_field(DiagnosticField.SQLSTATE)
    primary = result.error_field(DiagnosticField.MESSAGE_PRIMARY)
    if sqlstate is None:  # an error of libpq: the connection broke
        return psycopg.OperationalError(_string(pgconn.error_message))
    try:
        found = psycopg.errors.lookup(sqlstate.decode())
    except KeyError:
        return UnknownState(sqlstate.decode(), _string(primary or b""))
    return found(_string(primary or b""))


def _string(message: bytes) -> str:
    return message.decode("utf-8", "replace").strip()


def may_lead_elsewhere(error: psycopg.Error) -> bool:
    """Return whether the connection, and the others of the pool, may be useless from now on."""
    return is_broken(error) or error.sqlstate == READ_ONLY


def is_broken(error: psycopg.Error) -> bool:
    """Return whether the connection broke, rather than took too long or refused."""
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError) and not isinstance(error, TIMED_OUT)
    return error.sqlstate[:2] == "08" or error.sqlstate in BROKEN


def as_kvs_error(error: psycopg.Error, table: str) -> KVSError:
    """Return our error for one of the server or of libpq, without keys or data."""
    state = error.sqlstate
    if isinstance(error, TIMED_OUT):
        return KVSUnavailable("PostgreSQL did not answer within statement_timeout")
    if state is None:
        return KVSUnavailable("the connection to PostgreSQL broke")
    if _passes(error, state):
        reason = UNAVAILABLE.get(state) or f"{type(error).__name__}, SQLSTATE {state}"
        return KVSUnavailable(f"PostgreSQL refuses for now: {reason}")
    if state == "54000":
        return ValueTooLarge("PostgreSQL cannot store a value of this size")
    reason = REFUSED.get(state, f"{type(error).__name__}, SQLSTATE {state}")
    return KVSError(f"PostgreSQL refuses: {reason.format(table=table)}")


def _passes(error: psycopg.Error, state: str) -> bool:
    """Return whether the server refuses for now, rather than for good."""
    if state == INTERNAL:
        return bool(PASSING.search(str(error)))
    return state in UNAVAILABLE or state[:2] in UNAVAILABLE_CLASSES

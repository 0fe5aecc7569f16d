"""Errors: what memcached, a proxy or a socket says, as an error of the package."""

from __future__ import annotations

from ...exceptions import KVSError, KVSUnavailable, ValueTooLarge


class OutOfStep(Exception):
    """An error line after which nobody knows where the next reply begins."""


class NotConnected(KVSUnavailable):
    """The command was not sent, so it is safe to send it to another server."""


def refusal(server: object, line: str) -> KVSError:
    """Return the error for an error line of a server or a proxy.

    ``SERVER_ERROR`` means that memcached, or the backend of a proxy, cannot serve for now. The
    words after it differ by version and by proxy.
    """
    if line.startswith("SERVER_ERROR"):
        if "too large" in line or "too big" in line:
            return ValueTooLarge(
                f"{server}: the value is larger than its limit for an item (memcached -I)"
            )
        if "out of memory" in line.lower():
            return KVSUnavailable(f"{server} is out of memory")
    if line.startswith(("SERVER_ERROR", "ERROR Too many open connections")) or (
        "unauthenticated" in line
    ):
        return KVSUnavailable(f"{server} answered {line[:100]!r}")
    if line == "ERROR":
        return KVSError(
            f"{server} does not know the meta commands: memcached 1.6 or newer is needed"
        )
    return KVSError(f"{server} answered {line[:100]!r}")


def no_connection(server: object, error: OSError) -> NotConnected:
    """Return the error for a server that accepts no connection."""
    return NotConnected(f"{server} takes no connection: {_reason(error)}")


def no_answer(server: object, error: OSError, timeout: float) -> KVSUnavailable:
    """Return the error for a connection that failed.

    :param timeout: how long the call waited for an answer, in seconds.
    """
    if isinstance(error, TimeoutError):
        return KVSUnavailable(f"{server} did not answer within {timeout:g} s")
    return KVSUnavailable(f"{server} does not answer: {_reason(error)}")


def _reason(error: OSError) -> str:
    return error.strerror or str(error)

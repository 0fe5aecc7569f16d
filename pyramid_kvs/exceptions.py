"""The errors that this library raises. The error of the client library is the ``__cause__``."""

from __future__ import annotations

__all__ = [
    "CodecError",
    "KVSConflict",
    "KVSError",
    "KVSNotSupported",
    "KVSUnavailable",
    "SessionConflict",
    "SessionTooLarge",
    "ValueTooLarge",
]


class KVSError(Exception):
    """Root of all errors of this library. A plain ``KVSError`` is a command that was refused."""

    #: The HTTP status of the answer when a request cannot save its changes. ``None`` if the
    #: application has to be corrected; the error then reaches the server.
    http_status: int | None = 503


class RetryLater(Exception):
    """Marks errors that the library's own exception view answers with 503.

    An application's view for :class:`KVSUnavailable` or :class:`KVSError` is more specific than
    a view for this class, so that it wins without a configuration conflict.
    """


class KVSUnavailable(KVSError, RetryLater):
    """The store does not answer, or refuses for now. The command may or may not have run."""

    #: ``False`` if the command certainly did not run, because it was never sent.
    may_have_run = True


def not_sent(message: str) -> KVSUnavailable:
    """Return the error for a command that was never sent."""
    error = KVSUnavailable(message)
    error.may_have_run = False
    return error


class KVSConflict(KVSError):
    """Other writers changed the key each time that the operation was tried."""


class KVSNotSupported(KVSError, NotImplementedError):
    """This driver, or the server behind it, does not have this operation."""

    http_status = None


class ValueTooLarge(KVSError, ValueError):
    """The value is larger than the store accepts. Nothing was stored."""

    http_status = None


class CodecError(KVSError, ValueError):
    """Stored bytes do not decode with the configured codec."""

    http_status = None


class SessionConflict(KVSConflict):
    """Another request changed the same key of the session (``on_conflict`` is ``"raise"``)."""

    http_status = 409


class SessionTooLarge(ValueTooLarge):
    """The session is larger than ``max_bytes``. The message names its largest keys."""

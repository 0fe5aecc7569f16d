"""The errors that this library raises; the client's own error is the ``__cause__``."""

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
    """Root of all errors of this library; plain: the store refused the command."""


class RetryLater(Exception):
    """Marks errors that the library's own exception view answers with 503.

    An application's view for :class:`KVSUnavailable` or :class:`KVSError` is more specific than
    a view for this class, so that it wins without a configuration conflict.
    """


class KVSUnavailable(KVSError, RetryLater):
    """The store does not answer, or refuses for now; what was asked may or may not be done."""


class KVSConflict(KVSError):
    """Other writers changed the key again and again, up to the bound of the retries."""


class KVSNotSupported(KVSError, NotImplementedError):
    """This driver, or the server behind it, has no such operation."""


class ValueTooLarge(KVSError, ValueError):
    """The value is larger than the store takes; nothing was stored."""


class CodecError(KVSError, ValueError):
    """Stored bytes do not decode with the configured codec."""


class SessionConflict(KVSConflict):
    """Another request changed the same key of the session (``on_conflict`` is ``"raise"``)."""


class SessionTooLarge(ValueTooLarge):
    """The session is larger than ``max_bytes``; the message names its largest keys."""

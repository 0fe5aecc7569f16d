"""redis-py's errors as ours."""

from __future__ import annotations

import re

from redis.exceptions import (
    AskError,
    ClusterCrossSlotError,
    ClusterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)

from ...exceptions import KVSError, KVSNotSupported, KVSUnavailable

_FOR_NOW = re.compile(
    r"\b(READONLY|LOADING|BUSY|MASTERDOWN|OOM|NOAUTH|WRONGPASS|MISCONF|NOREPLICAS|CLUSTERDOWN"
    r"|TRYAGAIN)\b|max number of clients"
)
_REFUSED_FOR_NOW = (ReadOnlyError, OutOfMemoryError, ClusterDownError, TryAgainError)
_OF_CLUSTERS = re.compile(r"CROSSSLOT|MOVED|ASK")
_NO_NUMBER = re.compile(r"not an integer or out of range")


def _reason(error: Exception) -> str:
    """Return what the server said, without keys and values."""
    return re.split(r", with args|\.? *script: ", str(error), maxsplit=1)[0]


def as_kvs_error(error: Exception, server: str) -> KVSError:
    """Return our error for redis-py's; its message says what the server said."""
    reason = _reason(error)
    message = f"redis at {server}: {reason}"
    if "unknown command" in reason:
        error.args = (reason,)  # the rest quotes the key
        return KVSNotSupported(f"{message}; the driver needs Redis 6.2 or newer")
    if isinstance(error, (AskError, ClusterCrossSlotError)) or _OF_CLUSTERS.match(reason):
        return KVSNotSupported(
            f"redis at {server} is a node of a cluster, which the driver cannot follow"
        )
    if not isinstance(error, ResponseError) or isinstance(error, _REFUSED_FOR_NOW):
        return KVSUnavailable(message)
    if _FOR_NOW.search(reason):
        return KVSUnavailable(message)
    if _NO_NUMBER.search(reason):
        return KVSError(f"redis at {server}: the count is no whole number, or too large")
    return KVSError(message)


def spoils_connection(error: ResponseError) -> bool:
    """Return whether to connect anew: to the new master, or since the server hung up."""
    return isinstance(error, ReadOnlyError) or "Protocol error" in str(error)

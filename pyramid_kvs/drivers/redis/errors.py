"""The one place that knows what the errors of redis-py, of redis and of proxies mean."""

from __future__ import annotations

import re

from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterCrossSlotError,
    ClusterDownError,
    MovedError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)

from ...exceptions import KVSError, KVSNotSupported, KVSUnavailable

#: How redis before 7.0 wraps the error of a command inside a script.
_IN_SCRIPT = re.compile(
    r"(?:ERR )?Error running script \(call to \w+\): (?:@\w+: *\d+: *)+-?(?P<said>.*)",
    re.DOTALL,
)
#: What quotes the key or the script, after what the server says.
_DETAILS = re.compile(r", with args|\.? *script: ")

_FOR_NOW = re.compile(
    r"(?:READONLY|LOADING|BUSY|MASTERDOWN|OOM|NOAUTH|WRONGPASS|MISCONF|NOREPLICAS|CLUSTERDOWN"
    r"|TRYAGAIN)\b"
    r"|max number of clients"
)
#: What twemproxy, Envoy, Predixy and Codis say if the server behind them is down.
_OF_PROXIES = re.compile(
    r"connection (?:refused|timed out|reset)|operation timed out|host is down|broken pipe"
    r"|no route to host|network is unreachable|upstream|no server connection"
    r"|server connection close|backend conn|server .*(?:ejected|not available)",
    re.IGNORECASE,
)
_WRITES_ONLY = re.compile(r"(?:OOM|MISCONF|NOREPLICAS)\b")
_REFUSED_FOR_NOW = (ReadOnlyError, OutOfMemoryError, ClusterDownError, TryAgainError)
_CLUSTER_ERRORS: dict[str, type[ResponseError]] = {
    "MOVED": MovedError,
    "ASK": AskError,
    "TRYAGAIN": TryAgainError,
    "CLUSTERDOWN": ClusterDownError,
    "CROSSSLOT": ClusterCrossSlotError,
}
_OF_CLUSTERS = re.compile(r"CROSSSLOT|MOVED|ASK|SELECT is not allowed in cluster mode")
_NO_CLUSTER = re.compile(r"cluster support disabled")
_SELECT = re.compile(r"\bselect\b", re.IGNORECASE)
_NO_DATABASE = re.compile(r"DB index is out of range|invalid DB index", re.IGNORECASE)
_NO_NUMBER = re.compile(r"not an integer or out of range")

#: Where the user and the password of a server are configured.
CREDENTIALS = "'username' and 'password', or the URL"

#: The modes of servers that the driver does not speak to, and the URL for each.
_OTHER_MODES = {
    b"cluster": "is a node of a cluster, which needs a URL with redis+cluster://",
    b"sentinel": "is a sentinel, which needs a URL with redis+sentinel://",
}


def wrong_mode(mode: bytes, server: str) -> KVSError | None:
    """Return the error for a server in a mode that the driver does not support."""
    what = _OTHER_MODES.get(mode)
    return None if what is None else KVSNotSupported(f"{server} {what}")


def as_kvs_error(error: Exception, server: str, credentials: str = CREDENTIALS) -> KVSError:
    """Return the package's error for redis-py's. Its message says what the server said.

    :param server: as messages name it, for example ``redis at 10.0.0.1:6379``.
    :param credentials: where the user and the password are configured.
    """
    reason = _reason(error)
    if is_about_password(error):
        return KVSUnavailable(f"{server}: {reason.rstrip('.')}; check {credentials}")
    if not isinstance(error, ResponseError) or is_for_now(error):
        return KVSUnavailable(f"{server}: {reason}")
    if "unknown command" in reason:
        error.args = (reason,)  # the rest quotes the key
        if _SELECT.search(reason):
            return KVSNotSupported(
                f"{server} has no databases; a sentinel needs a URL with redis+sentinel://"
            )
        return KVSNotSupported(f"{server}: {reason}; the driver needs Redis 6.2 or newer")
    if _NO_CLUSTER.search(reason):
        return KVSNotSupported(f"{server} is not a node of a cluster; it needs a URL with redis://")
    if _is_of_clusters(error, reason):
        return KVSNotSupported(f"{server} {_OTHER_MODES[b'cluster']}")
    if _NO_DATABASE.search(reason):
        return KVSError(
            f"{server}: {reason}; 'db' or the URL names a database that it does not have, "
            "by default from 16 on"
        )
    if _NO_NUMBER.search(reason):
        return KVSError(f"{server}: the count is not an integer, or too large")
    return KVSError(f"{server}: {reason}")


def of_cluster(error: ResponseError) -> ResponseError:
    """Return the error of redis-py for what a node of a cluster says.

    In older versions, such as 5.0, a connection returns a plain error with all words of the node.
    """
    code, _, rest = str(error).partition(" ")
    kind = _CLUSTER_ERRORS.get(code)
    return error if kind is None else kind(rest)


def is_for_now(error: ResponseError) -> bool:
    """Return whether the server, or a proxy in front of it, refuses for now."""
    if isinstance(error, _REFUSED_FOR_NOW):
        return True
    reason = _reason(error)
    return bool(_FOR_NOW.match(reason) or _OF_PROXIES.search(reason))


def is_read_only(error: object) -> bool:
    """Return whether the server is a replica, which did not run a command that writes."""
    if not isinstance(error, ResponseError):
        return False
    return isinstance(error, ReadOnlyError) or _reason(error).startswith("READONLY")


def is_outage(error: ResponseError) -> bool:
    """Return whether the server cannot serve for now.

    While a cluster changes, calls wait, and tell only at their end that it takes too long.
    """
    return is_for_now(error) and not isinstance(
        of_cluster(error), (TryAgainError, ClusterDownError)
    )


def is_of_writes(error: ResponseError) -> bool:
    """Return whether the server refuses to write for now, and still answers what only reads."""
    if is_read_only(error) or isinstance(error, OutOfMemoryError):
        return True
    return _WRITES_ONLY.match(_reason(error)) is not None


def lacks_replicas(error: BaseException) -> bool:
    """Return whether the server refuses to write, and did not, because it lost its replicas."""
    return isinstance(error, ResponseError) and _reason(error).startswith("NOREPLICAS")


def is_about_password(error: BaseException) -> bool:
    """Return whether the user or the password is missing or wrong."""
    return isinstance(error, AuthenticationError)


def spoils_connection(error: ResponseError) -> bool:
    """Return whether to connect again: to the new master, or since the server hung up."""
    reason = _reason(error)
    return is_read_only(error) or "Protocol error" in reason or bool(_OF_PROXIES.search(reason))


def is_unknown_script(error: BaseException | None) -> bool:
    """Return whether the server does not know the hash of a script."""
    return isinstance(error, NoScriptError)


def _is_of_clusters(error: ResponseError, reason: str) -> bool:
    is_known = isinstance(error, (AskError, MovedError, ClusterCrossSlotError))
    return is_known or bool(_OF_CLUSTERS.match(reason))


def _reason(error: Exception) -> str:
    """Return what the server said, without keys and values."""
    text = str(error)
    inside = _IN_SCRIPT.match(text)
    if inside is not None:
        return inside["said"]
    return _DETAILS.split(text, maxsplit=1)[0]

"""URLs of redis and Valkey: one server, a cluster, or a service that sentinels watch."""

from __future__ import annotations

import re
from typing import Any, Literal, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

import redis

from ...messages import closest, unknown_name
from ..resolver import is_address

Kind = Literal["single", "cluster", "sentinel"]

_KINDS: dict[str, Kind] = {"": "single", "+cluster": "cluster", "+sentinel": "sentinel"}
#: The beginning of a scheme, with what redis-py calls it.
_PLAIN = {"redis": "redis", "rediss": "rediss", "valkey": "redis", "valkeys": "rediss"}
#: Each scheme with redis-py's scheme for one server, and the kind.
SCHEMES: dict[str, tuple[str, Kind]] = {
    **{name + end: (plain, kind) for end, kind in _KINDS.items() for name, plain in _PLAIN.items()},
    "unix": ("unix", "single"),
}
PORT = 6379
SENTINEL_PORT = 26379

_URL = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://((?P<user>[^/?#]*)@)?(?P<hosts>[^/?#]*)(?P<path>[^?#]*)"
    r"(\?(?P<query>[^#]*))?",
    re.IGNORECASE,
)
_HOST = re.compile(r"(\[(?P<address>[^\[\]]+)\]|(?P<name>[^\[\]:]*))(:(?P<port>[0-9]*))?")

_UNREADABLE = "url: cannot be read; special characters in a password are percent-encoded"
_CLUSTER_FORM = "redis+cluster://h1:6379,h2:6379"
_SENTINEL_FORM = "redis+sentinel://h1:26379,h2:26379/SERVICE/0"


class RedisURL(NamedTuple):
    """What a URL says."""

    kind: Kind
    #: Host and port of the server, of some nodes of the cluster, or of the sentinels. Empty for a
    #: unix socket.
    hosts: list[tuple[str, int]]
    #: The name under which the sentinels know the primary; empty for the other kinds.
    service: str
    #: ``None`` if the URL has no number.
    db: int | None
    tls: bool
    #: The user, the password and the query, as arguments of redis-py's connections.
    options: dict[str, Any]
    #: redis-py's URL for one server: the only one, or the first host.
    plain: str


def parse_url(url: Any) -> RedisURL:
    """Return what a URL says.

    :raises ValueError: a mistake, or ``TypeError``. The message never has a piece of the password.
    """
    if not isinstance(url, str):
        # not quoted, because it may contain a password
        raise TypeError("url: expected a string such as 'redis://localhost:6379/0'")
    found = _URL.match(url)
    if found is None:
        raise ValueError("url: expected a URL such as 'redis://localhost:6379/0'")
    scheme = found["scheme"].lower()
    if scheme not in SCHEMES:
        hint = f"; all but unix also with +cluster and +sentinel{closest(scheme, SCHEMES)}"
        raise ValueError(f"url: {unknown_name('scheme', scheme, [*_PLAIN, 'unix'], hint)}")
    if found.end() < len(url) or "@" in found["path"]:
        raise ValueError(_UNREADABLE)
    return _read(found, *SCHEMES[scheme])


def kind_of(url: Any) -> Kind:
    """Return the kind that the scheme of a URL names; ``single`` if it cannot be read."""
    found = _URL.match(url) if isinstance(url, str) else None
    scheme = found["scheme"].lower() if found else ""
    return SCHEMES[scheme][1] if scheme in SCHEMES else "single"


def place_of(host: str, port: object) -> str:
    """Return host and port as messages name them, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _read(found: re.Match[str], plain: str, kind: Kind) -> RedisURL:
    path, query = found["path"], found["query"] or ""
    hosts = [] if plain == "unix" else _hosts(found["hosts"], kind)
    service, number = _service_and_database(path, kind) if hosts else ("", _path(found))
    _check_query(query, number)
    user = "" if found["user"] is None else f"{found['user']}@"
    first = found["hosts"].split(",")[0]
    end = (f"/{number}" if hosts else path) + (f"?{query}" if query else "")
    url = f"{plain}://{user}{first}{end}"
    _check_characters(url)
    options: dict[str, Any] = redis.connection.parse_url(url)  # type: ignore[no-untyped-call]
    for name in ("host", "port", "connection_class", "path"):
        options.pop(name, None)
    db = _database(options.pop("db", None), kind)
    return RedisURL(kind, hosts, service, db, plain == "rediss", options, url)


def _check_characters(url: str) -> None:
    """Refuse a password with brackets, or with characters that stand for ``/`` and the like.

    redis-py would quote it.
    """
    try:
        urlsplit(url)
    except ValueError:
        raise ValueError(_UNREADABLE) from None


def _hosts(text: str, kind: Kind) -> list[tuple[str, int]]:
    names = text.split(",")
    if kind == "single" and len(names) > 1:
        raise ValueError(f"url: several hosts: write {_CLUSTER_FORM} or {_SENTINEL_FORM}")
    default = SENTINEL_PORT if kind == "sentinel" else PORT
    hosts = [_host(name, default) for name in names]
    if kind == "single":
        return [(host or "localhost", port) for host, port in hosts]
    if not all(host for host, _ in hosts):
        form = _SENTINEL_FORM if kind == "sentinel" else _CLUSTER_FORM
        raise ValueError(f"url: a host is missing; write {form}")
    return hosts


def _host(text: str, default: int) -> tuple[str, int]:
    found = _HOST.fullmatch(text)
    if found is None or (found["address"] and not is_address(found["address"])):
        raise ValueError(_UNREADABLE)
    port = int(found["port"] or default)
    if not 0 < port < 65536:
        raise ValueError(f"url: the port is {port}, expected an integer from 1 to 65535")
    host = unquote(found["address"] or found["name"])
    try:
        host.encode("idna")
    except UnicodeError:
        raise ValueError("url: expected a host name, or an IPv6 address in brackets") from None
    return host, port


def _service_and_database(path: str, kind: Kind) -> tuple[str, str]:
    """Return the name of the service, and the number of the database or an empty string."""
    if kind != "sentinel":
        if not re.fullmatch(r"(/[0-9]*)?", path):  # redis-py would use database 0
            raise ValueError("url: the number of the database comes after the port, such as /0")
        return "", path[1:]
    service, _, number = path[1:].partition("/")
    if not service or (service.isdecimal() and not number):
        raise ValueError(f"url: the name of the service is missing; write {_SENTINEL_FORM}")
    if not re.fullmatch("[0-9]*", number):
        raise ValueError("url: the number of the database comes after the service, such as /main/0")
    return unquote(service), number


def _path(found: re.Match[str]) -> str:
    """Return no number, if there is a path of a socket, which redis-py takes without the host."""
    if found["hosts"]:
        raise ValueError("url: the path of the socket begins with /; write unix:///path/of/socket")
    if not found["path"]:
        raise ValueError("url: the path of the socket is missing; write unix:///path/of/socket")
    return ""


def _check_query(query: str, number: str) -> None:
    try:
        given = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
    except ValueError:  # "?" in a password begins a query
        raise ValueError(_UNREADABLE) from None
    if number and "db" in given:
        raise TypeError("url: the number of the database is in the path and in the query")


def _database(number: int | None, kind: Kind) -> int | None:
    if kind == "cluster" and number:
        raise ValueError(
            f"url: the database is {number}, but a cluster has database 0 only; "
            f"write {_CLUSTER_FORM}"
        )
    return number

"""Where the postgresql driver connects to: the hosts of a URL, and their addresses."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator, Mapping
from time import monotonic

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ..resolver import is_address, resolver
from .connection import Connection, connect
from .errors import TIMED_OUT

PORT = re.compile(r"[0-9]{0,5}")
UNREADABLE = (
    "url: libpq cannot read it; expected postgresql://host:5432/dbname, with user and password "
    "before the host, and %XX for special characters in them"
)
#: pgbouncer: "unsupported startup parameter: options", or "... in options: ...".
#: RDS Proxy: "currently doesn't support command-line options".
REFUSES_OPTIONS = re.compile(r"option|startup parameter", re.IGNORECASE)

#: Reasons to refuse a connection that are not its options.
UNRELATED = re.compile(
    r"password|authentication|too many|remaining connection|starting up|shutting down|recovery"
    r"|does not exist|not found|refused|unreachable|no such file|SSL|certificate",
    re.IGNORECASE,
)

DEFAULT_HOST = "the default host"
DEFAULT_PORT = "5432"

#: The parameters that can be lists.
ADDRESS: tuple[str, ...] = ("host", "hostaddr", "port")

Params = dict[str, str]


class Server:
    """The servers of a URL, of which the first one that accepts a connection is used.

    :param options: settings of the server for each connection. What the URL says wins.
    :param connect_timeout: in seconds, if the URL does not say it.
    :raises ValueError: libpq cannot read the URL; the message shows none of it.
    """

    def __init__(self, url: str, options: Mapping[str, str], connect_timeout: float) -> None:
        self._params = _writable(parse(url))
        self._connect_timeout = _connect_timeout(self._params, connect_timeout)
        self._options = " ".join(f"-c {name}={value}" for name, value in options.items())
        self._takes_options = bool(options)

    def __str__(self) -> str:
        """Return the hosts and ports, without the rest of the URL."""
        hosts = _each_host(self._params)
        places = ({**host, "port": host.get("port") or DEFAULT_PORT} for host in hosts)
        return ",".join(map(_place, places))

    @property
    def database(self) -> str:
        """The database, with the service whose file may name it; libpq's default is the user."""
        params, environ = self._params, os.environ
        service = params.get("service") or environ.get("PGSERVICE", "")
        user = params.get("user") or environ.get("PGUSER", "")
        return service + (params.get("dbname") or environ.get("PGDATABASE") or user)

    def connect(self, deadline: float) -> Connection:
        """Open a connection to the first address that accepts one.

        :raises psycopg.OperationalError: none does.
        """
        deadline = min(deadline, monotonic() + self._connect_timeout)
        takes_options = self._takes_options  # another thread may find out in the meantime
        try:
            return self._connect(deadline, takes_options)
        except psycopg.OperationalError as error:
            is_related = not isinstance(error, TIMED_OUT) and not UNRELATED.search(str(error))
            if not takes_options or not is_related:
                raise
            return self._connect_without_options(deadline, error)

    def _connect_without_options(
        self, deadline: float, error: psycopg.OperationalError
    ) -> Connection:
        """Open a connection that was refused, maybe because of its options.

        Words that are not known are believed if they come again.
        """
        try:
            connection = self._connect(deadline, takes_options=False)
        except psycopg.OperationalError:
            try:
                raise error from None
            finally:
                del error  # the traceback has this frame
        if not REFUSES_OPTIONS.search(str(error)):
            try:
                with_options = self._connect(deadline, takes_options=True)
            except psycopg.OperationalError as again:
                self._takes_options = str(again) != str(error)
                return connection
            connection.close()
            return with_options
        self._takes_options = False
        return connection

    def _connect(self, deadline: float, takes_options: bool) -> Connection:
        failures: list[psycopg.OperationalError] = []
        attempts = _attempts(self._params, deadline, failures)
        for number, params in enumerate(attempts):
            left = max(0.0, deadline - monotonic())
            until = monotonic() + left / (len(attempts) - number)
            try:
                return connect(self._conninfo(params, takes_options), until)
            except psycopg.OperationalError as error:
                failures.append(_described(error, params))
        raise _all_of(failures)

    def _conninfo(self, params: Params, takes_options: bool) -> str:
        params.setdefault("fallback_application_name", "pyramid_kvs")
        params["client_encoding"] = "UTF8"  # of the SQL, whatever the database has
        params.setdefault("keepalives_idle", "60")  # some firewalls forget silent connections
        if takes_options:
            # The last value wins, so that the URL's options come after ours.
            own = params.get("options") or os.environ.get("PGOPTIONS", "")
            params["options"] = f"{self._options} {own}".strip()
        return make_conninfo("", **params)


def _described(error: psycopg.OperationalError, params: Params) -> psycopg.OperationalError:
    """Return the error in one line, with the address. psycopg 3.1 leaves it out."""
    host, address = params.get("hostaddr") or params.get("host") or DEFAULT_HOST, _place(params)
    if isinstance(error, TIMED_OUT):
        return TIMED_OUT(f"{address} does not answer")
    reason = " ".join(str(error).removeprefix("connection failed: ").split())
    return psycopg.OperationalError(reason if host in reason else f"{address}: {reason}")


def _place(params: Params) -> str:
    host = params.get("hostaddr") or params.get("host") or DEFAULT_HOST
    return f"{host}:{params['port']}" if params.get("port") else host


def _all_of(failures: list[psycopg.OperationalError]) -> psycopg.OperationalError:
    """Return the error for all addresses, which is a timeout if one of them is."""
    is_timeout = any(isinstance(failure, TIMED_OUT) for failure in failures)
    kind = TIMED_OUT if is_timeout else psycopg.OperationalError
    return kind("; ".join(dict.fromkeys(map(str, failures))))


# -- the URL ---------------------------------------------------------------------------------


def parse(url: str) -> Params:
    """Return libpq's parameters of a connection URI, or of a string of ``key=value`` pairs."""
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


def _writable(params: Params) -> Params:
    """Return parameters that choose a server that can be written to, if there are several hosts.

    libpq would take the first host that accepts connections, even a standby.
    """
    given = {"target_session_attrs", "service"} & params.keys()
    if given or {"PGTARGETSESSIONATTRS", "PGSERVICE"} & os.environ.keys():
        return params
    has_several = len(list(_each_host(params))) > 1
    return {**params, "target_session_attrs": "read-write"} if has_several else params


def _connect_timeout(params: Params, default: float) -> float:
    given = params.pop("connect_timeout", "")
    try:
        seconds = int(given)
    except ValueError:
        return default
    return max(seconds, 2) if seconds > 0 else default  # as libpq, but never without an end


# -- hosts and addresses ---------------------------------------------------------------------


def _attempts(
    params: Params, deadline: float, failures: list[psycopg.OperationalError]
) -> list[Params]:
    """Return the parameters of each address; note the host names that are not found.

    libpq knows lists of hosts as well. But where it does not block, it has no deadline for each
    of them, and it looks up their names without any.
    """
    attempts = [
        address
        for host in _each_host(params)
        for address in _each_address(host, deadline, failures)
    ]
    if params.get("load_balance_hosts") == "random":
        random.shuffle(attempts)
    if params.get("target_session_attrs") == "prefer-standby":
        standbys = [{**attempt, "target_session_attrs": "standby"} for attempt in attempts]
        attempts = standbys + [{**attempt, "target_session_attrs": "any"} for attempt in attempts]
    return attempts


def _each_host(params: Params) -> Iterator[Params]:
    lists = {name: value.split(",") for name, value in _addresses_of(params).items()}
    count = max((len(values) for values in lists.values()), default=1)
    for number in range(count):
        own = {name: values[number % len(values)] for name, values in lists.items()}
        yield {**params, **own}


def _addresses_of(params: Params) -> Params:
    """Return the hosts and ports of the URL, or else of the environment, as libpq takes them."""
    given = {name: params[name] for name in ADDRESS if name in params}
    if "service" in params or "PGSERVICE" in os.environ:
        return given  # the file of services may name the hosts
    environ = {name: os.environ.get(f"PG{name.upper()}") for name in ADDRESS}
    return {name: value for name, value in environ.items() if value} | given


def _each_address(
    params: Params, deadline: float, failures: list[psycopg.OperationalError]
) -> list[Params]:
    host = params.get("host", "")
    if not host or "hostaddr" in params or host[0] in "/@" or is_address(host):
        return [params]
    port = params.get("port") or DEFAULT_PORT
    try:
        found = resolver.addresses(host, port, deadline - monotonic())
    except OSError as error:
        kind = TIMED_OUT if isinstance(error, TimeoutError) else psycopg.OperationalError
        failures.append(kind(error.strerror or str(error)))
        return []
    return [{**params, "hostaddr": address} for address in found]

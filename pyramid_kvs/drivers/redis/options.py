"""What ``kvs_kwargs`` may contain: options that cannot serve are refused at the start."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from threading import TIMEOUT_MAX
from typing import Any, NamedTuple

import redis
from redis.retry import Retry

from ...kvs import named_parameters
from ...kvs.breaker import SECONDS, check_seconds
from ...messages import unknown_name
from ..options import PoolOptions, take_pool_options
from .urls import RedisURL, parse_url

_RETRY_OPTIONS = {"retry", "retry_on_error", "retry_on_timeout"}

#: The options of the driver, which redis-py does not have.
NAMES = frozenset({"url", "sentinel_kwargs", "breaker", *PoolOptions._fields})

#: Options of redis-py that the driver would not obey, and why not.
_WITHOUT_EFFECT = {
    "single_connection_client": "the driver has its own pool",
    "cache": "the driver does not use the commands of redis-py, which keep the cache",
    "cache_config": "the driver does not use the commands of redis-py, which keep the cache",
    "event_dispatcher": "the driver does not use the pool of redis-py, which sends the events",
    "maint_notifications_config": "they act on the pool of redis-py, which the driver does not use",
    "oss_cluster_maint_notifications_handler": "the driver asks the nodes of a cluster itself",
}
#: What ``sentinel_kwargs`` may contain beside the timeouts and the options of TLS.
_OF_SENTINELS = ("username", "password", "credential_provider", "client_name")
_FILES = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
_PLACES = ("host", "port", "unix_socket_path")
_FOR_TCP = ("host", "port", "socket_keepalive", "socket_keepalive_options", "ssl")

#: The options of redis-py that the driver obeys, which are those that the documentation describes.
#: A newer version of redis-py may have others, whose effect here nobody has tested.
_OF_REDIS_PY = frozenset(
    {
        *("host", "port", "db", "unix_socket_path", "username", "password", "credential_provider"),
        *("socket_timeout", "socket_connect_timeout", "socket_keepalive", "socket_read_size"),
        *("socket_keepalive_options", "redis_connect_func", "connection_pool", "max_connections"),
        *("retry", "retry_on_error", "retry_on_timeout", "health_check_interval", "protocol"),
        *("client_name", "lib_name", "lib_version", "driver_info"),
        *("encoding", "encoding_errors", "decode_responses", "legacy_responses"),
        *("ssl", "ssl_keyfile", "ssl_certfile", "ssl_password", "ssl_cert_reqs", "ssl_ciphers"),
        *("ssl_ca_certs", "ssl_ca_path", "ssl_ca_data", "ssl_check_hostname", "ssl_min_version"),
        *("ssl_include_verify_flags", "ssl_exclude_verify_flags", "ssl_validate_ocsp"),
        *("ssl_validate_ocsp_stapled", "ssl_ocsp_context", "ssl_ocsp_expected_cert"),
    }
)

#: Options that are not among the arguments of a connection.
_NOT_IN_URL = NAMES | {"connection_pool"}

#: All options that ``kvs_kwargs`` may have.
ACCEPTED = NAMES | _OF_REDIS_PY


class DriverOptions(NamedTuple):
    """The options that redis-py does not have."""

    pool_timeout: float | None
    max_backlog: int
    breaker: float

    @classmethod
    def take(cls, kwargs: dict[str, Any]) -> DriverOptions:
        """Remove the options from ``kvs_kwargs`` and return them.

        :raises ValueError: a value that is not allowed.
        """
        breaker = check_seconds(kwargs.pop("breaker", SECONDS))
        is_set = "pool_timeout" in kwargs
        waiting = take_pool_options(kwargs)
        return cls(waiting.pool_timeout if is_set else None, waiting.max_backlog, breaker)


class Options(NamedTuple):
    """What the transport has to know."""

    #: Seconds that a call may take once it has a connection.
    limit: float
    #: Seconds that one reply may take. ``None`` means no limit.
    timeout: float | None
    max_connections: int
    pool_timeout: float
    max_backlog: int
    #: Seconds for which a server is left alone after a timeout.
    breaker: float
    #: Seconds after which an idle connection is checked. 0 means never.
    health_check_interval: float
    #: redis-py's policy for calls that can be sent again.
    retry: Any

    @classmethod
    def of(cls, pool: Any, sample: Any, given: DriverOptions, retries: bool) -> Options:
        """Return the options that a pool of redis-py and ``kvs_kwargs`` describe.

        :param sample: one of the pool's connections.
        :param retries: whether ``kvs_kwargs`` say how to retry.
        """
        timeouts = (sample.socket_connect_timeout, sample.socket_timeout)
        return cls(
            limit=math.inf if None in timeouts else sum(timeouts),
            timeout=sample.socket_timeout,
            max_connections=pool.max_connections,
            pool_timeout=_pool_timeout(pool, given),
            max_backlog=given.max_backlog,
            breaker=given.breaker,
            health_check_interval=sample.health_check_interval or 0,
            retry=sample.retry if retries else None,
        )


def _pool_timeout(pool: Any, given: DriverOptions) -> float:
    if given.pool_timeout is not None:
        return given.pool_timeout
    if isinstance(pool, redis.BlockingConnectionPool):
        return TIMEOUT_MAX if pool.timeout is None else float(pool.timeout)
    return PoolOptions().pool_timeout


def has_retries(kwargs: Mapping[str, Any]) -> bool:
    """Return whether checked ``kvs_kwargs``, or the URL among them, say how to retry."""
    in_url = parse_url(kwargs["url"]).options if kwargs.get("url") else {}
    return not _RETRY_OPTIONS.isdisjoint({*kwargs, *in_url})


# -- refusals --------------------------------------------------------------------------------


def check_arguments(kwargs: Mapping[str, Any]) -> RedisURL | None:
    """Refuse arguments of ``redis.Redis`` that would have no effect, and a URL with a mistake.

    :returns: what the URL says, if there is one.
    :raises ValueError: a value that cannot serve; or ``TypeError``.
    """
    given = {name: value for name, value in kwargs.items() if value not in (None, False)}
    url = None if kwargs.get("url") is None else parse_url(kwargs["url"])
    for name, why in _WITHOUT_EFFECT.items():
        if name in given or (url is not None and name in url.options):
            raise TypeError(f"{name!r} is not supported: {why}")
    _check_names(kwargs, () if url is None else url.options)
    _check_combinations(given, url)
    if kwargs.get("sentinel_kwargs") is not None:
        _check_sentinel_kwargs(kwargs["sentinel_kwargs"], url)
    return url


def _check_names(given: Iterable[str], in_url: Iterable[str]) -> None:
    for name in in_url:
        if name in _NOT_IN_URL:
            raise TypeError(f"url: {name!r} is not part of it: write it beside 'url'")
    for name in (*given, *in_url):
        if name not in ACCEPTED and name not in _WITHOUT_EFFECT:  # or it is None or False
            raise TypeError(f"unexpected keyword argument {name!r}")


def _check_sentinel_kwargs(given: Any, url: RedisURL | None) -> None:
    if url is None or url.kind != "sentinel":
        raise TypeError("'sentinel_kwargs' has no effect without a URL with redis+sentinel://")
    if not isinstance(given, Mapping):
        raise TypeError('sentinel_kwargs: expected an object such as {"password": "..."}')
    names = named_parameters(redis.Redis)
    known = {*_OF_SENTINELS, *(name for name in names if name.startswith(("socket_", "ssl")))}
    for name in given:
        if name not in known:
            raise TypeError(f"sentinel_kwargs: {unknown_name('option', name, sorted(known))}")


def _check_combinations(given: Mapping[str, Any], url: RedisURL | None) -> None:
    if "connection_pool" in given:
        if getattr(given["connection_pool"], "cache", None) is not None:
            raise TypeError(f"'connection_pool' has a cache: {_WITHOUT_EFFECT['cache']}")
        _exclude("connection_pool", given.keys() - {"connection_pool"})
    elif url is not None:
        _check_beside_url(given, url)
    elif "unix_socket_path" in given:
        tls = [name for name in given if name.startswith("ssl_")]
        _exclude("unix_socket_path", [*(name for name in _FOR_TCP if name in given), *tls])
    elif not given.get("ssl"):
        for name in given:
            if name.startswith("ssl_"):
                raise TypeError(f"{name!r} has no effect without 'ssl': true")


def _check_beside_url(given: Mapping[str, Any], url: RedisURL) -> None:
    in_url = {*url.options, *_PLACES, *(() if url.db is None else ("db",))}
    _exclude("url", given.keys() & in_url)
    if url.kind == "cluster" and given.get("db"):
        raise ValueError(f"db is {given['db']!r}, but a cluster has database 0 only")
    for name in given:
        if name == "ssl" or (name.startswith("ssl_") and not url.tls):
            raise TypeError(f"{name!r}: for TLS, the scheme of the URL has an 's', as in rediss://")


def _exclude(name: str, others: Iterable[str]) -> None:
    for other in sorted(others):
        raise TypeError(f"{name!r} and {other!r} exclude each other")


def check_connection(options: Mapping[str, Any]) -> None:
    """Refuse values of ``connection_kwargs`` that redis-py only notices when it connects."""
    for name in ("socket_timeout", "socket_connect_timeout"):
        timeout = options.get(name)
        if timeout is not None and not (_is_number(timeout) and 0 < timeout <= 86400):
            raise ValueError(
                f"{name} is {timeout!r}, expected seconds above 0, at most 86400, or null"
            )
    _check_integer("port", options.get("port", 6379), 1, 65535)
    _check_integer("db", options.get("db") or 0, 0, 2**31)
    host = options.get("host", "")
    if not isinstance(host, str):
        raise TypeError(f"host is {host!r}, expected a string")
    _check_host(host)
    host.encode("idna")
    if not isinstance(options.get("retry"), (Retry, type(None))):
        raise TypeError("retry is expected to be a redis.retry.Retry")
    for name in _FILES:
        _check_file(name, options.get(name))


def _check_file(name: str, path: str | PathLike[str] | None) -> None:
    try:
        if path is not None:
            Path(path).stat()
    except OSError as error:
        raise ValueError(f"{name}: {str(path)!r}: {error.strerror}") from error


def _check_host(host: str) -> None:
    """Refuse more than a host name. It is not quoted, because it can contain a password."""
    if "/" in host:
        raise ValueError("host: expected a host name; a URL is the value of 'url'")
    if "@" in host:
        raise ValueError("host: expected a host name; 'username' and 'password' are options")
    if re.fullmatch(r"\[.*\](:\d*)?|[^:]*:\d*", host):  # other colons are part of an IPv6 address
        raise ValueError("host: expected a host name or an address; 'port' is an option")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_integer(name: str, value: Any, least: int, most: int) -> None:
    try:
        fits = not isinstance(value, (bool, float)) and least <= int(value) <= most
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise ValueError(f"{name} is {value!r}, expected an integer from {least} to {most}")

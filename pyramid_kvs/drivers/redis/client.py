"""redis-py's client and its connections: made with our time-outs, and checked before use."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import RedisError
from redis.retry import Retry

from ..pool import Pooled

CONNECTIONS = 1000
TIMEOUT = 0.5
RETRY_OPTIONS = {"retry", "retry_on_error", "retry_on_timeout"}


def new_client(url: str | None = None, **kwargs: Any) -> redis.Redis:
    """Return redis-py's client, which is not connected, with the time-outs and retries of ours.

    Left to itself redis-py waits and retries differently in each version, and in ``Redis`` and
    ``Redis.from_url``.

    :raises ValueError: a URL or a value that could not serve; or ``TypeError``.
    """
    if kwargs.get("single_connection_client"):
        raise TypeError("'single_connection_client' is not supported: the driver has its pool")
    try:
        client = _client(url, kwargs)
        _check_options(client.connection_pool.connection_kwargs)
        new_connection(client.connection_pool)
    except RedisError as error:
        raise ValueError(str(error)) from error
    return client


def _client(url: str | None, kwargs: Mapping[str, Any]) -> redis.Redis:
    if kwargs.get("connection_pool") is not None:
        if url is not None:
            raise TypeError("'url' and 'connection_pool' exclude each other")
        return redis.Redis(**kwargs)
    options: dict[str, Any] = {
        "socket_connect_timeout": TIMEOUT,
        "socket_timeout": TIMEOUT,
        "retry": Retry(NoBackoff(), 1 if RETRY_OPTIONS & kwargs.keys() else 0),
        "protocol": 2,
        "max_connections": CONNECTIONS,
        **kwargs,
    }
    make = redis.Redis if url is None else partial(redis.Redis.from_url, _checked_url(url))
    client: redis.Redis = make(**options)
    # redis.Redis does not hand it to unix sockets, whose connect() waits for a hung server too.
    client.connection_pool.connection_kwargs.setdefault(
        "socket_connect_timeout", options["socket_connect_timeout"]
    )
    return client


def new_connection(pool: Any) -> Any:
    """Return a connection as redis-py's pool would make it, not connected."""
    connection = pool.connection_class(**pool.connection_kwargs)
    if "socket_timeout" in pool.connection_kwargs:
        # redis-py 5.0 loses it on the way to a unix socket
        connection.socket_timeout = pool.connection_kwargs["socket_timeout"]
    return connection


def server_name(pool: Any) -> str:
    """Return the name of the server for messages."""
    options = pool.connection_kwargs
    if hasattr(pool, "service_name"):  # of redis-py's sentinel
        return f"service {pool.service_name}"
    if "path" in options:
        return str(options["path"])
    return f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"


def _checked_url(url: Any) -> str:
    if not isinstance(url, str):
        raise TypeError(f"url is {url!r}, expected a text such as 'redis://localhost:6379/0'")
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018
    except ValueError:
        # its message may quote a piece of the password
        raise ValueError(
            "url: cannot be read; special characters in a password are percent-encoded"
        ) from None
    if parts.scheme in ("redis", "rediss") and not re.fullmatch(r"(/[0-9]*)?", parts.path):
        # redis-py would use database 0
        raise ValueError("url: after the port stands the number of the database, such as /0")
    return url


def _check_options(options: Mapping[str, Any]) -> None:
    for name in ("socket_timeout", "socket_connect_timeout"):
        timeout = options.get(name)
        if timeout is not None and not (_is_number(timeout) and timeout > 0):
            raise ValueError(f"{name} is {timeout!r}, expected seconds above 0, or null")
    _check_whole("port", options.get("port", 6379), 1, 65535)
    _check_whole("db", options.get("db") or 0, 0, 2**31)
    host = options.get("host", "")
    if not isinstance(host, str):
        raise TypeError(f"host is {host!r}, expected a text")
    host.encode("idna")
    if not isinstance(options.get("retry"), (Retry, type(None))):
        raise TypeError("retry is expected to be a redis.retry.Retry")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_whole(name: str, value: Any, least: int, most: int) -> None:
    try:
        fits = not isinstance(value, (bool, float)) and least <= int(value) <= most
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise ValueError(f"{name} is {value!r}, expected a whole number from {least} to {most}")


# -- connections -----------------------------------------------------------------------------


class RedisConnection(Pooled):
    """One of redis-py's connections, connected."""

    __slots__ = ("_connection", "read", "send")

    def __init__(self, connection: Any) -> None:
        super().__init__()
        connection.connect()
        self._connection = connection
        self.send = connection.send_packed_command
        self.read = connection.read_response

    def is_alive(self) -> bool:
        """Return whether the server has neither closed it nor sent anything unasked.

        :raises TimeoutError: redis-py's: ``health_check_interval`` was over, and no answer came.
        """
        try:
            if self._connection.can_read(0):
                return False
            self._connection.check_health()
        except (NoConnection, OSError):
            return False
        return True

    def close(self) -> None:
        self._connection.disconnect()

"""redis-py's client, with the driver's timeouts, and its way to make connections."""

from __future__ import annotations

import copy
import inspect
import sys
from collections import deque
from collections.abc import Mapping
from functools import partial
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from .options import RETRY_OPTIONS, check_arguments, check_connection
from .urls import place_of

CONNECTIONS = 1000
TIMEOUT = 0.5


def new_client(kwargs: Mapping[str, Any]) -> redis.Redis:
    """Return redis-py's client, not connected, with the timeouts and retries of this package.

    By default redis-py waits and retries differently in each version, and in ``Redis`` and
    ``Redis.from_url``.

    :raises ValueError: a URL or a value that could not serve; or ``TypeError``.
    """
    url = check_arguments(kwargs)
    if url is not None:
        kwargs = {**kwargs, "url": url.plain}
    try:
        client = _client(**kwargs)
        check_connection(client.connection_pool.connection_kwargs)
        Connections(client.connection_pool).make()
    except RedisError as error:
        raise ValueError(str(error)) from error
    return client


def _client(url: str | None = None, **kwargs: Any) -> redis.Redis:
    if kwargs.get("connection_pool") is not None:
        return redis.Redis(**kwargs)
    options: dict[str, Any] = {
        "socket_connect_timeout": TIMEOUT,
        "socket_timeout": TIMEOUT,
        "retry": Retry(NoBackoff(), 1 if RETRY_OPTIONS & kwargs.keys() else 0),
        "protocol": 2,
        "max_connections": CONNECTIONS,
        **_without_notifications(),
        **kwargs,
    }
    make = redis.Redis if url is None else partial(redis.Redis.from_url, url)
    client: redis.Redis = make(**options)
    # redis.Redis does not hand it to unix sockets, whose connect() waits for a hung server too.
    client.connection_pool.connection_kwargs.setdefault(
        "socket_connect_timeout", options["socket_connect_timeout"]
    )
    return client


def _without_notifications() -> dict[str, Any]:
    """Return what switches off the notices of a maintenance: they act on redis-py's pool."""
    if "maint_notifications_config" not in inspect.signature(redis.Redis).parameters:
        return {}
    from redis.maint_notifications import MaintNotificationsConfig

    return {"maint_notifications_config": MaintNotificationsConfig(enabled=False)}


class Connections:
    """Makes connections as a pool of redis-py does, which neither counts nor keeps them."""

    def __init__(self, pool: Any) -> None:
        self._pool = copy.copy(pool)
        self._pool.max_connections = sys.maxsize
        self._pool._connections = deque(maxlen=0)
        self._pool._available_connections, self._pool._in_use_connections = [], set()
        #: The server's name for messages.
        self.server = _server_name(pool)

    def make(self) -> Any:
        """Return a connection, not connected."""
        connection = self._pool.make_connection()
        if "socket_timeout" in self._pool.connection_kwargs:
            # redis-py 5.0 loses it on the way to a unix socket
            connection.socket_timeout = self._pool.connection_kwargs["socket_timeout"]
        return connection

    def at(self, host: str, port: int) -> Connections:
        """Return what makes the same connections to another address."""
        pool = copy.copy(self._pool)
        pool.connection_kwargs = {**pool.connection_kwargs, "host": host, "port": port}
        return Connections(pool)


def _server_name(pool: Any) -> str:
    options = pool.connection_kwargs
    if hasattr(pool, "service_name"):  # of redis-py's sentinel
        return f"service {pool.service_name}"
    if "path" in options:
        return str(options["path"])
    return place_of(options.get("host", "localhost"), options.get("port", 6379))

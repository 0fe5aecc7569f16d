"""redis-py's client, with the driver's timeouts, and its way to make connections."""

from __future__ import annotations

import copy
import inspect
import sys
from collections import deque
from collections.abc import Mapping
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from .options import check_arguments, check_connection, has_retries
from .urls import RedisURL, place_of

CONNECTIONS = 1000
TIMEOUT = 0.5


def new_client(kwargs: Mapping[str, Any]) -> redis.Redis:
    """Return redis-py's client, not connected, with the timeouts and retries of this package.

    By default redis-py waits and retries differently in each version, and in ``Redis`` and
    ``Redis.from_url``.

    :raises ValueError: a URL or a value that could not serve; or ``TypeError``.
    """
    url = check_arguments(kwargs)
    try:
        client = _client(url, **kwargs)
        check_connection(client.connection_pool.connection_kwargs)
        Connections(client.connection_pool).make()
        for sentinel in _sentinels(client.connection_pool):
            check_connection(sentinel.connection_kwargs)
            Connections(sentinel).make()
    except RedisError as error:
        raise ValueError(str(error)) from error
    return client


def _sentinels(pool: Any) -> list[Any]:
    """Return redis-py's pools for the sentinels of a pool, if it has some."""
    manager = getattr(pool, "sentinel_manager", None)
    return [sentinel.connection_pool for sentinel in manager.sentinels] if manager else []


def _client(
    parsed: RedisURL | None,
    url: str | None = None,
    sentinel_kwargs: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> redis.Redis:
    if kwargs.get("connection_pool") is not None:
        return redis.Redis(**kwargs)
    options = {**_defaults(), "max_connections": CONNECTIONS}
    if has_retries({"url": url, **kwargs}):
        options["retry"] = Retry(NoBackoff(), 1)
    options.update(kwargs)
    client = _made(parsed, options, sentinel_kwargs or {})
    # redis.Redis does not hand it to unix sockets, whose connect() waits for a hung server too.
    client.connection_pool.connection_kwargs.setdefault(
        "socket_connect_timeout", options["socket_connect_timeout"]
    )
    return client


def _made(
    url: RedisURL | None, options: dict[str, Any], sentinel_kwargs: Mapping[str, Any]
) -> redis.Redis:
    if url is None:
        return redis.Redis(**options)
    if url.kind != "sentinel":
        client: redis.Redis = redis.Redis.from_url(url.plain, **options)
        return client
    options = {**options, **url.options}
    if url.db is not None:
        options["db"] = url.db
    for_sentinels = {**_of_sentinels(options, url.tls), **sentinel_kwargs}
    manager = redis.Sentinel(url.hosts, sentinel_kwargs=for_sentinels)  # type: ignore[no-untyped-call]
    return manager.master_for(url.service, ssl=url.tls, **options)  # type: ignore[no-any-return,no-untyped-call]


def _of_sentinels(options: Mapping[str, Any], tls: bool) -> dict[str, Any]:
    """Return what connections to sentinels have from those to the primary: timeouts and TLS."""
    timeouts = {name: options[name] for name in ("socket_timeout", "socket_connect_timeout")}
    secured = {name: value for name, value in options.items() if name.startswith("ssl_")}
    return {**_defaults(), **timeouts, "ssl": tls, **secured}


def _defaults() -> dict[str, Any]:
    return {
        "socket_connect_timeout": TIMEOUT,
        "socket_timeout": TIMEOUT,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        **_without_notifications(),
    }


def _without_notifications() -> dict[str, Any]:
    """Return what switches off the notices of a maintenance: they act on redis-py's pool."""
    if "maint_notifications_config" not in inspect.signature(redis.Redis).parameters:
        return {}
    from redis.maint_notifications import MaintNotificationsConfig

    return {"maint_notifications_config": MaintNotificationsConfig(enabled=False)}


class Connections:
    """Makes connections as a pool of redis-py does, which neither counts nor keeps them."""

    def __init__(self, pool: Any) -> None:
        #: A copy of redis-py's pool.
        self.pool = copy.copy(pool)
        self.pool.max_connections = sys.maxsize
        self.pool._connections = deque(maxlen=0)
        self.pool._available_connections, self.pool._in_use_connections = [], set()
        #: The server's name for messages.
        self.server = _server_name(pool)

    def of_class(self, connection_class: type[Any]) -> Connections:
        """Return what makes connections of another class, which do not know their pool."""
        pool = copy.copy(self.pool)
        pool.connection_class = connection_class
        pool.connection_kwargs = {**pool.connection_kwargs}
        pool.connection_kwargs.pop("connection_pool", None)
        return Connections(pool)

    def make(self) -> Any:
        """Return a connection, not connected."""
        connection = self.pool.make_connection()
        if "socket_timeout" in self.pool.connection_kwargs:
            # redis-py 5.0 loses it on the way to a unix socket
            connection.socket_timeout = self.pool.connection_kwargs["socket_timeout"]
        return connection

    def at(self, host: str, port: int) -> Connections:
        """Return what makes the same connections to another address."""
        pool = copy.copy(self.pool)
        pool.connection_kwargs = {**pool.connection_kwargs, "host": host, "port": port}
        return Connections(pool)


def _server_name(pool: Any) -> str:
    options = pool.connection_kwargs
    if hasattr(pool, "service_name") and "host" not in options:  # of redis-py's sentinel
        return f"service {pool.service_name}"
    if "path" in options:
        return str(options["path"])
    return place_of(options.get("host", "localhost"), options.get("port", 6379))

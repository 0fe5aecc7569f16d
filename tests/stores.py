"""The stores that the suites of sessions, limits and caches run on, each a real server.

The cluster of Valkey is for a separate run, see ``docs/development.rst``: ``-m valkey_cluster``.
"""

from __future__ import annotations

import uuid
from typing import Any

import pytest

VALKEY_CLUSTER = pytest.param("valkey-cluster", marks=pytest.mark.valkey_cluster)
CLUSTERS = ["redis-cluster", VALKEY_CLUSTER]
#: Those whose data processes share.
SHARED_STORES = ["redis", "memcache", "postgresql", *CLUSTERS]
STORES = ["memory", *SHARED_STORES]
#: Those of one server, which a test can put a proxy in front of.
SINGLE_SERVERS = SHARED_STORES[:3]

_FIXTURES = {
    "redis": "redis_server",
    "redis-cluster": "redis_cluster",
    "valkey-cluster": "valkey_cluster",
    "memcache": "memcached_server",
    "postgresql": "postgres_server",
}


def without(stores: list[Any], *names: str) -> list[Any]:
    """Return the stores but some."""
    return [store for store in stores if store not in names]


def server_of(store: str, request: pytest.FixtureRequest) -> Any:
    """Return the server of a store, running and empty."""
    return request.getfixturevalue(_FIXTURES[store])


def settings_of(store: str, request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return ``kvs`` and ``kvs_kwargs`` of a store, whose server is running and empty."""
    if store == "memory":
        return {"kvs": "memory", "kvs_kwargs": {"name": uuid.uuid4().hex}}
    url = server_of(store, request).url
    place = {"servers": [url]} if store == "memcache" else {"url": url}
    kvs = store if store in SINGLE_SERVERS else "redis"
    return {"kvs": kvs, "kvs_kwargs": {**place, **timeouts(store)}}


def timeouts(store: str) -> dict[str, float]:
    """Return timeouts for a store, since a busy machine can keep a call waiting for long."""
    if store == "postgresql":
        return {"statement_timeout": 10}
    return {"socket_connect_timeout": 10, "socket_timeout": 10}

"""Compare ``get_or_create`` with ``get``, and with dogpile.cache, in pairs.

::

    pip install dogpile.cache
    python -m tests.benchmarks.bench_cache               all stores
    python -m tests.benchmarks.bench_cache redis --rounds 60

It starts its own servers. See :mod:`tests.benchmarks.bench_kvs` for the table. Without
dogpile.cache, its rows are left out.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from pyramid_kvs.cache import ApplicationCache
from pyramid_kvs.kvs import KVS
from tests.benchmarks.bench_kvs import VALUE, Group, Row, main
from tests.servers import MemcachedServer, PostgresServer, RedisServer

#: How much longer than ``get`` a hit takes at most.
BUDGET = 1.2

HAS_DOGPILE = importlib.util.find_spec("dogpile") is not None


def create() -> Any:
    return VALUE


def rows(
    stack: ExitStack, kvs: str, kwargs: dict[str, Any], dogpile: str, arguments: dict[str, Any]
) -> Iterator[Row]:
    """Yield the rows of a store.

    :param dogpile: the name of dogpile.cache's backend for the store, if there is one.
    """
    driver = KVS(kvs, kwargs, "cache::")
    driver.initialize_schema()
    stack.callback(driver.close)
    cache = ApplicationCache(driver)
    cache.get_or_create("key", create, 600, stale=60)

    def get() -> Any:
        return cache.get("key")

    def plain() -> Any:
        return cache.get_or_create("key", create, 600)

    def stale() -> Any:
        return cache.get_or_create("key", create, 600, stale=60)

    yield Row("hit", plain, "cache.get", get, BUDGET)
    yield Row("hit with stale", stale, "cache.get", get, BUDGET)
    if HAS_DOGPILE and dogpile:
        region = _region(dogpile, arguments)
        region.get_or_create("key", create)

        def reference() -> Any:
            return region.get_or_create("key", create)

        yield Row("hit", plain, "dogpile.cache", reference)
        yield Row("hit with stale", stale, "dogpile.cache", reference)


def _region(backend: str, arguments: dict[str, Any]) -> Any:
    """Return a region of dogpile.cache that stores JSON, and whose lock is in the store."""
    from dogpile.cache import make_region

    region = make_region(
        serializer=lambda value: json.dumps(value).encode(), deserializer=json.loads
    )
    region.configure(f"dogpile.cache.{backend}", expiration_time=600, arguments=arguments)
    return region


def redis_rows(stack: ExitStack) -> Iterator[Row]:
    server = stack.enter_context(RedisServer())
    place = {"host": server.host, "port": server.port}
    return rows(stack, "redis", place, "redis", {**place, "distributed_lock": True})


def memcache_rows(stack: ExitStack) -> Iterator[Row]:
    server = stack.enter_context(MemcachedServer())
    url = f"{server.host}:{server.port}"
    arguments = {"url": [url], "distributed_lock": True}
    return rows(stack, "memcache", {"servers": [url]}, "memcached", arguments)


def postgresql_rows(stack: ExitStack) -> Iterator[Row]:
    server = stack.enter_context(PostgresServer())
    return rows(stack, "postgresql", {"url": server.url}, "", {})


def memory_rows(stack: ExitStack) -> Iterator[Row]:
    return rows(stack, "memory", {}, "memory", {})


GROUPS: dict[str, Group] = {
    "redis": redis_rows,
    "memcache": memcache_rows,
    "postgresql": postgresql_rows,
    "memory": memory_rows,
}


if __name__ == "__main__":
    main(GROUPS, __doc__)

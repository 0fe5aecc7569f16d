"""Compare observed drivers with those that nobody observes, in pairs.

::

    python -m tests.benchmarks.bench_observe            all groups
    python -m tests.benchmarks.bench_observe memory --rounds 60

The difference of the two medians is what a listener costs: at most 2 microseconds for one that
does nothing. "off" is a driver of an application without listeners, which has to take as long as
one that was made without an application. See :mod:`tests.benchmarks.bench_kvs` for the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

from pyramid.config import Configurator

from pyramid_kvs.application import Application
from pyramid_kvs.kvs import KVS, Operation
from tests.benchmarks.bench_kvs import Group, Row, main
from tests.servers import RedisServer

Get = Callable[[], Any]


def nothing(operation: Operation) -> None:
    """Be the cheapest listener."""


def driver(options: dict[str, Any], listening: bool = False, *observers: str) -> KVS:
    """Return the driver of an application's cache, which has one value."""
    settings = {"kvs.cache": {"key_prefix": "", **options}, "kvs.observe": list(observers)}
    config = Configurator(settings=settings)
    config.include("pyramid_kvs")
    if listening:
        config.add_kvs_listener(nothing)
    config.make_wsgi_app()
    (store,) = Application.of(config.registry).stores
    store.driver.raw_set("key", "value", 600)
    return store.driver


def getting(found: KVS) -> Get:
    return lambda: found.raw_get("key")


def rows(options: dict[str, Any], loops: int) -> Iterator[Row]:
    alone = KVS(options["kvs"], options.get("kvs_kwargs"))
    alone.raw_set("key", "value", 600)
    reference = getting(alone)
    yield Row("off", getting(driver(options)), "no application", reference, 1.0, loops)
    listening = driver(options, True)
    yield Row("one listener, hook", getting(listening), "not observed", reference, None, loops)
    yield Row(
        "one listener, get",
        lambda: listening.get("missing"),
        "not observed",
        lambda: alone.get("missing"),
        None,
        loops,
    )
    for name in ("prometheus", "opentelemetry"):
        found = driver(options, False, name)
        yield Row(name, getting(found), "not observed", reference, None, loops)


def memory_rows(stack: ExitStack) -> Iterator[Row]:
    return rows({"kvs": "memory"}, 5000)


def redis_rows(stack: ExitStack) -> Iterator[Row]:
    server = stack.enter_context(RedisServer())
    return rows({"kvs": "redis", "kvs_kwargs": {"host": server.host, "port": server.port}}, 1000)


GROUPS: dict[str, Group] = {"memory": memory_rows, "redis": redis_rows}


if __name__ == "__main__":
    main(GROUPS, __doc__)

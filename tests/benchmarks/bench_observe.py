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
from functools import partial
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
    store.driver.raw_set("key", '"value"', 600)
    return store.driver


def getting(found: KVS) -> Get:
    return lambda: found.raw_get("key")


#: Calls that have an own cost: a hook, methods that run one, and several hooks in one operation.
CALLS: dict[str, Callable[[KVS], object]] = {
    "raw_get": lambda found: found.raw_get("key"),
    "raw_set": lambda found: found.raw_set("key", '"value"', 600),
    "get": lambda found: found.get("missing"),
    "set": lambda found: found.set("other", "value", 600),
    "incr": lambda found: found.incr("n"),
    "get_many": lambda found: found.get_many(("key", "missing")),
    "raw_swap": lambda found: found.raw_swap("missing", None, None, 600),
    "update": lambda found: found.update("n", lambda value: 1),
}


def telling(name: str, listening: KVS, alone: KVS, loops: int) -> Row:
    """Return the row of a call with a listener, and without one."""
    call = CALLS[name]
    ours, reference = partial(call, listening), partial(call, alone)
    return Row(f"listening: {name}", ours, "not observed", reference, None, loops)


def rows(options: dict[str, Any], loops: int) -> Iterator[Row]:
    alone = KVS(options["kvs"], options.get("kvs_kwargs"))
    alone.raw_set("key", '"value"', 600)
    reference = getting(alone)
    yield Row("off", getting(driver(options)), "no application", reference, 1.0, loops)
    listening = driver(options, True)
    for name in CALLS:
        yield telling(name, listening, alone, loops)
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

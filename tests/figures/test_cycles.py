"""Nothing waits for the garbage collector: no request and no failed call leaves a reference cycle.

A cycle keeps the request, its session and their values alive until a collection, which takes the
longer the more of them there are. The usual cause is an exception in a local variable of a frame
that its traceback has.
"""

from __future__ import annotations

import contextlib
import gc
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pyramid_kvs.exceptions import KVSError
from pyramid_kvs.kvs import KVS
from tests.figures.site import VIEWS, Client, site
from tests.servers import RedisServer
from tests.stores import CLUSTERS, SHARED_STORES, settings_of, without

STORES = ["memory", *without(SHARED_STORES, *CLUSTERS[1:])]
PATHS = [*VIEWS, "limited", "nowhere"]


@contextlib.contextmanager
def no_cycles() -> Iterator[None]:
    """Check that no unreachable object is left; if there are some, name their types."""
    with garbage() as found:
        yield
    assert Counter(type(each).__name__ for each in found) == {}


@contextlib.contextmanager
def no_cycles_of_errors() -> Iterator[None]:
    """Check that no frame of the package has an exception whose traceback has the frame.

    redis-py's connections are cycles by themselves.
    """
    with garbage() as found:
        yield
    errors = [error for error in found if isinstance(error, BaseException)]
    assert Counter(name for error in errors for name in holders(error)) == {}


@contextlib.contextmanager
def garbage() -> Iterator[list[Any]]:
    """Yield the list of what becomes unreachable, but is not freed."""
    found: list[Any] = []
    gc.collect()
    gc.freeze()  # only what is made from here on is looked at, which is fast
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
        gc.collect()
        found += gc.garbage
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
        gc.unfreeze()


def holders(error: BaseException) -> Iterator[str]:
    """Yield the frames of the package in a traceback that have the exception in a variable."""
    traceback = error.__traceback__
    while traceback is not None:
        code, variables = traceback.tb_frame.f_code, traceback.tb_frame.f_locals
        if "/pyramid_kvs/" in code.co_filename:
            for name, value in variables.items():
                values = [value]
                if isinstance(value, (list, tuple)):
                    values += value
                if any(each is error for each in values):
                    yield f"{code.co_filename}:{code.co_name}: {name}"
        traceback = traceback.tb_next


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> dict[str, Any]:
    if request.param == "postgresql":
        pytest.importorskip("psycopg")
    return settings_of(request.param, request)


def test_requests(store: dict[str, Any]) -> None:
    assert_no_cycles(store, is_observed=True)


def test_requests_that_nobody_observes(redis_server: RedisServer) -> None:
    store = {"kvs": "redis", "kvs_kwargs": {"url": redis_server.url}}
    assert_no_cycles(store, is_observed=False)


def assert_no_cycles(store: dict[str, Any], *, is_observed: bool) -> None:
    """Check that no request of the site leaves a cycle."""
    if store["kvs"] == "postgresql":
        KVS("postgresql", store["kvs_kwargs"]).initialize_schema()
    client = Client(site(store, is_observed=is_observed))
    for path in PATHS:  # redis-py leaves cycles when it opens a connection
        for _ in range(20):
            client.get(f"/{path}")
    for path in PATHS:
        with no_cycles():
            statuses = {client.get(f"/{path}") for _ in range(100)}
        assert len(statuses) == 1, path


# -- calls that fail -------------------------------------------------------------------------


def calls(driver: KVS) -> dict[str, Callable[[], Any]]:
    return {
        "get": lambda: driver.get("key"),
        "set": lambda: driver.set("key", 1),
        "incr": lambda: driver.incr("key"),
        "get_many": lambda: driver.get_many(["key", "other"]),
        "set_many": lambda: driver.set_many({"key": 1, "other": 2}),
        "update": lambda: driver.update("key", lambda old: 1),
        "delete_many": lambda: driver.delete_many(["key", "other"]),
        "swap": lambda: driver.raw_swap("key", None, "1", 9),
        "get_keys": lambda: list(driver.get_keys()),
        "ping": driver.ping,
    }


def fail(driver: KVS) -> int:
    """Make calls, and return how many of them failed."""
    failed = 0
    for call in calls(driver).values():
        try:
            call()
        except KVSError:
            failed += 1
    return failed


def test_an_unknown_script(redis_server: RedisServer) -> None:
    driver = KVS("redis", {"url": redis_server.url}, "cycles::")
    driver.raw_swap("key", None, "1", 9)
    redis_server.command("SCRIPT", "FLUSH")
    with no_cycles_of_errors():
        driver.raw_swap("key", None, "1", 9)


def test_an_unknown_script_of_a_cluster(redis_cluster: Any) -> None:
    driver = KVS("redis", {"url": redis_cluster.url}, "cycles::")
    driver.raw_swap("key", None, "1", 9)
    for node in redis_cluster.nodes:
        node.command("SCRIPT", "FLUSH")
    with no_cycles_of_errors():
        driver.raw_swap("key", None, "1", 9)


@pytest.mark.parametrize("breaker", [0, 5])
def test_a_server_that_is_down(own_redis: Any, own_memcached: Any, breaker: int) -> None:
    for start, name in ((own_redis, "redis"), (own_memcached, "memcache")):
        server = start()
        place = {"url": server.url} if name == "redis" else {"servers": [server.url]}
        driver = KVS(name, {**place, "breaker": breaker}, "cycles::")
        driver.get("key")
        server.kill()
        with no_cycles_of_errors():
            assert fail(driver) >= 9


def test_a_postgresql_that_is_down(own_postgres: Any) -> None:
    pytest.importorskip("psycopg")
    server = own_postgres()
    driver = KVS("postgresql", {"url": server.url, "breaker": 0}, "cycles::")
    driver.initialize_schema()
    driver.get("key")
    server.kill()
    fail(driver)
    with no_cycles_of_errors():
        assert fail(driver) >= 9


def test_a_cluster_that_is_down(own_redis_cluster: Any) -> None:
    cluster = own_redis_cluster(replicas=0)
    driver = KVS("redis", {"url": cluster.url, "breaker": 0}, "cycles::")
    driver.get_many(["key", "other"])
    for node in cluster.nodes:
        node.kill()
    with no_cycles_of_errors():
        assert fail(driver) >= 9


def test_a_hung_server(own_redis: Any, own_memcached: Any) -> None:
    for start, name in ((own_redis, "redis"), (own_memcached, "memcache")):
        server = start()
        place = {"url": server.url} if name == "redis" else {"servers": [server.url]}
        short = {"socket_timeout": 0.05, "socket_connect_timeout": 0.05, "breaker": 0}
        driver = KVS(name, {**place, **short}, "cycles::")
        driver.get("key")
        server.pause()
        with no_cycles_of_errors():
            assert fail(driver) >= 9


def test_a_full_redis(own_redis: Any) -> None:
    server = own_redis(maxmemory="1")
    driver = KVS("redis", {"url": server.url}, "cycles::")
    driver.get("key")
    with no_cycles_of_errors():
        assert fail(driver) >= 4


def test_values_of_another_type(redis_server: RedisServer, redis_cluster: Any) -> None:
    for server in (redis_server, redis_cluster):
        driver = KVS("redis", {"url": server.url}, "cycles::")
        driver.raw_swap("other", None, "1", 9)
        for key in ("key", "other"):
            server.command("DEL", f"cycles::{key}")
            server.command("RPUSH", f"cycles::{key}", "1")
        with no_cycles_of_errors():
            for call in calls(driver).values():
                with contextlib.suppress(KVSError):
                    call()

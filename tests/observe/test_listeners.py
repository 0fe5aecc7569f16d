"""Listeners: when they are called, what they cannot break, and that they cost nothing if absent."""

from __future__ import annotations

import contextvars
import gc
import logging
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationConflictError, ConfigurationError
from pyramid.interfaces import ISessionFactory

from pyramid_kvs.application import Application
from pyramid_kvs.cache import ApplicationCache
from pyramid_kvs.drivers.memory import MemoryKVS
from pyramid_kvs.drivers.pool import Pool
from pyramid_kvs.kvs import Operation
from pyramid_kvs.kvs.names import load
from tests.observe.apps import (
    Options,
    Told,
    cache,
    configured,
    driver_of,
    observed_cache,
    started,
    with_view,
)
from tests.servers import RedisServer
from tests.test_layers import python

MEMORY = {"kvs.cache": {"kvs": "memory"}}


def calls_of(act: Callable[[], object]) -> int:
    """Return how many functions a call calls, those that are written in C included."""
    counts = {"call": 0, "c_call": 0}

    def count(frame: Any, event: str, arg: Any) -> None:
        if event in counts:
            counts[event] += 1

    sys.setprofile(count)
    try:
        act()
    finally:
        sys.setprofile(None)
    return sum(counts.values())


# -- without listeners -----------------------------------------------------------------------


def test_without_a_listener_driver_and_pools_keep_their_classes(store: Options) -> None:
    """A listener of another application in the process changes nothing."""
    observed_cache(Told(), store)
    driver = driver_of(configured({"kvs.cache": store}))
    assert type(driver) is load(store["kvs"]).class_for(store["kvs_kwargs"])
    assert {type(pool) for pool in driver.connection_pools()} <= {Pool}


def test_without_a_listener_a_call_calls_no_more_functions(redis_server: RedisServer) -> None:
    place = {"host": redis_server.host, "port": redis_server.port}
    settings = {
        "kvs.cache": {"kvs": "redis", "kvs_kwargs": place},
        "kvs.session": {"kvs": "redis", "kvs_kwargs": place},
        "kvs.ratelimit": {"limit": 10**6},
    }

    def visit(request: Any) -> str:
        request.session["visits"] = 1
        return str(request.cache.get("a"))

    def calls(*listeners: Told) -> int:
        app = started(settings, *listeners, configure=with_view(visit))
        app.get("/")  # opens the session
        for _ in range(3):
            app.get("/")
        return calls_of(lambda: app.get("/"))

    before = calls()
    observed = calls(Told())
    assert calls() == before < observed


def calls_more(act: Callable[[ApplicationCache], object]) -> int:
    """Return how many more functions a call calls because of a listener that does nothing."""
    counts = []
    for listeners in ([], [lambda operation: None]):
        found = cache(configured(MEMORY, *listeners))
        found.set("a", 1)
        act(found)
        counts.append(calls_of(lambda found=found: act(found)))  # type: ignore[misc]
    return counts[1] - counts[0]


@pytest.mark.parametrize(
    ("act", "most"),
    [
        (lambda cache: cache.client.raw_get("a"), 15),
        (lambda cache: cache.client.get("a"), 18),
        (lambda cache: cache.client.set("a", 1), 16),
        (lambda cache: cache.client.get_many(["a", "b", "c"]), 29),
    ],
)
def test_a_listener_adds_few_calls(act: Callable[[ApplicationCache], object], most: int) -> None:
    """They are most of the time that an observed call takes longer."""
    assert calls_more(act) <= most


def test_an_operation_that_is_over_keeps_none_of_its_arguments() -> None:
    class Key(str):
        """A string that can be referred to weakly."""

    found = observed_cache(Told(), {"kvs": "memory"})
    key = Key("a")
    found.client.raw_get(key)
    known = weakref.ref(key)
    del key
    gc.collect()
    assert known() is None


# -- adding ----------------------------------------------------------------------------------


def test_a_listener_may_be_added_by_a_later_include_and_after_the_start(store: Options) -> None:
    first, second, third = Told(), Told(), Told()
    configured({"kvs.cache": store})  # creates the table
    config = Configurator(settings={"kvs.cache": store})
    config.include("pyramid_kvs")
    config.commit()  # makes the driver
    config.include(lambda config: config.add_kvs_listener(first))
    config.make_wsgi_app()
    first.clear()
    cache(config.registry).get("a")
    assert len(first) == 1
    config.add_kvs_listener(second)
    config.commit()
    cache(config.registry).get("a")
    assert (len(first), len(second)) == (2, 1)
    late = Configurator(registry=config.registry, autocommit=True)
    late.include("pyramid_kvs")
    late.add_kvs_listener(third)
    cache(config.registry).get("a")
    assert (len(first), len(second), len(third)) == (3, 2, 1)


def test_pools_of_a_driver_that_was_made_before_count_round_trips(
    redis_server: RedisServer,
) -> None:
    told = Told()
    place = {"host": redis_server.host, "port": redis_server.port}
    registry = configured({"kvs.cache": {"kvs": "redis", "kvs_kwargs": place}})
    cache(registry).get("a")
    Application.of(registry).add_listener(told)
    cache(registry).get("a")
    assert [operation.round_trips for operation in told] == [1]


def test_the_same_listener_twice_is_a_conflict() -> None:
    told = Told()
    with pytest.raises(ConfigurationConflictError):
        configured(MEMORY, told, told)


class Counting:
    """A listener that is a method, which is a new object in each access."""

    def __init__(self) -> None:
        self.count = 0

    def listen(self, operation: Operation) -> None:
        self.count += 1


def test_the_same_method_twice_is_a_conflict() -> None:
    counting = Counting()
    with pytest.raises(ConfigurationConflictError):
        configured(MEMORY, counting.listen, counting.listen)
    configured(MEMORY, counting.listen, Counting().listen)


def test_the_same_listener_again_after_a_commit_is_told_once() -> None:
    counting, names = Counting(), list[str]()

    def configure(config: Configurator) -> None:
        for _ in range(2):
            config.commit()
            config.add_kvs_listener(counting.listen)
            config.add_kvs_listener(names.append)
            config.include(lambda inner: inner.add_kvs_listener(counting.listen))

    found = cache(configured(MEMORY, configure=configure))
    counting.count = 0
    names.clear()
    found.get("a")
    assert (counting.count, len(names)) == (1, 1)


def test_a_listener_that_cannot_be_called_is_refused() -> None:
    with pytest.raises(ConfigurationError, match='found "stats", expected a callable with one'):
        configured(MEMORY, "stats")  # type: ignore[arg-type]


def test_introspection_shows_the_listeners() -> None:
    registry = configured(MEMORY, Told())
    (found,) = registry.introspector.get_category("kvs listeners")
    assert found["introspectable"].title == "Told"


# -- telling ---------------------------------------------------------------------------------


def test_all_listeners_see_the_same_object_which_cannot_change() -> None:
    first, second = Told(), Told()
    cache(configured(MEMORY, first, second)).get("a")
    assert first[-1] is second[-1]
    with pytest.raises(AttributeError):
        first[-1].keys = 5  # type: ignore[misc]


def test_a_listener_that_raises_breaks_nothing_and_is_logged_once_a_minute(
    store: Options, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(operation: Operation) -> None:
        raise ZeroDivisionError("hunter2")

    told = Told()
    found = cache(configured({"kvs.cache": store}, broken, told))
    caplog.clear()
    told.clear()
    found.set("a", 1)
    assert found.get("a") == 1
    assert found.get_many(["a"]) == {"a": 1}
    assert len(told) == 3
    lines = [record for record in caplog.records if record.name == "pyramid_kvs.observe"]
    assert lines == []  # the start's line was less than a minute ago
    assert "hunter2" not in caplog.text


def test_the_log_line_names_the_listener_and_the_exception(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken:
        def __call__(self, operation: Operation) -> None:
            raise ZeroDivisionError("hunter2")

    found = cache(configured(MEMORY, Broken()))
    found.get("a")
    (line,) = [record for record in caplog.records if record.name == "pyramid_kvs.observe"]
    assert line.levelno == logging.ERROR
    assert line.getMessage().endswith("Broken raised ZeroDivisionError")


def test_each_listener_that_raises_has_its_own_log_line(caplog: pytest.LogCaptureFixture) -> None:
    def one(operation: Operation) -> None:
        raise ZeroDivisionError

    def another(operation: Operation) -> None:
        raise LookupError

    found = cache(configured(MEMORY, one, another))
    for _ in range(3):
        found.get("a")
    lines = [record.getMessage() for record in caplog.records if "listener" in record.getMessage()]
    assert [line.rpartition(".")[2] for line in lines] == [
        "one raised ZeroDivisionError",
        "another raised LookupError",
    ]


def test_an_operation_that_raises_is_told_and_still_raises() -> None:
    told = Told()
    found = observed_cache(told, {"kvs": "memory"})
    with pytest.raises(TypeError):
        found.client.raw_get(1)  # type: ignore[arg-type]
    assert (told[0].operation, told[0].error) == ("get", "TypeError")
    found.get("a")
    assert told[1].error is None


def test_a_call_with_wrong_arguments_raises_what_it_does_without_listeners() -> None:
    told = Told()
    client: Any = observed_cache(told, {"kvs": "memory"}).client
    for call in (client.update, client.get_many, client.raw_get, client.raw_swap_many):
        with pytest.raises(TypeError, match="missing"):
            call()
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        client.set("a", 1, colour="red")
    assert {operation.error for operation in told} == {"TypeError"}


def test_what_a_listener_does_with_the_store_is_not_told() -> None:
    told = Told()

    def reads(operation: Operation) -> None:
        found.get("b")

    found = observed_cache(told, {"kvs": "memory"})
    found.client._observer.listeners.append(reads)  # type: ignore[attr-defined]
    found.get("a")
    assert len(told) == 1


def test_what_a_listener_does_with_several_stores_is_not_told() -> None:
    told: list[Operation] = []

    def uses_all(operation: Operation) -> None:
        told.append(operation)
        for store in Application.of(registry).stores:
            store.driver.incr("n")
            store.driver.raw_get("a")

    settings = {"kvs.cache": {"kvs": "memory"}, "kvs.perlsess": {"kvs": "memory"}}
    registry = configured(settings)
    Application.of(registry).add_listener(uses_all)
    cache(registry).get_many(["a", "b"])
    driver_of(registry, "kvs.perlsess").raw_get("a")
    assert [(one.setting, one.operation, one.misses) for one in told] == [
        ("kvs.cache", "get_many", 2),
        ("kvs.perlsess", "get", 1),
    ]


def test_what_a_listener_started_is_told_after_the_operation() -> None:
    """A greenlet or a task that it starts has a copy of its context."""
    told = Told()
    contexts: list[contextvars.Context] = []
    found = cache(configured(MEMORY, lambda told: contexts.append(contextvars.copy_context())))
    found.client._observer.listeners.append(told)  # type: ignore[attr-defined]
    found.get("a")
    contexts[-1].run(found.get, "b")
    assert len(told) == 2


# -- threads and greenlets -------------------------------------------------------------------


def test_operations_of_several_threads_do_not_mix(store: Options) -> None:
    told = Told()
    found = observed_cache(told, store)
    keys = {count: [f"{count}-{number}" for number in range(count)] for count in range(1, 9)}

    def work(count: int) -> None:
        for _ in range(20):
            found.set_many(dict.fromkeys(keys[count], "x" * count))
            found.get_many(keys[count])

    threads = [threading.Thread(target=work, args=(count,)) for count in keys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for count in keys:
        own = [operation for operation in told if operation.keys == count]
        sizes = {"set_many": 0, "get_many": 0}
        for operation in own:
            sizes[operation.operation] += operation.bytes_sent + operation.bytes_received
        assert len(own) == 40
        assert set(sizes.values()) == {20 * count * (count + 2)}


GREENLETS = """
from gevent import monkey; monkey.patch_all()
import gevent, sys
from tests.observe.apps import Told, observed_cache
told = Told()
place = {"host": "127.0.0.1", "port": int(sys.argv[1])}
cache = observed_cache(told, {"kvs": "redis", "kvs_kwargs": place})
def work(count):
    for _ in range(10):
        cache.get_many([f"{count}-{number}" for number in range(count)])
gevent.joinall([gevent.spawn(work, count) for count in range(1, 9)], timeout=60)
print(sorted({(told.keys, told.misses, told.round_trips) for told in told}), len(told))
"""


def test_operations_of_several_greenlets_do_not_mix(redis_server: RedisServer) -> None:
    expected = [(count, count, 1) for count in range(1, 9)]
    assert python(GREENLETS, str(redis_server.port)) == f"{expected} 80"


def test_an_exception_of_a_signal_handler_leaves_no_operation_behind() -> None:
    """An operation that seems to run would hide all that follow in its thread."""
    told = Told()
    found = observed_cache(told, {"kvs": "memory"})

    def interrupt(operation: Operation) -> None:
        raise KeyboardInterrupt

    found.client._observer.listeners.append(interrupt)  # type: ignore[attr-defined]
    with pytest.raises(KeyboardInterrupt):
        found.get("a")
    found.client._observer.listeners.remove(interrupt)  # type: ignore[attr-defined]
    found.get("a")
    assert len(told) == 2


# -- features --------------------------------------------------------------------------------


def test_sessions_limits_and_perl_sessions_are_told_with_their_settings(store: Options) -> None:
    told = Told()

    def visit(request: Any) -> str:
        request.session["visits"] = request.session.get("visits", 0) + 1
        request.perlsess.get("x")
        return "done"

    settings = {
        "kvs.session": store,
        "kvs.ratelimit": [{"limit": 100}, {"limit": 10, "by": "address", "name": "address"}],
        "kvs.perlsess": {**store, "codec": "storable", "cookie_name": "perl"},
    }
    app = started(settings, told, configure=with_view(visit))
    app.get("/")
    told.clear()
    app.set_cookie("perl", "0" * 32)
    app.get("/")
    assert {operation.setting for operation in told} >= {"kvs.session", "kvs.perlsess"}
    assert {operation.driver for operation in told} == {store["kvs"]}
    assert {operation.error for operation in told} == {None}
    sessions = [operation for operation in told if operation.setting == "kvs.session"]
    assert any(operation.bytes_received for operation in sessions)


def test_sessions_of_users_are_found_in_the_same_way_with_a_listener(store: Options) -> None:
    """Memcached has an epoch for each user, and the other stores have an index."""
    settings = {"kvs.session": store}
    registries = [configured(settings, *listeners) for listeners in ([], [Told()])]
    found = {type(registry.getUtility(ISessionFactory).users) for registry in registries}
    assert len(found) == 1


def test_a_driver_outside_of_an_application_is_not_observed() -> None:
    told = Told()
    observed_cache(told, {"kvs": "memory"})
    MemoryKVS("memory").get("a")
    assert told == []

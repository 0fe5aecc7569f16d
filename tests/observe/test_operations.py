"""What listeners are told: one operation for each call, with the same figures on every store."""

from __future__ import annotations

import contextvars
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pyramid_kvs.cache import ApplicationCache
from pyramid_kvs.exceptions import KVSUnavailable
from pyramid_kvs.kvs import KVS, Operation
from pyramid_kvs.kvs.figures import KINDS
from pyramid_kvs.kvs.script import RunsScriptsBySlot
from pyramid_kvs.kvs.stored import SwapRequest
from tests.kvs.old_drivers import ClientOnly, DictClient, WithHooks, WithoutClient
from tests.observe.apps import Options, Told, configured, driver_of, observed_cache
from tests.servers import RedisCluster, RedisServer

Figures = dict[str, Any]


def told_by(options: Options, act: Callable[[ApplicationCache], object]) -> list[Figures]:
    """Return the figures that a call on a cache with the keys a and n gives."""
    told = Told()
    cache = observed_cache(told, options)
    cache.set("a", "four", 60)
    cache.incr("n", 1, 60)
    told.clear()
    act(cache)
    return told.figures()


#: Each call, and what a listener is told. The data of "four" are 6 bytes long.
CALLS: dict[str, tuple[Callable[[ApplicationCache], object], Figures]] = {
    "hit": (lambda c: c.get("a"), {"operation": "get", "hits": 1, "bytes_received": 6}),
    "miss": (lambda c: c.get("b"), {"operation": "get", "misses": 1}),
    "in": (lambda c: "a" in c, {"operation": "get", "hits": 1, "bytes_received": 6}),
    "set": (lambda c: c.set("a", "four"), {"operation": "set", "bytes_sent": 6}),
    "set for no time": (lambda c: c.set("a", "four", 0), {"operation": "set", "bytes_received": 6}),
    "add": (lambda c: c.add("c", "four"), {"operation": "add", "bytes_sent": 6}),
    "pop": (lambda c: c.pop("a"), {"operation": "delete", "bytes_received": 6}),
    "incr": (lambda c: c.incr("n"), {"operation": "incr"}),
    "decr": (lambda c: c.decr("n"), {"operation": "decr"}),
    "ttl": (lambda c: c.ttl("a"), {"operation": "ttl_of"}),
    "expire": (lambda c: c.expire("a", 9), {"operation": "expire"}),
    "get_many": (
        lambda c: c.get_many(["a", "b", "n"]),
        {"operation": "get_many", "keys": 3, "hits": 2, "misses": 1, "bytes_received": 7},
    ),
    "set_many": (
        lambda c: c.set_many({"a": "four", "b": "four"}),
        {"operation": "set_many", "keys": 2, "bytes_sent": 12},
    ),
    "delete_many": (lambda c: c.delete_many(["a", "b"]), {"operation": "delete_many", "keys": 2}),
    "text": (lambda c: c.client.raw_set("a", "\xe9", 60), {"operation": "set", "bytes_sent": 2}),
    "update": (
        lambda c: c.client.update("a", lambda value: value + "!"),
        {"operation": "update", "hits": 1, "bytes_received": 6, "bytes_sent": 7},
    ),
    "load": (
        lambda c: c.client.raw_load("a", renew=60),
        {"operation": "load", "hits": 1, "bytes_received": 6},
    ),
    "load_with": (
        lambda c: c.client.raw_load_with("a", None, ["n", "b"]),
        {"operation": "load_with", "keys": 3, "hits": 2, "misses": 1, "bytes_received": 7},
    ),
    "swap": (
        lambda c: c.client.raw_swap("b", None, "four", 60),
        {"operation": "swap", "bytes_sent": 6 - 2},
    ),
    "lost swap": (
        lambda c: c.client.raw_swap("a", None, "four", 60),
        {"operation": "swap", "bytes_sent": 4, "bytes_received": 6},
    ),
    "swap_many": (
        lambda c: c.client.raw_swap_many(
            [SwapRequest("b", None, "1", 60), SwapRequest("c", None, "22", 60)]
        ),
        {"operation": "swap_many", "keys": 2, "bytes_sent": 3},
    ),
    "claim": (
        lambda c: c.client.raw_claim("a", 5, 5),
        {"operation": "claim", "hits": 1, "bytes_received": 6},
    ),
    "named arguments": (
        lambda c: c.client.set(ttl=60, value="four", key="a"),
        {"operation": "set", "bytes_sent": 6},
    ),
}


@pytest.mark.parametrize("call", list(CALLS))
def test_each_call_is_one_operation_with_the_same_figures_on_every_store(
    store: Options, call: str
) -> None:
    act, expected = CALLS[call]
    assert told_by(store, act) == [{"keys": 1, **expected}]


def test_names_are_those_of_the_setting_the_driver_and_the_server(
    redis_server: RedisServer,
) -> None:
    told = Told()
    url = f"redis://:secret@{redis_server.host}:{redis_server.port}/0"
    registry = configured(
        {
            "kvs.cache": {"kvs": "redis", "kvs_kwargs": {"url": url}},
            "kvs.session": {"kvs": "memory"},
        },
        told,
    )
    told.clear()
    with pytest.raises(KVSUnavailable):  # the server has no password
        driver_of(registry).raw_get("a")
    driver_of(registry, "kvs.session").raw_get("a")
    in_redis, in_memory = told.taken()
    assert in_redis[1:4] == ("kvs.cache", "redis", f"{redis_server.host}:{redis_server.port}")
    assert in_memory[1:4] == ("kvs.session", "memory", "")
    assert in_redis.seconds > 0
    assert (in_redis.error, in_memory.error) == ("KVSUnavailable", None)


#: What asks no server, or only when the driver is made or closed.
ASKS_NOTHING = {
    *("add_check", "addresses", "class_for", "client_arguments", "close", "companion"),
    *("connection_pools", "decode", "encode", "places", "share_breakers", "slot_of"),
}


def test_every_method_of_the_contract_is_observed() -> None:
    methods = {
        name
        for name, found in inspect.getmembers(RunsScriptsBySlot, callable)
        if not name.startswith("_")
    }
    assert methods - KINDS.keys() == ASKS_NOTHING
    assert KINDS.keys() <= methods


# -- drivers of others -----------------------------------------------------------------------


class Slotted(WithHooks):
    __slots__ = ("more",)


class Meta(type):
    pass


class WithMetaclass(ClientOnly, metaclass=Meta):
    pass


class KeysByAGenerator(WithHooks):
    """A driver whose ``get_keys`` is a generator that runs hooks."""

    def get_keys(self, pattern: str = "*") -> Iterator[str]:  # type: ignore[override]
        for full_key in list(self._client):
            key = full_key[len(self.key_prefix) :].decode()
            if self.raw_get(key) is not None:
                yield key


class CallsItselfAndItsParent(WithHooks):
    def raw_get_many(self, keys: list[str]) -> dict[str, Any]:
        return super().raw_get_many(keys)

    def incr(self, key: str) -> int:
        self.raw_get(key)
        return super().incr(key)


OTHERS = [ClientOnly, WithHooks, Slotted, WithMetaclass, CallsItselfAndItsParent]


def others(told: Told, driver_class: type[KVS]) -> ApplicationCache:
    """Return the cache of an application with a driver that it wrote."""
    registry = configured(
        {"kvs.cache": {"kvs": "other", "kvs_kwargs": {}}},
        told,
        configure=lambda config: config.add_kvs_driver("other", driver_class),
    )
    cache = registry["pyramid_kvs"].features["kvs.cache"]
    cache.client._client = DictClient() if issubclass(driver_class, ClientOnly) else {}
    cache.set("a", "four")
    cache.incr("n")
    told.clear()
    return cache  # type: ignore[no-any-return]


@pytest.mark.parametrize("driver_class", OTHERS)
def test_a_call_that_defaults_work_out_by_several_hooks_is_one_operation(
    driver_class: type[KVS],
) -> None:
    told = Told()
    cache = others(told, driver_class)
    client = cache.client
    calls: list[Callable[[], object]] = [
        lambda: cache.get_many(["a", "b", "n"]),
        lambda: cache.incr("n", 5),
        lambda: cache.pop("a"),
        lambda: client.raw_load_with("n", None, ["a", "b"]),
        lambda: client.raw_swap("x", None, "11", 60),
        lambda: client.raw_claim("n", 0, 60),
        lambda: cache.set_many({"a": "four", "b": "four"}),
    ]
    for call in calls:
        call()
    assert told.figures() == [
        {"operation": "get_many", "keys": 3, "hits": 2, "misses": 1, "bytes_received": 7},
        {"operation": "incr", "keys": 1},
        {"operation": "delete", "keys": 1, "bytes_received": 6},
        {"operation": "load_with", "keys": 3, "hits": 1, "misses": 2, "bytes_received": 1},
        {"operation": "swap", "keys": 1, "bytes_sent": 2},
        {"operation": "claim", "keys": 1, "hits": 1, "bytes_received": 1},
        {"operation": "set_many", "keys": 2, "bytes_sent": 12},
    ]


def test_a_hook_of_1_0_is_part_of_the_operation_that_calls_it() -> None:
    told = Told()
    cache = others(told, WithHooks)
    cache.incr("n")
    cache.delete("a")
    cache.list_keys()
    assert told.figures() == [
        {"operation": "incr", "keys": 1},
        {"operation": "delete", "keys": 1, "bytes_received": 6},
        {"operation": "get_keys", "keys": 1},
    ]


def test_a_generator_of_a_driver_runs_within_its_operation() -> None:
    told = Told()
    cache = others(told, KeysByAGenerator)
    assert cache.list_keys() == ["a", "n"]
    assert told.figures() == [{"operation": "get_keys", "keys": 2}]


def test_counters_that_a_client_keeps_as_numbers_have_a_size() -> None:
    told = Told()
    cache = others(told, WithoutClient)
    assert cache.client.raw_get("n") == 1
    assert told.figures() == [{"operation": "get", "keys": 1, "hits": 1, "bytes_received": 1}]


# -- operations in operations ----------------------------------------------------------------


def test_a_creator_that_uses_the_cache_again_is_another_operation() -> None:
    told = Told()
    cache = observed_cache(told, {"kvs": "memory"})
    cache.get_or_create("a", lambda: cache.get("b", 1))
    assert [operation.operation for operation in told] == ["get", "claim", "get", "set_claimed"]


def test_a_change_that_uses_the_cache_again_is_another_operation(store: Options) -> None:
    told = Told()
    cache = observed_cache(told, store)
    cache.set("b", 1)
    cache.client.update("a", lambda value: cache.get("b"))
    assert told.figures()[1:] == [
        {"operation": "get", "keys": 1, "hits": 1, "bytes_received": 1},
        {"operation": "update", "keys": 1, "misses": 1, "bytes_sent": 1},
    ]


class Switching(WithHooks):
    """Lets another greenlet run while it stores a value."""

    def run_others(self) -> None:
        """Run what else is to run now."""

    def raw_set(self, key: str, value: Any, ttl: float | None) -> None:
        self.run_others()
        super().raw_set(key, value, ttl)


def test_what_a_change_has_started_is_another_operation() -> None:
    """A greenlet that the change starts has a copy of its context, and may run at any time."""
    told = Told()
    cache = others(told, Switching)
    contexts: list[contextvars.Context] = []

    def change(value: Any) -> Any:
        contexts.append(contextvars.copy_context())
        cache.client.run_others = lambda: contexts[0].run(cache.client.raw_get, "b")
        return 1

    cache.client.update("a", change)
    assert told.figures() == [
        {"operation": "get", "keys": 1, "misses": 1},
        {"operation": "update", "keys": 1, "hits": 1, "bytes_received": 6, "bytes_sent": 1},
    ]


def test_keys_from_a_generator_that_uses_the_cache_are_read_first() -> None:
    told = Told()
    cache = observed_cache(told, {"kvs": "memory"})
    cache.set("a", 1)
    cache.delete_many(key for key in ("a", "b") if cache.get(key))
    assert told.figures()[1:] == [
        {"operation": "get", "keys": 1, "hits": 1, "bytes_received": 1},
        {"operation": "get", "keys": 1, "misses": 1},
        {"operation": "delete_many", "keys": 1},
    ]


def test_a_driver_that_uses_another_observed_one_adds_nothing_to_it() -> None:
    told = Told()
    settings = {"kvs.cache": {"kvs": "memory"}, "kvs.perlsess": {"kvs": "memory"}}
    registry = configured(settings, told)
    inner = driver_of(registry, "kvs.perlsess")
    cache = registry["pyramid_kvs"].features["kvs.cache"]
    told.clear()
    cache.client.update("a", lambda value: inner.raw_get("x") or 1)
    assert [(told.setting, told.operation) for told in told.taken()] == [
        ("kvs.perlsess", "get"),
        ("kvs.cache", "update"),
    ]


class Copying(WithHooks):
    """Asks another driver first, during its own operations."""

    inner: KVS

    def raw_get_many(self, keys: list[str]) -> dict[str, Any]:
        self.inner.raw_get_many(keys)
        return {key: data for key in keys if (data := self.raw_get(key)) is not None}


def test_an_operation_goes_on_after_one_of_another_driver_in_it() -> None:
    told = Told()
    registry = configured(
        {"kvs.cache": {"kvs": "other", "kvs_kwargs": {}}, "kvs.perlsess": {"kvs": "memory"}},
        told,
        configure=lambda config: config.add_kvs_driver("other", Copying),
    )
    cache = registry["pyramid_kvs"].features["kvs.cache"]
    cache.client._client = {}
    cache.client.inner = driver_of(registry, "kvs.perlsess")
    cache.set("a", 1)
    told.clear()
    cache.get_many(["a", "b"])
    assert [(one.setting, one.keys, one.hits, one.misses) for one in told] == [
        ("kvs.perlsess", 2, 0, 2),
        ("kvs.cache", 2, 1, 1),
    ]


# -- round trips -----------------------------------------------------------------------------


def test_round_trips_are_what_the_server_was_asked(redis_server: RedisServer) -> None:
    told = Told()
    place = {"host": redis_server.host, "port": redis_server.port}
    cache = observed_cache(told, {"kvs": "redis", "kvs_kwargs": place})
    cache.incr("n", 1, 60)  # the script is known from now on
    told.clear()
    redis_server.reset_calls()
    cache.get("a")
    cache.incr("n", 1, 60)
    cache.set_many({str(number): number for number in range(100)})
    cache.list_keys()
    cache.flush()
    assert [operation.round_trips for operation in told] == [1, 1, 1, 1, 2]
    calls = redis_server.calls()
    found = {name: calls[name] for name in ("get", "evalsha", "set", "scan", "unlink")}
    assert found == {"get": 1, "evalsha": 1, "set": 100, "scan": 2, "unlink": 1}


def test_an_operation_on_several_servers_has_a_round_trip_to_each(own_memcached: Any) -> None:
    told = Told()
    urls = [own_memcached().url, own_memcached().url]
    cache = observed_cache(told, {"kvs": "memcache", "kvs_kwargs": {"servers": urls}})
    cache.get_many([str(number) for number in range(50)])
    (operation,) = told
    assert operation.round_trips == 2
    assert operation.server == ",".join(urls)


def test_an_operation_on_a_cluster_has_a_round_trip_to_each_node(
    redis_cluster: RedisCluster,
) -> None:
    told = Told()
    cache = observed_cache(told, {"kvs": "redis", "kvs_kwargs": {"url": redis_cluster.url}})
    cache.get_many([str(number) for number in range(50)])
    cache.get("1")
    cache.get_many([str(number) for number in range(50)])
    assert [operation.round_trips for operation in told] == [3, 1, 3]
    assert told[0].server == ",".join(f"127.0.0.1:{node.port}" for node in redis_cluster.nodes)


def test_an_operation_without_an_answer_has_its_keys_and_no_round_trip(
    own_redis: Callable[..., RedisServer],
) -> None:
    told = Told()
    server = own_redis()
    place = {"host": server.host, "port": server.port}
    cache = observed_cache(told, {"kvs": "redis", "kvs_kwargs": place})
    server.stop()
    assert cache.get_many(["a", "b"]) == {}
    (operation,) = told
    assert isinstance(operation, Operation)
    assert (operation.keys, operation.hits, operation.misses) == (2, 0, 0)
    assert (operation.round_trips, operation.error) == (0, "KVSUnavailable")


def test_a_hung_memcached_is_unavailable_by_the_documented_name(
    own_memcached: Any,
) -> None:
    told = Told()
    server = own_memcached()
    cache = observed_cache(told, {"kvs": "memcache", "kvs_kwargs": {"servers": [server.url]}})
    cache.get("a")
    server.pause()
    try:
        for _ in range(3):  # a timeout, and then an open breaker
            cache.get("a")
    finally:
        server.resume()
    assert [operation.error for operation in told] == [None, *["KVSUnavailable"] * 3]

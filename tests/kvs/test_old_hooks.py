"""Drivers written for 1.0 work, and have every operation of 2.0."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from pyramid_kvs.cache import ApplicationCache
from pyramid_kvs.exceptions import KVSNotSupported
from pyramid_kvs.kvs import KVS
from tests.kvs.old_drivers import ClientOnly, WithHooks

REMOVALS: list[Callable[[KVS], Any]] = [
    lambda kvs: kvs.delete("key"),
    lambda kvs: kvs.delete_many(["key"]),
    lambda kvs: kvs.set("key", 2, 0),
    lambda kvs: kvs.set_many({"key": 2}, 0),
    lambda kvs: kvs.expire("key", 0),
    lambda kvs: kvs.update("key", lambda old: None),
]


def test_a_driver_may_define_its_client_only() -> None:
    kvs = KVS("client", {"host": "h"}, "p::", ttl=60)
    client = kvs._client
    assert isinstance(kvs, ClientOnly)
    assert client.kwargs == {"host": "h"}
    kvs.set("key", {"a": 1})
    kvs.set("key", {"a": 2}, 7)
    assert kvs.get("key") == {"a": 2}
    assert client.calls == [
        ("set", b"p::key", '{"a": 1}', 60),
        ("set", b"p::key", '{"a": 2}', 7),
        ("get", b"p::key"),
    ]
    assert kvs.delete("key") == {"a": 2}
    assert client.data == {}


def test_a_client_is_enough_for_all_other_operations() -> None:
    kvs = KVS("client", {}, "p::")
    assert kvs.add("key", 1)
    assert not kvs.add("key", 2)
    assert kvs.get_many(["key", "missing"]) == {"key": 1}
    kvs.set_many({"a": 1, "b": 2})
    kvs.delete_many(["a"])
    assert kvs.incr("counter", 5) == 5
    assert kvs.decr("counter") == 4
    assert kvs.update("key", lambda old: old + 1) == 2
    assert kvs.expire("key", 50)
    assert not kvs.expire("missing", 50)
    assert kvs.ping()
    for refused in (kvs.get_keys, kvs.flush, lambda: kvs.ttl_of("key")):
        with pytest.raises(KVSNotSupported, match="client"):
            refused()
    with pytest.raises(NotImplementedError):
        kvs.get_keys()


def test_old_hooks_get_their_old_arguments() -> None:
    kvs = KVS("hooks", {}, "p::", ttl=60)
    assert isinstance(kvs, WithHooks)
    kvs.set("key", "value")
    assert kvs.delete("key") == "value"
    assert kvs.delete("key") is None
    assert kvs.incr("counter") == 1
    assert kvs.incr("counter", 10, 5) == 11
    assert kvs.decr("counter") == 10
    assert kvs.get("counter") == 10
    assert kvs.get_keys("*") == ["counter"]
    assert kvs.seen[:3] == [
        ("raw_set", "key", '"value"', 60),
        ("delete", "key"),
        ("incr", "counter"),
    ]
    kvs.flush()
    assert kvs._client == {}


HOOKS: list[tuple[str, ...]] = [(), ("delete",), ("incr",), ("delete", "incr")]


def extended(base: type[KVS], level: str, hooks: Sequence[str]) -> type[KVS]:
    """Return a driver whose 1.0 hooks note that they ran, and call those of ``base``."""

    def delete(self: Any, key: str) -> None:
        self.ran.append(f"{level} delete")
        super(driver, self).delete(key)

    def incr(self: Any, key: str) -> int:
        self.ran.append(f"{level} incr")
        count: int = super(driver, self).incr(key)
        return count

    defined = {"delete": delete, "incr": incr}
    driver = type(level, (base,), {"ran": [], **{name: defined[name] for name in hooks}})
    return driver


@pytest.mark.parametrize("base", [ClientOnly, WithHooks])
@pytest.mark.parametrize("lower", HOOKS)
@pytest.mark.parametrize("upper", HOOKS)
def test_old_hooks_may_call_super(
    base: type[KVS], lower: Sequence[str], upper: Sequence[str]
) -> None:
    """Each runs once, in Python's order, whatever the class below defines."""
    driver = extended(extended(base, "lower", lower), "upper", upper)
    kvs: Any = driver("old", {}, "p::", ttl=60)
    kvs.set("key", "value")
    assert kvs.delete("key") == "value"
    assert kvs.get("key") is None
    levels = {"upper": upper, "lower": lower}
    assert kvs.ran == [f"{level} delete" for level in levels if "delete" in levels[level]]
    kvs.ran.clear()
    assert kvs.incr("counter") == 1
    assert kvs.ran == [f"{level} incr" for level in levels if "incr" in levels[level]]
    assert [kvs.incr("counter", 5), kvs.decr("counter"), kvs.incr("other", 1, 5)] == [6, 5, 1]


@pytest.mark.parametrize("remove", REMOVALS)
def test_an_old_delete_runs_however_a_key_is_removed(remove: Callable[[KVS], Any]) -> None:
    kvs = KVS("CallsSuper", {}, "p::")
    kvs.set("key", 1)
    remove(kvs)
    assert kvs.get("key") is None
    assert kvs._client.data == {}
    assert ("delete", b"p::key") in kvs._client.calls


def test_old_get_keys_may_be_called_without_a_pattern() -> None:
    kvs = KVS("hooks")
    kvs.set("key", 1)
    assert kvs.get_keys() == ["key"]


def test_a_driver_needs_no_client() -> None:
    kvs = KVS("WithoutClient")
    kvs.set("key", {"a": 1})
    assert kvs.get("key") == {"a": 1}
    with pytest.raises(KVSNotSupported, match="WithoutClient defines neither _create_client"):
        kvs.delete("key")


def test_a_client_that_cannot_delete_is_enough_for_a_cache() -> None:
    class WithoutDelete(KVS):
        def _create_client(self, **kwargs: Any) -> Any:
            data: dict[bytes, Any] = {}
            return SimpleNamespace(
                get=data.get, set=lambda key, value, ttl: data.update({key: value})
            )

    kvs = WithoutDelete("old", {}, "p::")
    cache = ApplicationCache(kvs)
    assert cache.get_or_create("key", lambda: [1], 60) == [1]
    assert cache.get_or_create("key", lambda: [2], 60) == [1]
    with pytest.raises(KVSNotSupported, match="the old driver cannot remove a key"):
        kvs.delete("key")


def test_a_client_may_keep_counters_as_numbers() -> None:
    kvs = KVS("WithoutClient")
    assert kvs.incr("counter") == 1
    assert kvs.get("counter") == 1
    assert kvs.incr("counter", 10) == 11


def test_defaults_are_atomic_among_threads() -> None:
    kvs = KVS("client")
    threads = [
        threading.Thread(
            target=lambda: [kvs.update("n", lambda n: (n or 0) + 1) for _ in range(50)]
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert kvs.get("n") == 400

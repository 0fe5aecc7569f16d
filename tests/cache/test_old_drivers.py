"""``get_or_create`` on drivers written for 1.0, which cannot say how long a value has left."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from pyramid_kvs.cache import ApplicationCache
from pyramid_kvs.kvs import KVS
from tests.cache.apps import run
from tests.kvs.old_drivers import ClientOnly, DictClient, WithHooks


class AddingClient(DictClient):
    """A client library that can add."""

    shared: dict[bytes, Any]
    lock = threading.Lock()

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data = self.shared

    def add(self, key: bytes, value: Any, ttl: Any) -> bool:
        self.calls.append(("add", key, value, ttl))
        with self.lock:
            if key in self.data:
                return False
            time.sleep(0.01)
            self.data[key] = value
            return True


class WithAddingClient(KVS):
    def _create_client(self, **kwargs: Any) -> AddingClient:
        return AddingClient(**kwargs)


class WithAdd(KVS):
    """A driver that defines ``add`` with values."""

    shared: dict[str, Any]
    lock = threading.Lock()

    def raw_get(self, key: str, default: Any = None) -> Any:
        return self.shared.get(key, default)

    def raw_set(self, key: str, value: Any, ttl: Any) -> None:
        self.shared[key] = value

    def delete(self, key: str) -> None:
        self.shared.pop(key, None)

    def add(self, key: str, value: Any, ttl: Any = None) -> bool:
        with self.lock:
            if key in self.shared:
                return False
            time.sleep(0.01)
            self.shared[key] = self.encode(value)
            return True


class CallsSuper(WithAdd):
    """A driver whose ``add`` calls that of its parent."""

    def add(self, key: str, value: Any, ttl: Any = None) -> bool:
        return super().add(key, value, ttl)


@pytest.mark.parametrize("driver", [ClientOnly, WithHooks, WithAddingClient, WithAdd])
@pytest.mark.parametrize("stale", [0, 60])
def test_a_driver_for_1_0_computes_once_in_a_process(driver: type[KVS], stale: int) -> None:
    AddingClient.shared, WithAdd.shared = {}, {}
    cache = ApplicationCache(driver("old", None, "old::"))
    calls = []

    def create() -> list[int]:
        calls.append(1)
        time.sleep(0.05)
        return [1]

    run(8, lambda: cache.get_or_create("key", create, 60, stale=stale))
    assert len(calls) == 1
    assert cache.get_or_create("key", create, 1, stale=10**6) == [1]  # it counts as fresh
    assert len(calls) == 1
    assert cache.client.raw_get("key") == "[1]"


@pytest.mark.parametrize("driver", [WithAddingClient, WithAdd, CallsSuper])
def test_a_driver_for_1_0_with_add_computes_once_among_processes(driver: type[KVS]) -> None:
    """Each thread has a driver for itself, as each process would."""
    AddingClient.shared, WithAdd.shared = {}, {}
    calls: list[int] = []
    asked = threading.Barrier(6)

    def create() -> str:
        calls.append(1)
        time.sleep(0.2)
        return "made"

    def work() -> None:
        cache = ApplicationCache(driver("old", None, "old::"))
        asked.wait(30)
        assert cache.get_or_create("key", create, 60) == "made"

    run(6, work)
    assert len(calls) == 1
    stored = AddingClient.shared or WithAdd.shared
    assert len(stored) == 1  # no claim is left
    assert [*stored.values()] == ['"made"']


@pytest.mark.parametrize("driver", [WithAddingClient, WithAdd, CallsSuper])
def test_add_of_a_driver_for_1_0_is_the_only_one_that_is_asked(
    driver: Callable[..., KVS],
) -> None:
    AddingClient.shared, WithAdd.shared = {}, {}
    kvs = driver("old", None, "old::", 77)
    assert kvs.add("key", {"a": 1}) is True
    assert kvs.add("key", 2) is False
    assert kvs.get("key") == {"a": 1}
    assert kvs.raw_add("raw", "[1]", 5) is True
    assert kvs.get("raw") == [1]

"""An unavailable store: one kind of error, soon, and no errors when the store is back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from pyramid_kvs.exceptions import KVSUnavailable
from tests.kinto.stores import SERVED, BackendError, Store
from tests.servers import wait_until

pytestmark = pytest.mark.parametrize("own_store", SERVED, indirect=True)

#: A call takes at most 1 s, or 3 s on PostgreSQL. The rest is for a busy machine.
BOUND = {"redis": 3, "memcached": 3, "postgresql": 8}


def calls(cache: Any) -> dict[str, Callable[[], object]]:
    return {
        "get": lambda: cache.get("key"),
        "set": lambda: cache.set("key", 1, 60),
        "set with ttl 0": lambda: cache.set("key", 1, 0),
        "ttl": lambda: cache.ttl("key"),
        "expire": lambda: cache.expire("key", 60),
        "delete": lambda: cache.delete("key"),
        "flush": lambda: cache.flush(),
    }


def check_failure(store: Store, call: Callable[[], object]) -> None:
    started = time.monotonic()
    with pytest.raises(BackendError) as raised:
        call()
    assert time.monotonic() - started < BOUND[store.name]
    original = raised.value.original
    assert isinstance(original, KVSUnavailable)
    assert raised.value.__cause__ is original
    assert str(original) in str(raised.value)


def works(cache: Any) -> bool:
    try:
        cache.set("back", 1, 60)
    except BackendError:
        return False
    return cache.get("back") == 1


def test_a_store_that_is_gone(own_store: Store) -> None:
    cache = own_store.load()
    cache.initialize_schema()
    cache.set("key", 1, 60)
    own_store.kill()
    for call in calls(cache).values():
        check_failure(own_store, call)
    own_store.server.start()
    wait_until(lambda: works(cache), "the cache's return", 30)


def test_a_store_that_hangs(own_store: Store) -> None:
    cache = own_store.load()
    cache.initialize_schema()
    cache.set("key", 1, 60)
    own_store.server.pause()
    for name in ("get", "delete"):
        check_failure(own_store, calls(cache)[name])
    own_store.server.resume()
    wait_until(lambda: works(cache), "the cache's return", 30)


def test_a_store_that_hangs_is_left_alone(own_store: Store) -> None:
    """Only the first call waits for its timeout, and one call in each second after it."""
    cache = own_store.load()
    cache.initialize_schema()
    cache.set("key", 1, 60)
    own_store.server.pause()
    check_failure(own_store, lambda: cache.get("key"))
    started = time.monotonic()
    for _ in range(20):
        check_failure(own_store, lambda: cache.get("key"))
    assert time.monotonic() - started < 0.5
    own_store.server.resume()
    wait_until(lambda: works(cache), "the cache's return", 30)


def test_a_store_that_was_never_there(own_store: Store) -> None:
    own_store.kill()
    cache = own_store.load()
    check_failure(own_store, calls(cache)["get"])
    if own_store.name == "postgresql":
        check_failure(own_store, cache.initialize_schema)

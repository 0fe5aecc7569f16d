"""Kinto's cache interface, the same on each store."""

from __future__ import annotations

import itertools
import logging
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.kinto.stores import NAMES, BackendError, CacheBase, Counts, Make, Store

DAY = 86400
pytestmark = pytest.mark.parametrize("store", NAMES, indirect=True)
_numbers = itertools.count()


@pytest.fixture
def cache(new: Make) -> Any:
    """A backend with a prefix that no other test has, because the process shares its memory."""
    return new(cache_prefix=f"app{next(_numbers)}_")


def test_is_a_cache_of_kinto(cache: Any) -> None:
    assert isinstance(cache, CacheBase)


@pytest.mark.parametrize("value", ["text", "é☺", 0, -1.5, False, [], {"a": [None, {"b": 1}]}])
def test_get_gives_what_was_set(cache: Any, value: Any) -> None:
    cache.set("key", value, 60)
    assert cache.get("key") == value
    assert type(cache.get("key")) is type(value)


def test_none_and_missing_are_none(cache: Any) -> None:
    cache.set("none", None, 60)
    assert cache.get("none") is None
    assert cache.ttl("none") > 0
    assert cache.get("missing") is None


@pytest.mark.parametrize("value", [{"value": 1, "ttl": 2}, {"value": {"value": 1, "ttl": 2}}])
def test_a_value_like_an_entry_of_memcached_is_a_value(cache: Any, value: Any) -> None:
    cache.set("key", value, 60)
    assert cache.get("key") == value
    assert cache.delete("key") == value


def test_values_are_copies(cache: Any) -> None:
    value = {"list": [1]}
    cache.set("key", value, 60)
    value["list"].append(2)
    cache.get("key")["list"].append(3)
    assert cache.get("key") == {"list": [1]}


@pytest.mark.parametrize("value", [b"bytes", {"in": b"bytes"}, {1, 2}, object()])
def test_what_is_not_json_is_refused(cache: Any, value: Any) -> None:
    cache.set("key", "old", 60)
    with pytest.raises(TypeError):
        cache.set("key", value, 60)
    assert cache.get("key") == "old"


@pytest.mark.parametrize("ttl", [None, True, "60", [60]])
def test_a_ttl_is_a_number(cache: Any, ttl: Any) -> None:
    for call in (lambda: cache.set("key", 1, ttl), lambda: cache.expire("key", ttl)):
        with pytest.raises(TypeError, match="ttl"):
            call()
    assert cache.get("key") is None


@pytest.mark.parametrize("ttl", [math.inf, math.nan])
def test_a_ttl_is_finite(cache: Any, ttl: float) -> None:
    with pytest.raises(ValueError, match="ttl"):
        cache.set("key", 1, ttl)
    assert cache.get("key") is None


def test_set_needs_a_ttl(cache: Any) -> None:
    with pytest.raises(TypeError):
        cache.set("key", 1)


@pytest.mark.parametrize("ttl", [30.5, 60, 3660, 40 * DAY, 400 * DAY])
def test_ttl_of_any_length(cache: Any, ttl: float) -> None:
    """On memcached it is rounded up, and a second more, so that no value expires early."""
    cache.set("key", "value", ttl)
    assert ttl - 20 < cache.ttl("key") <= ttl + 2
    assert isinstance(cache.ttl("key"), float)
    assert cache.get("key") == "value"
    cache.expire("key", 2 * ttl)
    assert 2 * ttl - 20 < cache.ttl("key") <= 2 * ttl + 2
    assert cache.get("key") == "value"


def test_fractions_of_a_second_count(cache: Any) -> None:
    cache.set("short", 1, 0.2)
    cache.set("cut", 1, 60)
    cache.expire("cut", 0.2)
    cache.set("long", 1, 60)
    time.sleep(0.25)
    assert [cache.get(key) for key in ("short", "cut", "long")] == [None, None, 1]
    assert cache.ttl("short") < 0


def test_ttl_of_a_missing_key_is_negative(cache: Any) -> None:
    assert cache.ttl("missing") < 0


@pytest.mark.parametrize("ttl", [0, -5])
def test_a_ttl_of_0_or_less_removes(cache: Any, ttl: float) -> None:
    cache.set("set", 1, 60)
    cache.set("set", 2, ttl)
    cache.set("expire", 1, 60)
    cache.expire("expire", ttl)
    assert cache.get("set") is None
    assert cache.get("expire") is None


def test_expire_creates_nothing(cache: Any) -> None:
    cache.expire("missing", 60)
    assert cache.get("missing") is None
    assert cache.ttl("missing") < 0


def test_delete_gives_the_old_value(cache: Any) -> None:
    cache.set("key", {"a": 1}, 60)
    assert cache.delete("key") == {"a": 1}
    assert cache.delete("key") is None
    assert cache.get("key") is None


def test_delete_of_an_expired_key_gives_nothing(cache: Any) -> None:
    cache.set("key", 1, 0.05)
    time.sleep(0.1)
    assert cache.delete("key") is None


def test_one_of_many_deletes_gets_the_value(cache: Any) -> None:
    threads, rounds = 6, 25
    barrier = threading.Barrier(threads, timeout=60)

    def work(number: int) -> list[Any]:
        got = []
        for index in range(rounds):
            if number == 0:
                cache.set("key", index, 60)
            barrier.wait()
            got.append(cache.delete("key"))
            barrier.wait()
        return got

    with ThreadPoolExecutor(threads) as pool:
        got = list(pool.map(work, range(threads)))
    taken = [[row[index] for row in got if row[index] is not None] for index in range(rounds)]
    assert taken == [[index] for index in range(rounds)]


@pytest.mark.parametrize(
    "key", ["", "two words", "line\r\nflush_all\r\n", "nul\0", "Ключ-鍵", "k" * 1500, "*?[a]%_\\"]
)
def test_a_key_is_any_string(cache: Any, key: str) -> None:
    cache.set(key, "value", 60)
    assert cache.get(key) == "value"
    assert cache.get(key + "x") is None
    assert cache.ttl(key) > 0
    assert cache.delete(key) == "value"


def test_hits_and_misses_are_counted(cache: Any) -> None:
    cache.get("uncounted")
    counts = Counts()
    cache.set_metrics_backend(counts)
    cache.set("key", 0, 60)
    cache.get("key")
    cache.get("missing")
    cache.get("key")
    cache.delete("key")
    assert counts.keys == ["cache_hits", "cache_misses", "cache_hits"]


@pytest.mark.parametrize("prefixes", [("a", "ab"), ("", "b"), ("%", "x"), ("*", "y"), ("a_", "ab")])
def test_prefixes_are_apart(new: Make, store: Store, prefixes: tuple[str, str]) -> None:
    first, second = (new(cache_prefix=prefix) for prefix in prefixes)
    first.set("key", 1, 60)
    second.set("key", 2, 60)
    assert [first.get("key"), second.get("key")] == [1, 2]
    second.delete("key")
    assert [first.get("key"), second.get("key")] == [1, None]


@pytest.mark.parametrize("prefix", ["a_", "%", "*", "[ab]", "\\"])
def test_flush_keeps_other_prefixes(new: Make, store: Store, prefix: str) -> None:
    mine, others = new(cache_prefix=prefix), [new(cache_prefix=p) for p in ("ab", "b_", "x")]
    for cache in (mine, *others):
        cache.set("key", 1, 60)
    if store.name == "memcached":
        with pytest.raises(BackendError, match="prefix"):
            mine.flush()
    else:
        mine.flush()
        assert mine.get("key") is None
    assert [other.get("key") for other in others] == [1, 1, 1]


def test_flush_without_a_prefix_removes_all(new: Make) -> None:
    cache = new()
    cache.set("key", 1, 60)
    cache.flush()
    assert cache.get("key") is None


def test_schema_is_created_once(new: Make, store: Store) -> None:
    cache = new()
    cache.set("key", 1, 60)
    cache.initialize_schema()
    cache.initialize_schema(dry_run=True)
    assert cache.get("key") == 1


def test_what_is_not_json_in_the_store_is_missing(
    cache: Any, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """With a warning that shows neither the key nor what is there."""
    cache._driver.raw_set("key", "no json: s3cret", 60)
    with caplog.at_level(logging.WARNING):
        assert cache.get("key") is None
        assert cache.delete("key") is None
    assert "s3cret" not in caplog.text
    assert cache.prefix not in caplog.text


def test_threads_share_a_backend(cache: Any) -> None:
    def work(number: int) -> list[Any]:
        key = f"key{number}"
        got = []
        for index in range(30):
            cache.set(key, [number, index], 60)
            got.append(cache.get(key))
        return got

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(work, range(8)))
    assert results == [[[number, index] for index in range(30)] for number in range(8)]

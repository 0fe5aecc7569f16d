"""The options of the memory driver."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from pyramid_kvs.kvs import KVS


@pytest.mark.parametrize("max_bytes", [0, -1, 1.5, "1000", True, None])
def test_max_bytes_is_a_positive_integer(max_bytes: Any) -> None:
    with pytest.raises(ValueError, match=r"max_bytes: found .*, expected a positive integer"):
        KVS("memory", {"max_bytes": max_bytes})


def test_a_name_is_a_string() -> None:
    with pytest.raises(ValueError, match=r"name: found 7, expected a string"):
        KVS("memory", {"name": 7})


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(TypeError, match="size"):
        KVS("memory", {"size": 1000})


def test_drivers_without_a_name_share_nothing() -> None:
    one, other = KVS("memory"), KVS("memory")
    one.set("key", 1)
    assert other.get("key") is None


def test_drivers_with_the_same_name_share_a_store() -> None:
    one = KVS("memory", {"name": "shared"}, "one::")
    same = KVS("memory", {"name": "shared"}, "one::")
    other = KVS("memory", {"name": "shared"}, "other::")
    one.set("key", 1)
    assert same.get("key") == 1
    assert other.get("key") is None
    assert same.get_keys() == ["key"]
    other.flush()
    assert one.get("key") == 1


def test_the_first_driver_with_a_name_sets_the_size() -> None:
    first = KVS("memory", {"name": "sized", "max_bytes": 10_000})
    second = KVS("memory", {"name": "sized", "max_bytes": 10_000_000})
    assert second._client is first._client
    assert second._client.max_bytes == 10_000


def test_a_named_store_ends_with_its_last_driver() -> None:
    KVS("memory", {"name": "short"}).set("key", 1)
    gc.collect()
    assert KVS("memory", {"name": "short"}).get("key") is None

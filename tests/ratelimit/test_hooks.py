"""The hooks of drivers that work on several keys at once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pyramid_kvs.kvs import KVS, SwapRequest
from tests.ratelimit.stores import Settings


@pytest.fixture
def driver(store: Settings) -> Iterator[KVS]:
    driver = KVS(store["kvs"], store["kvs_kwargs"], key_prefix="p:")
    yield driver
    driver.close()


def test_each_of_several_swaps_is_done_by_itself(driver: KVS) -> None:
    driver.raw_set("unchanged", "before", 60)
    driver.raw_set("changed", "before", 60)
    loaded = driver.raw_load_many(["unchanged", "changed"])
    driver.raw_set("changed", "by another", 60)
    driver.raw_set("added", "by another", 60)
    swaps = driver.raw_swap_many(
        [
            SwapRequest("unchanged", loaded["unchanged"], "after", 60),
            SwapRequest("changed", loaded["changed"], "after", 60),
            SwapRequest("new", None, "after", 60),
            SwapRequest("added", None, "after", 60),
            SwapRequest("removed", loaded["changed"], "after", 60),
        ]
    )
    assert [swap.done for swap in swaps] == [True, False, True, False, False]
    values = driver.raw_get_many(["unchanged", "changed", "new", "added", "removed"])
    assert {key: text(data) for key, data in values.items()} == {
        "unchanged": "after",
        "changed": "by another",
        "new": "after",
        "added": "by another",
    }
    assert 0 < driver.raw_ttl("new") <= 60
    assert [swap.current and text(swap.current.data) for swap in swaps] == [
        *(None, "by another", None, "by another", None)
    ]


def test_a_conflict_returns_what_the_next_swap_needs(driver: KVS) -> None:
    driver.raw_set("a", "by another", 60)
    driver.raw_set("b", "by another", 60)
    first = [SwapRequest(key, None, "mine", 60) for key in ("a", "b")]
    lost = driver.raw_swap_many(first)
    second = [request._replace(old=swap.current) for request, swap in zip(first, lost, strict=True)]
    assert [swap.done for swap in driver.raw_swap_many(second)] == [True, True]


@pytest.mark.parametrize("renew", [None, 100, 100.5])
def test_loads_and_renews_a_key_and_loads_others(driver: KVS, renew: float | None) -> None:
    driver.raw_set("key", "value", 10)
    driver.raw_set("a", "1", 10)
    loaded, others = driver.raw_load_with("key", renew, ["a", "b"])
    assert loaded is not None
    assert text(loaded.data) == "value"
    assert {key: text(stored.data) for key, stored in others.items()} == {"a": "1"}
    assert (driver.raw_ttl("key") > 90) is (renew is not None)
    assert driver.raw_ttl("a") <= 10
    assert driver.raw_swap("key", loaded, "new", 10).done


@pytest.mark.parametrize("renew", [None, 100, 100.5])
def test_a_renewal_does_not_create_a_missing_key(driver: KVS, renew: float | None) -> None:
    driver.raw_set("a", "1", 10)
    loaded, others = driver.raw_load_with("key", renew, ["a"])
    assert loaded is None
    assert list(others) == ["a"]
    assert driver.raw_get("key") is None


def test_a_key_can_be_loaded_without_others(driver: KVS) -> None:
    driver.raw_set("key", "value", 10)
    loaded, others = driver.raw_load_with("key", 100, [])
    assert loaded is not None
    assert others == {}
    assert driver.raw_ttl("key") > 90


def text(data: str | bytes) -> str:
    return data if isinstance(data, str) else data.decode()

"""``add`` and ``update``, and the hooks for compare-and-set below them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ...kvs import KVS, Stored, SwapRequest
from .base import Base


class Updates(Base):
    def test_add(self, kvs: KVS) -> None:
        assert kvs.add("key", 1) is True
        assert kvs.add("key", 2) is False
        assert kvs.get("key") == 1
        kvs.delete("key")
        assert kvs.add("key", 3) is True

    def test_update(self, kvs: KVS) -> None:
        assert kvs.update("key", lambda old: [old]) == [None]
        assert kvs.update("key", lambda old: [*old, 2], ttl=77) == [None, 2]
        assert kvs.get("key") == [None, 2]
        assert kvs.update("missing", lambda old: None) is None
        assert 70 < kvs.ttl_of("key") <= 77

    def test_update_removes(self, kvs: KVS) -> None:
        kvs.set("key", 1)
        assert kvs.update("key", lambda old: None) is None
        assert kvs.get("key", "gone") == "gone"

    def test_an_error_in_update_is_raised_and_changes_nothing(self, kvs: KVS) -> None:
        kvs.set("key", 1)

        def fail(old: Any) -> Any:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            kvs.update("key", fail)
        assert kvs.get("key") == 1

    def test_update_sees_a_change_in_between(self, kvs: KVS) -> None:
        kvs.set("key", 1)
        seen: list[int] = []

        def change(old: int) -> int:
            if not seen:
                kvs.set("key", 10)
            seen.append(old)
            return old + 1

        assert kvs.update("key", change) == 11
        assert seen == [1, 10]

    def test_update_sees_a_removal_and_a_creation(self, kvs: KVS) -> None:
        steps: Iterator[Callable[[], Any]] = iter(
            [lambda: kvs.delete("key"), lambda: kvs.set("key", 5), lambda: None]
        )
        kvs.set("key", 1)
        seen: list[int | None] = []

        def change(old: int | None) -> int:
            next(steps)()
            seen.append(old)
            return (old or 0) + 1

        assert kvs.update("key", change) == 6
        assert seen == [1, None, 5]

    def test_load_renews(self, kvs: KVS) -> None:
        kvs.set("key", {"a": 1}, 10)
        stored = kvs.raw_load("key", renew=100)
        assert stored is not None
        assert kvs.decode(stored.data) == {"a": 1}
        assert 85 < kvs.ttl_of("key") <= 100
        assert kvs.raw_load("missing", renew=100) is None
        assert kvs.get("missing") is None

    def test_swap(self, kvs: KVS) -> None:
        assert kvs.raw_swap("key", None, "1", 60).done
        first = kvs.raw_load("key")
        assert first is not None
        assert kvs.raw_swap("key", first, "2", 60).done
        late = kvs.raw_swap("key", first, "3", 60)
        assert not late.done
        assert late.current is not None
        assert kvs.decode(late.current.data) == 2
        assert kvs.raw_swap("key", late.current, "4", 60).done
        assert kvs.get("key") == 4

    def test_swap_of_a_missing_key(self, kvs: KVS) -> None:
        kvs.set("key", 1)
        taken = kvs.raw_swap("key", None, "2", 60)
        assert not taken.done
        assert taken.current is not None
        assert kvs.decode(taken.current.data) == 1
        gone = kvs.raw_load("key")
        kvs.delete("key")
        assert kvs.raw_swap("key", gone, "3", 60) == (False, None)
        assert kvs.raw_swap("key", gone, None, 60) == (False, None)
        assert kvs.get("key") is None

    def test_swap_removes(self, kvs: KVS) -> None:
        kvs.set("key", 1)
        assert kvs.raw_swap("key", kvs.raw_load("key"), None, 60).done
        assert kvs.get("key") is None

    def test_swap_sets_the_ttl(self, kvs: KVS) -> None:
        kvs.set("key", 1, 10)
        kvs.raw_swap("key", kvs.raw_load("key"), "2", 100)
        assert 90 < kvs.ttl_of("key") <= 100

    def test_load_many(self, kvs: KVS) -> None:
        kvs.set_many({"a": 1, "b": 2})
        found = kvs.raw_load_many(["a", "b", "missing"])
        assert {key: kvs.decode(stored.data) for key, stored in found.items()} == {"a": 1, "b": 2}
        assert all(isinstance(stored, Stored) for stored in found.values())
        assert kvs.raw_swap("a", found["a"], "10", 60).done
        assert kvs.get("a") == 10

    def test_each_of_several_swaps_is_done_by_itself(self, kvs: KVS) -> None:
        kvs.set_many({"unchanged": 1, "changed": 1}, 60)
        loaded = kvs.raw_load_many(["unchanged", "changed"])
        kvs.set_many({"changed": 2, "added": 2}, 60)
        swaps = kvs.raw_swap_many(
            [
                SwapRequest("unchanged", loaded["unchanged"], "3", 100),
                SwapRequest("changed", loaded["changed"], "3", 100),
                SwapRequest("new", None, "3", 100),
                SwapRequest("added", None, "3", 100),
                SwapRequest("removed", loaded["changed"], "3", 100),
            ]
        )
        assert [swap.done for swap in swaps] == [True, False, True, False, False]
        currents = [swap.current and kvs.decode(swap.current.data) for swap in swaps]
        assert currents == [None, 2, None, 2, None]
        keys = ("unchanged", "changed", "new", "added", "removed")
        assert kvs.get_many(keys) == {"unchanged": 3, "changed": 2, "new": 3, "added": 2}
        assert 90 < kvs.ttl_of("unchanged") <= 100
        assert 90 < kvs.ttl_of("new") <= 100

    def test_a_conflict_returns_what_the_next_swap_needs(self, kvs: KVS) -> None:
        kvs.set_many({"a": 1, "b": 1}, 60)
        first = [SwapRequest(key, None, "2", 60) for key in ("a", "b")]
        lost = kvs.raw_swap_many(first)
        second = [
            request._replace(old=swap.current) for request, swap in zip(first, lost, strict=True)
        ]
        assert [swap.done for swap in kvs.raw_swap_many(second)] == [True, True]

    @pytest.mark.parametrize("renew", [None, 100, 100.5])
    def test_load_with_renews_one_key_and_loads_others(self, kvs: KVS, renew: float | None) -> None:
        kvs.set_many({"key": 1, "a": 2}, 10)
        loaded, others = kvs.raw_load_with("key", renew, ["a", "missing"])
        assert loaded is not None
        assert kvs.decode(loaded.data) == 1
        assert {key: kvs.decode(stored.data) for key, stored in others.items()} == {"a": 2}
        assert (kvs.ttl_of("key") > 90) is (renew is not None)
        assert kvs.ttl_of("a") <= 10
        assert kvs.raw_swap("key", loaded, "3", 10).done

    @pytest.mark.parametrize("renew", [None, 100, 100.5])
    def test_load_with_creates_nothing(self, kvs: KVS, renew: float | None) -> None:
        kvs.set("a", 1, 10)
        loaded, others = kvs.raw_load_with("missing", renew, ["a"])
        assert loaded is None
        assert list(others) == ["a"]
        assert kvs.get("missing") is None

    def test_load_timed_tells_the_time_too(self, kvs: KVS) -> None:
        if not kvs.has_clock:
            pytest.skip("the driver does not tell the time (has_clock = False)")
        kvs.set_many({"key": 1, "a": 2}, 10)
        loaded, others, first_ms = kvs.raw_load_timed("key", None, ["a", "missing"])
        assert loaded is not None
        assert kvs.decode(loaded.data) == 1
        assert {key: kvs.decode(stored.data) for key, stored in others.items()} == {"a": 2}
        nothing, others, second_ms = kvs.raw_load_timed(None, None, ["a"])
        assert nothing is None
        assert list(others) == ["a"]
        assert 0 <= second_ms - first_ms < 60_000

    def test_load_timed_renews(self, kvs: KVS) -> None:
        if not kvs.has_clock:
            pytest.skip("the driver does not tell the time (has_clock = False)")
        kvs.set_many({"key": 1, "a": 2}, 10)
        kvs.raw_load_timed("key", 100, ["a"])
        assert kvs.ttl_of("key") > 90
        assert kvs.ttl_of("a") <= 10

    def test_load_with_no_other_keys(self, kvs: KVS) -> None:
        kvs.set("key", 1, 10)
        loaded, others = kvs.raw_load_with("key", 100, [])
        assert loaded is not None
        assert others == {}
        assert kvs.ttl_of("key") > 90

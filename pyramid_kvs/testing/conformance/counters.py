"""``incr`` and ``decr``."""

from __future__ import annotations

from typing import Any

import pytest

from ...exceptions import KVSError
from ...kvs import KVS
from .base import Base, Make


class Counters(Base):
    def test_counters(self, kvs: KVS) -> None:
        assert kvs.incr("counter") == 1
        assert kvs.incr("counter", 5) == 6
        assert kvs.decr("counter", 10) == -4
        assert kvs.get("counter") == -4
        assert kvs.incr("counter", 3) == -1
        assert kvs.incr("counter", 1) == 0
        assert kvs.get("counter") == 0
        assert kvs.decr("fresh") == -1
        assert kvs.get_many(["counter", "fresh"]) == {"counter": 0, "fresh": -1}
        assert kvs.delete("fresh") == -1

    def test_a_counter_may_lose_a_digit(self, kvs: KVS) -> None:
        kvs.incr("counter", 100)
        assert kvs.decr("counter", 91) == 9
        assert kvs.get("counter") == 9
        assert kvs.incr("counter") == 10

    @pytest.mark.parametrize("codec", ["json", "pickle", "storable"])
    def test_a_counter_is_a_number_with_every_codec(self, new: Make, codec: str) -> None:
        kvs = new(codec=codec)
        kvs.incr("counter", 41)
        kvs.incr("counter")
        assert kvs.get("counter") == 42
        assert kvs.delete("counter") == 42

    def test_only_the_first_incr_sets_the_ttl(self, kvs: KVS) -> None:
        kvs.incr("counter", 1, 100)
        kvs.incr("counter", 1, 500)
        assert 90 < kvs.ttl_of("counter") <= 100

    def test_a_fraction_of_a_second_is_kept_by_later_increments(self, kvs: KVS) -> None:
        kvs.incr("counter", 1, 100.5)
        kvs.incr("counter", 1, 500)
        assert 90 < kvs.ttl_of("counter") <= 100.5
        assert kvs.get("counter") == 2

    def test_incr_gives_a_counter_without_expiry_its_ttl(self, new: Make) -> None:
        kvs = new(ttl=None)
        kvs.incr("counter")
        assert kvs.incr("counter", 1, 100) == 2
        assert 90 < kvs.ttl_of("counter") <= 100

    def test_incr_refuses_a_value_that_is_not_an_integer(self, kvs: KVS) -> None:
        kvs.set("key", "text")
        with pytest.raises(KVSError):
            kvs.incr("key")
        assert kvs.get("key") == "text"

    @pytest.mark.parametrize("delta", [1.5, "1", None])
    def test_a_delta_is_an_integer(self, kvs: KVS, delta: Any) -> None:
        with pytest.raises(TypeError):
            kvs.incr("counter", delta)
        assert kvs.get("counter") is None

    def test_a_delta_of_true_is_one(self, kvs: KVS) -> None:
        assert kvs.incr("counter", True) == 1

    def test_incr_refuses_a_ttl_of_zero(self, kvs: KVS) -> None:
        with pytest.raises(ValueError, match="more than 0"):
            kvs.incr("counter", 1, 0)

"""Lifetimes of values and counters: ttl, expiry, ``ttl_of`` and ``expire``."""

from __future__ import annotations

import time
from typing import Any

import pytest

from ...kvs import KVS
from .base import Base, Make

DAY = 86400

#: A lifetime in seconds, and a pause after which it is over.
SHORT, PAUSE = 0.2, 0.25


class Alive:
    """What was just stored for a short time. A slow machine may find that it has ended."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def is_over(self) -> bool:
        return time.monotonic() - self._began >= SHORT


class Lifetimes(Base):
    def test_a_ttl_may_be_a_fraction_of_a_second(self, kvs: KVS) -> None:
        alive = Alive()
        kvs.set("short", 1, SHORT)
        kvs.set_many({"many": 1}, SHORT)
        kvs.set("long", 1, 30.5)
        assert kvs.add("added", 1, SHORT)
        assert kvs.incr("counter", 5, SHORT) == 5
        found = kvs.get_many(["short", "many", "added", "counter"])
        assert found == {"short": 1, "many": 1, "added": 1, "counter": 5} or alive.is_over()
        time.sleep(PAUSE)
        keys = ["short", "many", "long", "added", "counter"]
        assert kvs.get_many(keys) == {"long": 1}
        assert kvs.get("short") is None
        assert kvs.delete("many") is None
        assert kvs.add("added", 2)
        assert kvs.incr("counter") == 1
        assert kvs.update("short", lambda old: [old]) == [None]

    def test_the_ttl_of_the_driver_is_the_default(self, new: Make) -> None:
        kvs = new(ttl=SHORT)
        kvs.set("key", 1)
        kvs.set("longer", 1, 50)
        time.sleep(PAUSE)
        assert kvs.get("key") is None
        assert kvs.get("longer") == 1

    def test_ttl_of(self, new: Make) -> None:
        kvs = new(ttl=None)
        kvs.set("key", 1, 60)
        assert 57 < kvs.ttl_of("key") <= 60
        assert isinstance(kvs.ttl_of("key"), float)
        assert kvs.ttl_of("missing") < 0
        kvs.set("fraction", 1, 60.5)
        assert 58 < kvs.ttl_of("fraction") <= 60.5
        kvs.set("eternal", 1)
        assert kvs.ttl_of("eternal") < 0

    def test_the_ttl_of_several_keys(self, new: Make) -> None:
        kvs = new(ttl=None)
        kvs.set("long", 1, 60)
        kvs.set("fraction", 1, 30.5)
        kvs.set("eternal", 1)
        left = kvs.raw_ttl_many(["long", "missing", "eternal", "fraction"])
        assert list(left) == ["long", "missing", "eternal", "fraction"]
        assert 57 < left["long"] <= 60
        assert 28 < left["fraction"] <= 30.5
        assert left["eternal"] == kvs.ttl_of("eternal")
        assert left["missing"] == kvs.ttl_of("missing")
        assert kvs.raw_ttl_many(["long"]).keys() == {"long"}
        assert kvs.raw_ttl_many([]) == {}

    def test_a_driver_without_ttl_stores_without_expiry(self, new: Make) -> None:
        kvs = new(ttl=None)
        kvs.set("key", 1)
        kvs.set_many({"many": 1})
        kvs.incr("counter")
        kvs.update("updated", lambda old: 1)
        kvs.add("added", 1)
        assert all(kvs.ttl_of(k) < 0 for k in ("key", "many", "counter", "updated", "added"))
        assert len(kvs.get_many(["key", "many", "counter", "updated", "added"])) == 5

    @pytest.mark.parametrize("ttl", [10**12, 10**400, 1e300, float("inf")])
    def test_a_ttl_may_be_absurdly_long(self, kvs: KVS, ttl: float) -> None:
        kvs.set("key", 1, ttl)
        kvs.set_many({"many": 1}, ttl)
        kvs.add("added", 1, ttl)
        kvs.incr("counter", 1, ttl)
        assert kvs.expire("key", ttl) is True
        assert kvs.get_many(["key", "many", "added", "counter"]) == {
            "key": 1, "many": 1, "added": 1, "counter": 1,
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("ttl", "error"), [(float("nan"), ValueError), ("60", TypeError), (True, TypeError)]
    )
    def test_a_ttl_is_a_number(self, kvs: KVS, ttl: Any, error: type[Exception]) -> None:
        for call in (
            lambda: kvs.set("key", 1, ttl),
            lambda: kvs.set_many({"key": 1}, ttl),
            lambda: kvs.add("key", 1, ttl),
            lambda: kvs.incr("key", 1, ttl),
            lambda: kvs.expire("key", ttl),
            lambda: kvs.update("key", lambda old: 1, ttl),
        ):
            with pytest.raises(error, match=r"ttl: found .*, expected a number of seconds"):
                call()
        assert kvs.get("key") is None

    @pytest.mark.parametrize("ttl", [29 * DAY, 30 * DAY, 30 * DAY + 1, 40 * DAY, 400 * DAY])
    def test_a_ttl_may_be_any_number_of_days(self, kvs: KVS, ttl: int) -> None:
        kvs.set("key", 1, ttl)
        kvs.add("added", 1, ttl)
        kvs.incr("counter", 1, ttl)
        kvs.set("expiring", 1)
        kvs.expire("expiring", ttl)
        for key in ("key", "added", "counter", "expiring"):
            assert kvs.get(key) == 1
            assert abs(kvs.ttl_of(key) - ttl) < 5

    def test_expire(self, kvs: KVS) -> None:
        kvs.set("key", {"a": 1}, 10)
        assert kvs.expire("key", 100) is True
        assert 90 < kvs.ttl_of("key") <= 100
        assert kvs.expire("key", 100.5) is True
        assert 90 < kvs.ttl_of("key") <= 100.5
        assert kvs.get("key") == {"a": 1}
        assert kvs.expire("key", 0) is True
        assert kvs.get("key") is None

    def test_expire_creates_nothing(self, kvs: KVS) -> None:
        assert kvs.expire("missing", 100) is False
        assert kvs.expire("missing", 0) is False
        assert kvs.get("missing") is None
        assert kvs.ttl_of("missing") < 0

    def test_expire_soon(self, kvs: KVS) -> None:
        kvs.set("key", 1, 100)
        kvs.incr("counter", 1, 100)
        alive = Alive()
        kvs.expire("key", SHORT)
        kvs.expire("counter", SHORT)
        assert kvs.get_many(["key", "counter"]) == {"key": 1, "counter": 1} or alive.is_over()
        time.sleep(PAUSE)
        assert kvs.get_many(["key", "counter"]) == {}

"""Claims: one caller at a time may replace the data of a key."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import pytest

from ...kvs import KVS, Claim
from .base import Base, Make, in_threads


def claimed_in_the_end(kvs: KVS, key: str, stale: float) -> Claim:
    """Ask for stale data until they are claimed.

    On memcached it takes a second to learn that a claim of stale data has ended.
    """
    deadline = time.monotonic() + 30
    claim = kvs.raw_claim(key, stale, 30)
    while claim.owner is None and time.monotonic() < deadline:
        time.sleep(0.05)
        claim = kvs.raw_claim(key, stale, 30)
    return claim


def put(kvs: KVS, key: str, value: Any, ttl: float) -> None:
    """Store a value that gets stale; the test ends here if the driver cannot tell how old it is."""
    kvs.set(key, value, ttl)
    kvs.ttl_of(key)


class Claims(Base):
    def test_a_missing_key_is_claimed_once(self, kvs: KVS) -> None:
        first = kvs.raw_claim("key", 0, 30)
        assert (first.data, first.is_fresh) == (None, False)
        assert first.owner is not None
        assert kvs.raw_claim("key", 0, 30)[:3] == (None, False, None)
        assert kvs.raw_claim("another", 0, 30).owner is not None

    def test_a_missing_key_is_left_alone_if_only_stale_data_are_wanted(self, kvs: KVS) -> None:
        assert kvs.raw_claim("key", 60, 30, False)[:3] == (None, False, None)
        assert kvs.raw_claim("key", 60, 30).owner is not None

    def test_a_claim_is_not_seen_at_the_key(self, kvs: KVS) -> None:
        kvs.raw_claim("key", 0, 30)
        assert kvs.get("key") is None
        assert kvs.get_many(["key"]) == {}
        assert kvs.ttl_of("key") < 0
        assert kvs.add("key", 1)

    @pytest.mark.parametrize("stale", [0, 10, 10.5])
    def test_fresh_data_are_not_claimed(self, kvs: KVS, stale: float) -> None:
        kvs.set("key", {"a": 1}, 60)
        claim = kvs.raw_claim("key", stale, 30)
        assert claim.is_fresh
        assert claim.owner is None
        assert kvs.decode(claim.data) == {"a": 1}
        kvs.delete("key")
        assert kvs.raw_claim("key", stale, 30).owner is not None

    def test_data_without_expiry_are_fresh(self, new: Make) -> None:
        kvs = new(ttl=None)
        kvs.set("key", 1)
        assert kvs.raw_claim("key", 10**9, 30).is_fresh

    @pytest.mark.parametrize("ttl", [60, 60.5])
    def test_stale_data_are_claimed_once_and_stay(self, kvs: KVS, ttl: float) -> None:
        put(kvs, "key", {"a": 1}, ttl)
        claims = [kvs.raw_claim("key", 90, 30, absent) for absent in (False, True, False)]
        assert [claim.owner is not None for claim in claims] == [True, False, False]
        assert not any(claim.is_fresh for claim in claims)
        assert [kvs.decode(claim.data) for claim in claims] == [{"a": 1}] * 3
        assert 55 < claims[0].left <= 61
        assert kvs.get("key") == {"a": 1}

    @pytest.mark.parametrize("days", [29, 31, 400, 36525])
    def test_stale_may_be_any_number_of_days(self, kvs: KVS, days: int) -> None:
        put(kvs, "key", 1, 60)
        claims = [kvs.raw_claim("key", days * 86400, 30) for _ in range(3)]
        assert [claim.owner is not None for claim in claims] == [True, False, False]
        put(kvs, "fresh", 1, 60 + min(days, 3000) * 86400)
        assert kvs.raw_claim("fresh", min(days, 3000) * 86400, 30).is_fresh

    @pytest.mark.parametrize("ttl", [60, 60.5])
    def test_data_get_stale_when_less_is_left(self, kvs: KVS, ttl: float) -> None:
        put(kvs, "key", 1, ttl)
        assert kvs.raw_claim("key", 30, 30).is_fresh
        assert kvs.raw_claim("key", 58.5, 30).is_fresh
        assert not kvs.raw_claim("key", 62, 30).is_fresh

    def test_data_with_a_fraction_get_stale_in_time(self, kvs: KVS) -> None:
        put(kvs, "key", 1, 31.3)
        assert kvs.raw_claim("key", 30, 30).is_fresh
        time.sleep(1.4)
        claim = kvs.raw_claim("key", 30, 30)
        assert not claim.is_fresh
        assert claim.owner is not None

    def test_a_claim_ends(self, kvs: KVS) -> None:
        assert kvs.raw_claim("key", 0, 1.2).owner is not None
        assert kvs.raw_claim("key", 0, 30).owner is None
        time.sleep(1.3)
        assert kvs.raw_claim("key", 0, 30).owner is not None
        assert kvs.raw_claim("key", 0, 30).owner is None

    def test_a_claim_is_released(self, kvs: KVS) -> None:
        kvs.raw_release("key", kvs.raw_claim("key", 0, 30).owner)
        assert kvs.raw_claim("key", 0, 30).owner is not None

    def test_a_claim_of_stale_data_is_released(self, kvs: KVS) -> None:
        put(kvs, "stale", 1, 60)
        kvs.raw_release("stale", kvs.raw_claim("stale", 90, 30).owner)
        assert claimed_in_the_end(kvs, "stale", 90).owner is not None

    def test_a_late_owner_does_not_release_the_claim_of_another(self, kvs: KVS) -> None:
        late = kvs.raw_claim("key", 0, 1.2).owner
        time.sleep(1.3)
        assert kvs.raw_claim("key", 0, 30).owner is not None
        kvs.raw_release("key", late)
        assert kvs.raw_claim("key", 0, 30).owner is None
        kvs.raw_release("key", late, 0.1)
        time.sleep(0.2)
        assert kvs.raw_claim("key", 0, 30).owner is None
        kvs.raw_set_claimed("key", "1", 60, late)
        kvs.delete("key")
        assert kvs.raw_claim("key", 0, 30).owner is None

    def test_nobody_claims_during_a_pause(self, kvs: KVS) -> None:
        kvs.raw_release("key", kvs.raw_claim("key", 0, 30).owner, 1.2)
        assert kvs.raw_claim("key", 0, 30).owner is None
        time.sleep(1.3)
        assert kvs.raw_claim("key", 0, 30).owner is not None

    def test_a_pause_begins_after_the_claim_has_ended_too(self, kvs: KVS) -> None:
        late = kvs.raw_claim("key", 0, 1.2).owner
        time.sleep(1.3)
        kvs.raw_release("key", late, 30)
        assert kvs.raw_claim("key", 0, 30).owner is None

    def test_a_pause_can_be_ended_but_a_claim_cannot(self, kvs: KVS) -> None:
        for key in ("key", "{a}b c}", "é" * 200):
            owner = kvs.raw_claim(key, 0, 30).owner
            kvs.raw_end_pause(key)
            assert kvs.raw_claim(key, 0, 30).owner is None
            kvs.raw_release(key, owner, 30)
            kvs.raw_end_pause(key)
            assert kvs.raw_claim(key, 0, 30).owner is not None

    def test_a_pause_after_the_claim_has_ended_can_be_ended(self, kvs: KVS) -> None:
        late = kvs.raw_claim("key", 0, 1.2).owner
        time.sleep(1.3)
        kvs.raw_release("key", late, 30)
        kvs.raw_end_pause("key")
        assert kvs.raw_claim("key", 0, 30).owner is not None

    @pytest.mark.parametrize("ttl", [60, 60.5, None])
    def test_stored_data_are_those_that_set_stores(self, kvs: KVS, ttl: float | None) -> None:
        data = kvs.encode({"a": [1, "é"]})
        kvs.raw_set("plain", data, ttl)
        kvs.raw_set_claimed("key", data, ttl, kvs.raw_claim("key", 0, 30).owner)
        assert kvs.raw_get("key") == kvs.raw_get("plain")
        assert abs(kvs.ttl_of("key") - kvs.ttl_of("plain")) < 2
        kvs.delete("key")
        assert kvs.raw_claim("key", 0, 30).owner is not None

    @pytest.mark.parametrize("key", ["", "a}b", "{a}b", "with space", "é\n", "k" * 245, "k" * 5000])
    def test_any_key_can_be_claimed(self, kvs: KVS, key: str) -> None:
        owner = kvs.raw_claim(key, 0, 30).owner
        assert owner is not None
        assert kvs.raw_claim(key, 0, 30).owner is None
        kvs.raw_set_claimed(key, "1", 60, owner)
        assert kvs.raw_claim(key, 10, 30).is_fresh
        kvs.ttl_of(key)
        assert kvs.raw_claim(key, 90, 30).owner is not None

    def test_any_prefix_can_be_used(self, new: Make) -> None:
        kvs = new("100 % {é}%b::")
        claims = [kvs.raw_claim("key", 10, 30) for _ in range(2)]
        assert [claim.owner is not None for claim in claims] == [True, False]
        kvs.raw_set_claimed("key", "1", 60, claims[0].owner)
        assert kvs.raw_claim("key", 10, 30).is_fresh
        kvs.ttl_of("key")
        assert kvs.raw_claim("key", 90, 30).owner is not None

    def test_one_of_many_threads_gets_the_claim_of_a_missing_key(self, kvs: KVS) -> None:
        claims = in_threads(8, partial(kvs.raw_claim, "key", 90, 30))
        assert sum(claim.owner is not None for claim in claims) == 1

    def test_one_of_many_threads_gets_the_claim_of_stale_data(self, kvs: KVS) -> None:
        put(kvs, "key", 1, 60)
        claims = in_threads(8, partial(kvs.raw_claim, "key", 90, 30))
        assert sum(claim.owner is not None for claim in claims) == 1

    def test_expire_makes_stale_data_fresh(self, kvs: KVS) -> None:
        put(kvs, "key", 1, 60)
        assert not kvs.raw_claim("key", 90, 30).is_fresh
        kvs.expire("key", 600)
        assert kvs.raw_claim("key", 90, 30).is_fresh

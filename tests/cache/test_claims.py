"""Claims at the moments between two steps of a driver."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cache.fleet import shared_cache
from tests.stores import settings_of


@pytest.mark.parametrize(("kvs", "hook"), [("postgresql", "raw_add"), ("memcache", "_add_claim")])
@pytest.mark.parametrize("ttl", [None, 60.5], ids=["missing", "stale"])
def test_a_value_stored_just_before_the_claim_is_found(
    kvs: str, hook: str, ttl: float | None, request: pytest.FixtureRequest
) -> None:
    """The caller with the claim may store and release after another one has looked."""
    driver = shared_cache(settings_of(kvs, request)).client
    if ttl:
        driver.set("key", "old", ttl)
    original = getattr(driver, hook)

    def late(*args: Any) -> Any:
        driver.set("key", "new", 600)
        return original(*args)

    setattr(driver, hook, late)
    claim = driver.raw_claim("key", 90, 30)
    assert claim.is_fresh
    assert claim.owner is None
    assert driver.decode(claim.data) == "new"
    setattr(driver, hook, original)
    driver.delete("key")
    assert driver.raw_claim("key", 0, 30).owner is not None

"""Fixtures of the rate limit's tests."""

from tests.ratelimit.stores import store

__all__ = ["store"]

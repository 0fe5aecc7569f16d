"""Fixtures for the tests of the rate limit."""

from tests.ratelimit.stores import mock_store, store

__all__ = ["mock_store", "store"]

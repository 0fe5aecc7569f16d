"""The stores of a cache, on real servers."""

from __future__ import annotations

import pytest

from tests.cache.apps import Options
from tests.stores import SHARED_STORES, STORES, settings_of


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> Options:
    """The settings of each store in turn, on a real server."""
    return settings_of(request.param, request)


@pytest.fixture(params=SHARED_STORES)
def shared(request: pytest.FixtureRequest) -> Options:
    """The settings of each store that processes share."""
    return settings_of(request.param, request)

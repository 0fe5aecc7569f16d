"""The stores of observed applications, on real servers."""

from __future__ import annotations

import pytest

from tests.cache.apps import Options
from tests.stores import STORES, settings_of


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> Options:
    """The settings of each store in turn, on a real server."""
    return settings_of(request.param, request)

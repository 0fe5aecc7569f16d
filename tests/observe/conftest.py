"""The stores of observed applications, on real servers."""

from __future__ import annotations

import pytest

from tests.cache.apps import Options
from tests.cache.conftest import options_of


@pytest.fixture(params=["memory", "redis", "memcache", "postgresql"])
def store(request: pytest.FixtureRequest) -> Options:
    """The settings of each store in turn, on a real server."""
    return options_of(request.param, request)

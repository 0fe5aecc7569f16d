"""The stores, all of them real."""

from __future__ import annotations

import pytest

from tests.session.apps import Store, memory_options
from tests.stores import STORES, settings_of


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> Store:
    """Each of the stores in turn."""
    return make_store(request.param, request)


@pytest.fixture
def memory() -> Store:
    return Store("memory", memory_options())


@pytest.fixture
def redis(request: pytest.FixtureRequest) -> Store:
    return make_store("redis", request)


def make_store(name: str, request: pytest.FixtureRequest) -> Store:
    settings = settings_of(name, request)
    return Store(settings["kvs"], settings["kvs_kwargs"])

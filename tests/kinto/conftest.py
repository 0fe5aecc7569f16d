"""The stores for the Kinto tests; nothing here needs Kinto."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.kinto.stores import Make, Store


@pytest.fixture
def store(request: pytest.FixtureRequest) -> Store:
    """The store whose name parametrizes the test, on the run's shared server, empty."""
    from tests.kinto.stores import Store, store_on

    name = request.param
    if name == "memory":
        return Store(name, {})
    fixture = {"postgresql": "postgres_server"}.get(name, f"{name}_server")
    return store_on(name, request.getfixturevalue(fixture))


@pytest.fixture
def own_store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """The store whose name parametrizes the test, on a server that the test may stop."""
    from tests.kinto.stores import KINDS, store_on

    with KINDS[request.param]() as server:
        yield store_on(request.param, server)


@pytest.fixture
def new(store: Store) -> Make:
    """Return a function that loads a backend and creates its schema."""

    def make(**settings: Any) -> Any:
        backend = store.load(**settings)
        backend.initialize_schema()
        return backend

    return make

"""Drivers on a PostgreSQL server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from pyramid_kvs.kvs import KVS
from tests.servers import PostgresServer

if TYPE_CHECKING:
    from tests.drivers.postgresql.helpers import Make, PostgresqlKVS


@pytest.fixture
def make() -> Iterator[Make]:
    """Build drivers on a server, closed at the end."""
    built: list[Any] = []

    def make(server: PostgresServer, prefix: str = "p::", **kvs_kwargs: Any) -> PostgresqlKVS:
        built.append(KVS("postgresql", {"url": server.url, **kvs_kwargs}, prefix))
        return built[-1]

    yield make
    for driver in built:
        driver.close()


@pytest.fixture
def store(postgres_server: PostgresServer, make: Make) -> PostgresqlKVS:
    driver = make(postgres_server)
    driver.initialize_schema()
    return driver


@pytest.fixture(scope="module")
def module_server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture
def frail(module_server: PostgresServer, make: Make) -> PostgresServer:
    """A server that the tests of the module can stop and pause."""
    module_server.ensure().clear()
    make(module_server).initialize_schema()
    return module_server

"""Servers that the tests of outages pause, kill and configure."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.outages.proxies import Proxy
from tests.outages.stores import KINDS, Store
from tests.servers import PostgresServer, RedisServer


@pytest.fixture(scope="session", params=list(KINDS))
def frail_session(request: pytest.FixtureRequest) -> Iterator[Store]:
    if request.param == "postgresql":
        pytest.importorskip("psycopg")
    with KINDS[request.param]() as server:
        yield Store(request.param, server)


@pytest.fixture
def frail(frail_session: Store) -> Iterator[Store]:
    """Each store, one after the other, empty and ready; the test may pause its server."""
    server = frail_session.server
    server.ensure().clear()  # type: ignore[attr-defined]
    if isinstance(server, PostgresServer):
        frail_session.driver().initialize_schema()
        server.execute("CHECKPOINT")  # it is fast, not safe: a crash would lose the table
    yield frail_session
    server.resume()


@pytest.fixture
def proxy(frail: Store) -> Iterator[Proxy]:
    """A proxy in front of each store."""
    with Proxy(frail.server.port) as proxy:
        yield proxy


@pytest.fixture
def any_redis(redis_version: str) -> Iterator[RedisServer]:
    """A redis of each version, for this test only."""
    with RedisServer(version=redis_version) as server:
        yield server

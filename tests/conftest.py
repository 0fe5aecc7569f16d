"""Fixtures of real servers: see ``tests/servers.py`` for what they can do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TypeVar

import pytest

from tests.servers import MemcachedServer, PostgresServer, RedisServer, Server

S = TypeVar("S", bound=Server)


@pytest.fixture(scope="session")
def redis_session() -> Iterator[RedisServer]:
    """The run's redis, never emptied."""
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="session")
def memcached_session() -> Iterator[MemcachedServer]:
    """The run's memcached, never emptied."""
    with MemcachedServer() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_session() -> Iterator[PostgresServer]:
    """The run's PostgreSQL; its database ``kvs`` belongs to the tests with ``postgres_server``."""
    with PostgresServer() as server:
        yield server


@pytest.fixture
def redis_server(redis_session: RedisServer) -> RedisServer:
    """The run's redis, empty and with its counts at zero."""
    redis_session.ensure().clear()
    return redis_session


@pytest.fixture
def memcached_server(memcached_session: MemcachedServer) -> MemcachedServer:
    """The run's memcached, empty."""
    memcached_session.ensure().clear()
    return memcached_session


@pytest.fixture
def postgres_server(postgres_session: PostgresServer) -> PostgresServer:
    """The run's PostgreSQL with an empty database ``kvs``."""
    postgres_session.ensure().clear()
    return postgres_session


@pytest.fixture
def own_redis() -> Iterator[Callable[..., RedisServer]]:
    """Start redis servers for this test alone."""
    yield from _factory(RedisServer)


@pytest.fixture
def own_memcached() -> Iterator[Callable[..., MemcachedServer]]:
    """Start memcached servers for this test alone."""
    yield from _factory(MemcachedServer)


@pytest.fixture
def own_postgres() -> Iterator[Callable[..., PostgresServer]]:
    """Start PostgreSQL clusters for this test alone."""
    yield from _factory(PostgresServer)


def _factory(kind: type[S]) -> Iterator[Callable[..., S]]:
    with ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(kind(*args, **options))

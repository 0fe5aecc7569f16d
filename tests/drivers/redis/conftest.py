"""A driver for the run's redis."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pyramid_kvs.kvs import KVS
from tests.drivers.redis.fake import FakeRedis, fake_redis
from tests.drivers.redis.support import driver_of
from tests.servers import RedisServer


@pytest.fixture
def server(redis_server: RedisServer) -> RedisServer:
    return redis_server


@pytest.fixture
def driver(server: RedisServer) -> Iterator[KVS]:
    """A driver that is connected; the counts of the server are at zero."""
    driver = driver_of(server)
    driver.ping()
    server.reset_calls()
    yield driver
    driver.close()


@pytest.fixture
def fake() -> Iterator[FakeRedis]:
    with fake_redis() as fake:
        yield fake

"""Fixtures of the tests of the memcache driver."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import memcache
import pytest

from pyramid_kvs.kvs import KVS
from tests.servers import MemcachedServer

from .helpers import Start, connect, interrupt


@pytest.fixture
def kvs(memcached_server: MemcachedServer) -> Iterator[KVS]:
    driver = connect(memcached_server)
    yield driver
    driver.close()


@pytest.fixture
def peer(memcached_server: MemcachedServer) -> Iterator[memcache.Client]:
    client = memcache.Client([memcached_server.url])
    yield client
    client.disconnect_all()


@pytest.fixture
def three(own_memcached: Start) -> list[MemcachedServer]:
    return [own_memcached() for _ in range(3)]


@pytest.fixture
def alarm() -> Iterator[Callable[[float], None]]:
    before = signal.signal(signal.SIGALRM, interrupt)
    yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)

"""Fixtures of real servers, which ``tests/servers.py`` describes."""

from __future__ import annotations

import importlib.metadata
import os
import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from typing import TypeVar

import pytest

from tests import servers
from tests.servers import (
    MemcachedServer,
    PostgresServer,
    RedisCluster,
    RedisSentinel,
    RedisServer,
    Server,
)

# Pyramid imports pkg_resources, which warns with setuptools 80 and 81. Some tests compare what a
# program prints.
os.environ.setdefault("PYTHONWARNINGS", "ignore:pkg_resources is deprecated:UserWarning")

# A shell lets a command in the background ignore Ctrl-C, and so would the servers that tests start
# and end by it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest.register_assert_rewrite("tests.conformance")

LIBRARIES = ("pyramid", "redis", "python-memcached", "psycopg", "kinto")
S = TypeVar("S", bound=Server | RedisCluster | RedisSentinel)


def pytest_report_header() -> list[str]:
    """Name the versions of the servers and of the libraries that talk to them."""
    found = {library: _library_version(library) for library in LIBRARIES}
    return [
        f"{title}: " + ", ".join(f"{name} {version}" for name, version in versions.items())
        for title, versions in (("servers", servers.versions()), ("libraries", found))
    ]


def _library_version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Report a missing program at the place that raised, not at each test.

    The summary has one line for each place and reason. For a skip in a fixture pytest takes the
    test as the place, which gave more than a thousand lines without any server.
    """
    report = yield
    if call.excinfo and isinstance(call.excinfo.value, servers.Missing):
        raised = call.excinfo.traceback[-1]
        report.longrepr = (str(raised.path), raised.lineno + 1, f"Skipped: {call.excinfo.value}")
    return report


@pytest.fixture(scope="session")
def redis_session() -> Iterator[RedisServer]:
    """The run's redis, never emptied."""
    with RedisServer() as server:
        yield server


@pytest.fixture(
    scope="session", params=["", *servers.REDIS_VERSIONS], ids=lambda name: name or "installed"
)
def redis_version(request: pytest.FixtureRequest) -> str:
    """Each version of redis, for ``RedisServer(version=...)``."""
    version: str = request.param
    return version


@pytest.fixture(scope="session", params=list(servers.REDIS_VERSIONS))
def other_redis_session(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """The run's servers of other versions, one after the other, never emptied."""
    with RedisServer(version=request.param) as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster_session() -> Iterator[RedisCluster]:
    """The run's cluster of redis, never emptied."""
    with RedisCluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def valkey_cluster_session() -> Iterator[RedisCluster]:
    """The run's cluster of Valkey, never emptied."""
    with RedisCluster(version="valkey-9.1") as cluster:
        yield cluster


@pytest.fixture(scope="session")
def valkey_sentinel_session() -> Iterator[RedisSentinel]:
    """The run's Valkey servers with sentinels, never emptied."""
    with RedisSentinel(version="valkey-9.1") as group:
        yield group


@pytest.fixture(scope="session")
def memcached_session() -> Iterator[MemcachedServer]:
    """The run's memcached, never emptied."""
    with MemcachedServer() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_session() -> Iterator[PostgresServer]:
    """The run's PostgreSQL; only tests with ``postgres_server`` use its database ``kvs``."""
    with PostgresServer() as server:
        yield server


@pytest.fixture
def redis_server(redis_session: RedisServer) -> RedisServer:
    """The run's redis, empty and with its counts at zero."""
    redis_session.ensure().clear()
    return redis_session


@pytest.fixture
def other_redis_server(other_redis_session: RedisServer) -> RedisServer:
    """Each of the run's servers of other versions, empty and with its counts at zero."""
    other_redis_session.ensure().clear()
    return other_redis_session


@pytest.fixture
def redis_cluster(redis_cluster_session: RedisCluster) -> RedisCluster:
    """The run's cluster of redis, empty and with its counts at zero."""
    redis_cluster_session.ensure().clear()
    return redis_cluster_session


@pytest.fixture
def valkey_cluster(valkey_cluster_session: RedisCluster) -> RedisCluster:
    """The run's cluster of Valkey, empty and with its counts at zero."""
    valkey_cluster_session.ensure().clear()
    return valkey_cluster_session


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
    """Start redis servers for this test only."""
    yield from _factory(RedisServer)


@pytest.fixture
def own_redis_cluster() -> Iterator[Callable[..., RedisCluster]]:
    """Start clusters of redis for this test only."""
    yield from _factory(RedisCluster)


@pytest.fixture
def own_redis_sentinel() -> Iterator[Callable[..., RedisSentinel]]:
    """Start redis servers with sentinels for this test only."""
    yield from _factory(RedisSentinel)


@pytest.fixture
def own_memcached() -> Iterator[Callable[..., MemcachedServer]]:
    """Start memcached servers for this test only."""
    yield from _factory(MemcachedServer)


@pytest.fixture
def own_postgres() -> Iterator[Callable[..., PostgresServer]]:
    """Start PostgreSQL clusters for this test only."""
    yield from _factory(PostgresServer)


def _factory(kind: type[S]) -> Iterator[Callable[..., S]]:
    with ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(kind(*args, **options))

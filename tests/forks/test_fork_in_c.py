"""A fork by C code, which runs no hook of Python: no process uses another's connections."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.servers import MemcachedServer, PostgresServer, RedisCluster, RedisServer
from tests.stores import timeouts

ROOT = Path(__file__).parents[2]


def fork_and_use(driver: str, **kwargs: Any) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "tests.forks.children", driver, json.dumps(kwargs)],
        cwd=ROOT, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, "")


def test_redis(redis_server: RedisServer) -> None:
    fork_and_use("redis", host=redis_server.host, port=redis_server.port)


def test_redis_cluster(redis_cluster: RedisCluster) -> None:
    fork_and_use("redis", url=redis_cluster.url, **timeouts("redis-cluster"))


def test_memcached(memcached_server: MemcachedServer) -> None:
    fork_and_use("memcache", servers=[f"{memcached_server.host}:{memcached_server.port}"])


def test_postgresql(postgres_server: PostgresServer) -> None:
    pytest.importorskip("psycopg")
    fork_and_use("postgresql", url=postgres_server.dsn())


@pytest.mark.parametrize("kwargs", [{}, {"name": "shared"}])
def test_memory(kwargs: dict[str, Any]) -> None:
    """Each process has its own data, and waits for no lock that a thread of its parent holds."""
    fork_and_use("memory", **kwargs)

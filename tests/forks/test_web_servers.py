"""Servers that load the application before they fork: nobody gets another visitor's page."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pyramid_kvs.kvs import KVS
from tests.servers import MemcachedServer, PostgresServer, RedisServer
from tests.web_servers import Gunicorn, Uwsgi, WebServer

VISITORS = 40
PAGES = 15
APPLICATION = "tests.forks.site:application"

Store = dict[str, Any]


@pytest.fixture(params=["redis", "memcached", "postgresql"])
def store(request: pytest.FixtureRequest) -> Store:
    """The setting of a store, whose server is empty."""
    if request.param == "redis":
        redis: RedisServer = request.getfixturevalue("redis_server")
        return {"kvs": "redis", "kvs_kwargs": {"host": redis.host, "port": redis.port}}
    if request.param == "memcached":
        memcached: MemcachedServer = request.getfixturevalue("memcached_server")
        servers = [f"{memcached.host}:{memcached.port}"]
        return {"kvs": "memcache", "kvs_kwargs": {"servers": servers}}
    pytest.importorskip("psycopg")
    postgres: PostgresServer = request.getfixturevalue("postgres_server")
    return {"kvs": "postgresql", "kvs_kwargs": {"url": postgres.dsn()}}


def session_id(visitor: int) -> str:
    return f"{visitor:040x}"


def visit_all(store: Store, make: Callable[[], WebServer]) -> None:
    driver = KVS(store["kvs"], store["kvs_kwargs"], "session::")
    driver.initialize_schema()
    for visitor in range(VISITORS):
        driver.set(session_id(visitor), {"name": f"visitor-{visitor}"})

    def visit(visitor: int) -> list[tuple[int, bytes]]:
        cookie = f"session_id={session_id(visitor)}"
        return [server.get("/who", Cookie=cookie) for _ in range(PAGES)]

    with make() as server, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(visit, range(VISITORS)))
        assert len(set(answers[0])) == 1, server.log[-2000:]
    for visitor, pages in enumerate(answers):
        name = f"visitor-{visitor}"
        assert pages == [(200, f"{name} {name}".encode())] * PAGES
        assert driver.get(session_id(visitor))["pages"] == PAGES


def test_uwsgi(store: Store) -> None:
    visit_all(store, lambda: Uwsgi(APPLICATION, STORE=json.dumps(store)))


def test_gunicorn(store: Store) -> None:
    visit_all(store, lambda: Gunicorn(APPLICATION, STORE=json.dumps(store)))


def test_gunicorn_with_gevent(store: Store) -> None:
    """Greenlets instead of threads: a waiting caller must not block the others."""
    pytest.importorskip("gevent")
    extra = ("--worker-class", "gevent")
    visit_all(store, lambda: Gunicorn(APPLICATION, *extra, STORE=json.dumps(store)))

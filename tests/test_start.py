"""The start check: a store that cannot serve is logged, and the application starts."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.events import ApplicationCreated, NewRequest
from webtest import TestApp

from pyramid_kvs.application import Application
from pyramid_kvs.kvs import KVS
from tests.servers import MemcachedServer, PostgresServer, RedisServer


def start(**settings: Any) -> Application:
    named = {f"kvs.{name}": value for name, value in settings.items()}
    config = Configurator(settings={"pyramid.includes": "pyramid_kvs", **named})
    config.make_wsgi_app()
    return Application.of(config.registry)


def redis_at(server: RedisServer, **kwargs: Any) -> dict[str, Any]:
    return {"kvs": "redis", "kvs_kwargs": {"host": server.host, "port": server.port, **kwargs}}


def test_a_store_that_serves_is_not_mentioned(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    application = start(cache=redis_at(redis_server), session=redis_at(redis_server))
    assert len(application.stores) == 2
    assert caplog.messages == []
    assert redis_server.command("KEYS", "*") == []


def test_a_store_that_is_down_is_logged_once(
    own_redis: Callable[..., RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    server = own_redis()
    server.kill()
    start(cache=redis_at(server, password="s3cret"))
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("pyramid_kvs.stores", logging.ERROR)
    assert record.getMessage().startswith(
        f"kvs.cache: the store at {server.host}:{server.port} cannot serve: redis at"
    )
    assert "s3cret" not in caplog.text


def test_a_full_store_is_logged(
    own_redis: Callable[..., RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    server = own_redis(maxmemory="1mb")
    application = start(cache=redis_at(server))
    assert not application.stores[0].driver.ping()
    assert "kvs.cache: the store at" in caplog.text
    assert "used memory > 'maxmemory'" in caplog.text


def test_a_user_who_may_not_run_scripts_does_not_pass(redis_server: RedisServer) -> None:
    redis_server.command("ACL", "SETUSER", "plain", "on", ">x", "~*", "+@all", "-@scripting")
    options = redis_at(redis_server, username="plain", password="x")
    driver = start(cache=options).stores[0].driver
    driver.set("key", 1)
    assert driver.get("key") == 1
    assert driver.ping() is False
    with pytest.raises(Exception, match="eval"):
        driver.check()
    redis_server.command("ACL", "DELUSER", "plain")


def test_a_missing_table_is_logged(
    postgres_server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("psycopg")
    options = {"kvs": "postgresql", "kvs_kwargs": {"url": postgres_server.dsn()}}
    start(cache=options)
    assert "run 'pkvs migrate'" in caplog.text


def test_each_memcached_server_is_checked(
    own_memcached: Callable[..., MemcachedServer],
) -> None:
    servers = [own_memcached() for _ in range(3)]
    addresses = [f"{server.host}:{server.port}" for server in servers]
    driver = KVS("memcache", {"servers": addresses})
    assert driver.ping() is True
    servers[1].kill()
    assert [driver.ping() for _ in range(5)] == [False] * 5


def test_the_check_leaves_nothing_behind(own_memcached: Callable[..., MemcachedServer]) -> None:
    server = own_memcached()  # a shared one still counts the items of other tests, after flush_all
    driver = KVS("memcache", {"servers": [f"{server.host}:{server.port}"]})
    driver.check()
    assert server.stats()["curr_items"] == "0"


def test_a_request_does_not_pay_for_the_check() -> None:
    """Pyramid notifies nobody of the events of a request if there is no subscriber."""
    config = Configurator(settings={"pyramid.includes": "pyramid_kvs"})
    config.make_wsgi_app()
    assert not config.registry.has_listeners


def test_the_subscribers_of_the_application_stay() -> None:
    config = Configurator(settings={"pyramid.includes": "pyramid_kvs"})
    seen: list[object] = []
    config.add_subscriber(seen.append, ApplicationCreated)
    config.add_subscriber(seen.append, NewRequest)
    app = config.make_wsgi_app()
    TestApp(app).get("/", status=404)
    assert [type(event) for event in seen] == [ApplicationCreated, NewRequest]

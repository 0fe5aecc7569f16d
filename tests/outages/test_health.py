"""``check()``, ``ping()``, ``pkvs ping`` and the start: whether a store can serve."""

from __future__ import annotations

import itertools
import json
import logging
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyramid.config import Configurator

from pyramid_kvs.exceptions import KVSError, KVSUnavailable
from pyramid_kvs.kvs import KVS
from pyramid_kvs.scripts import pkvs
from tests.outages.apps import build
from tests.outages.stores import SLACK, Store, outcome
from tests.servers import MemcachedServer, PostgresServer, RedisServer, wait_until

Ping = Callable[[dict[str, Any]], int]


def main(global_config: dict[str, str], **settings: str) -> Any:
    config = Configurator(settings=settings)
    config.include("pyramid_kvs")
    return config.make_wsgi_app()


@pytest.fixture
def ping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ping:
    """Run ``pkvs ping`` for an application with this store, and return its exit status."""
    module = types.ModuleType("ping_application")
    vars(module)["main"] = main
    monkeypatch.setitem(sys.modules, "ping_application", module)

    def run(store: dict[str, Any]) -> int:
        path = tmp_path / "site.ini"
        path.write_text(
            "[app:main]\npaste.app_factory = ping_application:main\n"
            f"kvs.cache = {json.dumps(store)}\n"
        )
        return pkvs.main(["ping", str(path)])

    return run


def assert_cannot_serve(
    store: dict[str, Any], reason: str, ping: Ping, capsys: pytest.CaptureFixture[str]
) -> None:
    """``ping`` is false, ``check`` raises the reason, and ``pkvs ping`` prints it."""
    driver = KVS(store["kvs"], store["kvs_kwargs"], "health::")
    assert driver.ping() is False
    error = outcome(driver.check)
    assert isinstance(error, KVSError)
    assert reason in str(error)
    capsys.readouterr()
    assert ping(store) == 1
    printed = "".join(capsys.readouterr())
    assert reason in printed
    assert "s3cret" not in printed + str(error)


def redis_at(server: RedisServer, **kwargs: Any) -> dict[str, Any]:
    return {"kvs": "redis", "kvs_kwargs": {"host": server.host, "port": server.port, **kwargs}}


def test_a_store_that_serves(frail: Store, ping: Ping, capsys: pytest.CaptureFixture[str]) -> None:
    driver = frail.driver()
    driver.check()
    assert driver.ping() is True
    assert ping(frail.options()) == 0
    assert capsys.readouterr().out.endswith("  ok\n")


def test_a_hung_store(frail: Store, ping: Ping, capsys: pytest.CaptureFixture[str]) -> None:
    frail.server.pause()
    began = time.monotonic()
    assert frail.driver().ping() is False
    assert time.monotonic() - began < frail.deadline + SLACK
    assert ping(frail.options()) == 1
    printed = capsys.readouterr().out
    assert "failed: " in printed
    assert "a moment ago" not in printed  # the reason, not that of an open circuit breaker


def test_a_full_redis(
    own_redis: Callable[..., RedisServer], ping: Ping, capsys: pytest.CaptureFixture[str]
) -> None:
    server = own_redis(requirepass="s3cret")
    server.command("CONFIG", "SET", "maxmemory", "1")
    assert_cannot_serve(redis_at(server, password="s3cret"), "maxmemory", ping, capsys)


def test_a_full_memcached(
    own_memcached: Callable[..., MemcachedServer], ping: Ping, capsys: pytest.CaptureFixture[str]
) -> None:
    server = own_memcached("-M", "-m", "2")
    store = {"kvs": "memcache", "kvs_kwargs": {"servers": [server.url]}}
    fill(server)
    assert_cannot_serve(store, "out of memory", ping, capsys)


def fill(server: MemcachedServer) -> None:
    """Leave a memcached without eviction no memory for an item of any size."""
    for size in (90_000, 10_000, 1_000, 400, 200, 120, 60, 30, 5, 1):
        for number in itertools.count(step=1000):
            keys = range(number, number + 1000)
            commands = [b"set %d-%d 0 0 %d\r\n%s\r\n" % (size, n, size, b"x" * size) for n in keys]
            if b"SERVER_ERROR" in server.talk(b"".join(commands[: 10_000_000 // size])):
                break


def test_a_replica(
    own_redis: Callable[..., RedisServer], ping: Ping, capsys: pytest.CaptureFixture[str]
) -> None:
    master, replica = own_redis("--repl-diskless-sync-delay", "0"), own_redis()
    replica.command("REPLICAOF", master.host, master.port)
    wait_until(
        lambda: replica.command("INFO", "replication")["master_link_status"] == "up",
        "the replica's first copy",
    )
    assert_cannot_serve(redis_at(replica), "read only replica", ping, capsys)


@pytest.mark.parametrize("denied", ["-@scripting", "-evalsha", "-set", "-get", "-@write"])
def test_a_redis_user_without_permission(
    denied: str,
    redis_server: RedisServer,
    ping: Ping,
    capsys: pytest.CaptureFixture[str],
) -> None:
    redis_server.command("ACL", "SETUSER", "limited", "on", ">s3cret", "~*", "+@all", denied)
    store = redis_at(redis_server, username="limited", password="s3cret")
    try:
        assert_cannot_serve(store, " run ", ping, capsys)
    finally:
        redis_server.command("ACL", "DELUSER", "limited")


def test_a_redis_user_of_other_keys(
    redis_server: RedisServer, ping: Ping, capsys: pytest.CaptureFixture[str]
) -> None:
    """The check uses the prefix of the application, so that a user of this prefix passes."""
    words = ("on", ">s3cret", "~health::*", "+@all")
    redis_server.command("ACL", "SETUSER", "limited", *words)
    store = redis_at(redis_server, username="limited", password="s3cret")
    driver = KVS("redis", store["kvs_kwargs"], "health::")
    try:
        driver.check()
        assert KVS("redis", store["kvs_kwargs"], "other::").ping() is False
        assert ping({**store, "key_prefix": "health::"}) == 0
    finally:
        redis_server.command("ACL", "DELUSER", "limited")


def test_a_wrong_password(
    own_redis: Callable[..., RedisServer], ping: Ping, capsys: pytest.CaptureFixture[str]
) -> None:
    server = own_redis(requirepass="other")
    url = f"redis://:s3cret@{server.host}:{server.port}/0"
    store = {"kvs": "redis", "kvs_kwargs": {"url": url}}
    assert_cannot_serve(store, "redis at", ping, capsys)


def test_a_node_of_a_cluster(
    own_redis: Callable[..., RedisServer], ping: Ping, capsys: pytest.CaptureFixture[str]
) -> None:
    server = own_redis("--cluster-enabled", "yes")
    assert_cannot_serve(redis_at(server), "redis+cluster://", ping, capsys)


def test_one_of_several_memcached_servers(
    own_memcached: Callable[..., MemcachedServer], ping: Ping, capsys: pytest.CaptureFixture[str]
) -> None:
    servers = [own_memcached() for _ in range(3)]
    store = {"kvs": "memcache", "kvs_kwargs": {"servers": [server.url for server in servers]}}
    assert KVS("memcache", store["kvs_kwargs"], "health::").ping() is True
    servers[1].kill()
    assert_cannot_serve(store, servers[1].url, ping, capsys)


@pytest.fixture
def postgres(postgres_server: PostgresServer) -> PostgresServer:
    pytest.importorskip("psycopg")
    return postgres_server


def postgresql_at(url: str) -> dict[str, Any]:
    return {"kvs": "postgresql", "kvs_kwargs": {"url": url}}


def test_a_missing_table(
    postgres: PostgresServer, ping: Ping, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_cannot_serve(postgresql_at(postgres.url), "pkvs migrate", ping, capsys)


def test_a_role_without_permission(
    postgres: PostgresServer, ping: Ping, capsys: pytest.CaptureFixture[str]
) -> None:
    KVS("postgresql", {"url": postgres.url}).initialize_schema()
    postgres.execute("DROP ROLE IF EXISTS reader; CREATE ROLE reader LOGIN PASSWORD 's3cret'")
    postgres.execute("GRANT USAGE ON SCHEMA public TO reader")
    postgres.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
    url = postgres.url.replace("postgres@", "reader:s3cret@")
    try:
        assert_cannot_serve(postgresql_at(url), "permission", ping, capsys)
    finally:
        postgres.execute("DROP OWNED BY reader; DROP ROLE reader")


def test_a_read_only_database(
    postgres: PostgresServer, ping: Ping, capsys: pytest.CaptureFixture[str]
) -> None:
    KVS("postgresql", {"url": postgres.url}).initialize_schema()
    alter = f"ALTER DATABASE {postgres.dbname}"
    postgres.execute(f"{alter} SET default_transaction_read_only = on")
    try:
        assert_cannot_serve(postgresql_at(postgres.url), "read-only", ping, capsys)
    finally:
        postgres.execute(f"{alter} RESET ALL", dbname="postgres")


@pytest.mark.parametrize("fault", ["hung", "dead"])
def test_an_application_starts(fault: str, frail: Store, caplog: pytest.LogCaptureFixture) -> None:
    """Three settings name the store: one line for each, within one timeout."""
    if fault == "hung":
        frail.server.pause()
    else:
        frail.server.kill()
    options = frail.options()
    began = time.monotonic()
    app = build(cache=options, session=options, ratelimit={**options, "limit": 9, "window": 60})
    assert time.monotonic() - began < frail.deadline + SLACK
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [record.getMessage().split(":")[0] for record in errors] == [
        "kvs.cache", "kvs.session", "kvs.ratelimit",
    ]  # fmt: skip
    assert app.get("/").text == "0 1 2"
    assert len([record for record in caplog.records if record.levelno >= logging.ERROR]) == 3


def test_check_raises_unavailable_for_now(frail: Store) -> None:
    frail.server.kill()
    assert isinstance(outcome(frail.driver().check), KVSUnavailable)

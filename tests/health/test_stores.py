"""What the view says of stores that serve, hang, are full, read-only or without a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pyramid_kvs.kvs import KVS
from tests.health.apps import ask, build
from tests.servers import PostgresServer, RedisCluster, RedisServer, Server, wait_until

TIMES = 200
Options = dict[str, Any]
Prepare = Callable[[pytest.FixtureRequest], Options]


def redis_at(server: RedisServer, **kwargs: Any) -> Options:
    return {"kvs": "redis", "kvs_kwargs": {"host": server.host, "port": server.port, **kwargs}}


def good_redis(request: pytest.FixtureRequest) -> Options:
    return redis_at(request.getfixturevalue("redis_server"))


def good_memcached(request: pytest.FixtureRequest) -> Options:
    server = request.getfixturevalue("memcached_server")
    return {"kvs": "memcache", "kvs_kwargs": {"servers": [server.url]}}


def good_postgresql(request: pytest.FixtureRequest) -> Options:
    found = without_table(request)
    KVS("postgresql", found["kvs_kwargs"]).initialize_schema()
    return found


def without_table(request: pytest.FixtureRequest) -> Options:
    pytest.importorskip("psycopg")
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return {"kvs": "postgresql", "kvs_kwargs": {"url": server.url}}


def full(request: pytest.FixtureRequest) -> Options:
    server = request.getfixturevalue("own_redis")(requirepass="s3cret")
    server.command("CONFIG", "SET", "maxmemory", "1")
    return redis_at(server, password="s3cret")


def replica(request: pytest.FixtureRequest) -> Options:
    own_redis = request.getfixturevalue("own_redis")
    master, found = own_redis("--repl-diskless-sync-delay", "0"), own_redis()
    found.command("REPLICAOF", master.host, master.port)
    wait_until(
        lambda: found.command("INFO", "replication")["master_link_status"] == "up",
        "the replica's first copy",
    )
    return redis_at(found)


def wrong_password(request: pytest.FixtureRequest) -> Options:
    server = request.getfixturevalue("own_redis")(requirepass="other")
    return {"kvs": "redis", "kvs_kwargs": {"url": f"redis://u:s3cret@localhost:{server.port}/0"}}


def cluster_node(request: pytest.FixtureRequest) -> Options:
    return redis_at(request.getfixturevalue("own_redis")("--cluster-enabled", "yes"))


@pytest.mark.parametrize("prepare", [good_redis, good_memcached, good_postgresql])
def test_a_store_that_serves(prepare: Prepare, request: pytest.FixtureRequest) -> None:
    options = prepare(request)
    app = build(cache=options)
    for _ in range(TIMES):
        [found] = ask(app, 200)
        milliseconds = found.pop("milliseconds")
        assert 0 < milliseconds < 5000
        expected = {"setting": "kvs.cache", "driver": options["kvs"], "ok": True, "reason": None}
        assert found == expected


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (full, "maxmemory"),
        (replica, "read only replica"),
        (without_table, "pkvs migrate"),
        (wrong_password, "redis at"),
        (cluster_node, "redis+cluster://"),
    ],
)
def test_a_store_that_refuses(
    prepare: Prepare, reason: str, request: pytest.FixtureRequest
) -> None:
    app = build(cache=prepare(request))
    for _ in range(TIMES):
        [found] = ask(app, 503)
        assert found["ok"] is False
        assert reason in found["reason"]
        assert "s3cret" not in found["reason"]


@pytest.fixture(params=["redis", "memcached", "postgres"])
def own_server(request: pytest.FixtureRequest) -> Iterator[tuple[Server, Options]]:
    if request.param == "postgres":
        pytest.importorskip("psycopg")
    server = request.getfixturevalue(f"own_{request.param}")()
    if request.param == "redis":
        yield server, redis_at(server)
    elif request.param == "memcached":
        yield server, {"kvs": "memcache", "kvs_kwargs": {"servers": [server.url]}}
    else:
        KVS("postgresql", {"url": server.url}).initialize_schema()
        yield server, {"kvs": "postgresql", "kvs_kwargs": {"url": server.url}}


def test_a_store_that_hangs(own_server: tuple[Server, Options]) -> None:
    """The circuit breaker leaves it alone, and it counts as not ok all the time."""
    server, options = own_server
    app = build(cache=options)
    ask(app, 200)
    server.pause()
    for _ in range(TIMES):
        [found] = ask(app, 503)
        assert found["ok"] is False
        assert found["reason"]
    server.resume()
    wait_until(lambda: app.get("/health", status="*").status_int == 200, "the store's return")
    ask(app, 200)


def test_a_store_that_is_down_and_one_that_serves(
    own_redis: Callable[..., RedisServer], redis_server: RedisServer
) -> None:
    """Also if it is the store of the sessions and of the rate limit."""
    down = own_redis()
    down.kill()
    limit = {"limit": 1, "window": 60, "on_error": "deny"}
    app = build(cache=redis_at(redis_server), session=redis_at(down), ratelimit=limit)
    app.set_cookie("session_id", "0" * 40)
    for _ in range(3):
        found = ask(app, 503)
        assert [(store["setting"], store["ok"]) for store in found] == [
            ("kvs.cache", True),
            ("kvs.session", False),
        ]


def test_the_nodes_of_a_cluster(redis_cluster: RedisCluster) -> None:
    app = build(cache={"kvs": "redis", "kvs_kwargs": {"url": redis_cluster.url}})
    [found] = ask(app, 200)
    assert len(found["nodes"]) == 3
    servers = {f"{node.host}:{node.port}" for node in redis_cluster.nodes}
    for node in found["nodes"]:
        assert node["server"] in servers
        assert (node["ok"], node["reason"]) == (True, None)

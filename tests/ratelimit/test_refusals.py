"""A store that answers, but refuses to count: the limit holds in each process all the same."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from webtest import TestApp

from pyramid_kvs.application import Application
from pyramid_kvs.exceptions import KVSError
from pyramid_kvs.kvs import KVS
from pyramid_kvs.ratelimit import limiter_of
from pyramid_kvs.ratelimit.counting import LimitCheck, Rule
from pyramid_kvs.ratelimit.store import LimitStore
from tests.ratelimit.stores import make_app, statuses
from tests.servers import PostgresServer, RedisServer

LOG = "pyramid_kvs.ratelimit"
Broken = tuple[dict[str, Any], str]


def user(server: RedisServer, *rules: str) -> dict[str, Any]:
    """Return the settings of a user who may do everything but what the rules take away."""
    server.command("ACL", "SETUSER", "limited", "reset", "on", ">s3cret", "~*", "+@all", *rules)
    url = server.url.replace("redis://", "redis://limited:s3cret@")
    return {"kvs": "redis", "kvs_kwargs": {"url": url}}


def without_scripts(request: pytest.FixtureRequest) -> Broken:
    server = request.getfixturevalue("own_redis")()
    return user(server, "-eval", "-evalsha"), "permission"


def without_one_command_of_scripts(request: pytest.FixtureRequest) -> Broken:
    return user(request.getfixturevalue("own_redis")(), "-time"), "can't run"


def cluster_node(request: pytest.FixtureRequest) -> Broken:
    server = request.getfixturevalue("own_redis")("--cluster-enabled", "yes")
    return {"kvs": "redis", "kvs_kwargs": {"url": server.url}}, "cluster"


def without_table(request: pytest.FixtureRequest) -> Broken:
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return {"kvs": "postgresql", "kvs_kwargs": {"url": server.url}}, "does not exist"


REFUSING = [without_scripts, without_one_command_of_scripts, cluster_node, without_table]


@pytest.fixture(params=REFUSING)
def broken(request: pytest.FixtureRequest) -> Broken:
    """The settings of a store that refuses, and a word of the reason."""
    found: Broken = request.param(request)
    return found


def limited(settings: dict[str, Any], **options: Any) -> TestApp:
    return make_app({"limit": 3, "window": 600, "strategy": "gcra", **settings, **options})


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    return [(one.levelno, one.getMessage()) for one in caplog.records if one.name == LOG]


@pytest.mark.parametrize("on_error", ["allow", "memory"])
def test_the_limit_holds_in_this_process_with_one_error_line(
    broken: Broken, on_error: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings, word = broken
    app = limited(settings, on_error=on_error)
    response = app.get("/")
    assert response.headers["X-RateLimit-Remaining"] == "2"
    assert statuses(app, 4) == [200, 200, 429, 429]
    assert app.get("/", status=429).headers["Retry-After"] == "200"
    [(level, line)] = lines(caplog)
    assert level == logging.ERROR
    assert line.startswith("rate limit: the store refuses to count, this process counts by itself:")
    assert word in line
    assert "s3cret" not in line
    assert "192.0.2.1" not in line


def test_deny_answers_503(broken: Broken, caplog: pytest.LogCaptureFixture) -> None:
    settings, word = broken
    response = limited(settings, on_error="deny").get("/", status=503)
    assert int(response.headers["Retry-After"]) > 0
    [(level, line)] = lines(caplog)
    assert level == logging.ERROR
    assert word in line


def test_the_check_of_the_store_fails(broken: Broken) -> None:
    """So ``pkvs ping`` fails, and the start logs the reason."""
    settings, word = broken
    [store] = Application.of(limited(settings).app.registry).stores
    assert not store.driver.ping()
    with pytest.raises(KVSError, match=word):
        store.driver.check()


def test_the_limits_check_what_they_alone_need(own_redis: Callable[..., RedisServer]) -> None:
    """A cache on the same server does not need the command ``TIME``."""
    settings = user(own_redis(), "-time")
    alone = KVS("redis", settings["kvs_kwargs"])
    assert alone.ping()
    limiter = limiter_of(limited(settings).app.registry)
    assert limiter is not None
    assert not limiter.registry.limits[0].store.driver.ping()
    alone.close()


def test_the_check_uses_only_the_strategies_of_the_limits(
    own_redis: Callable[..., RedisServer],
) -> None:
    """A fixed window does not need ``TIME``, and neither does a store that no limit counts on."""
    settings = user(own_redis(), "-time")
    app = limited(settings, strategy="fixed-window")
    [store] = Application.of(app.app.registry).stores
    assert store.driver.ping()
    app = make_app({"limit": 3, "strategy": "gcra", "kvs": "memory"}, settings)
    assert all(store.driver.ping() for store in Application.of(app.app.registry).stores)


def test_the_check_leaves_no_counter(redis_server: RedisServer) -> None:
    app = limited({"kvs": "redis", "kvs_kwargs": {"url": redis_server.url}})
    [store] = Application.of(app.app.registry).stores
    store.driver.check()
    assert redis_server.client.keys("*") == []


@pytest.mark.parametrize("strategy", ["fixed-window", "sliding-window", "gcra"])
def test_a_counter_of_a_wrong_type_limits_all_the_same(
    redis_server: RedisServer, strategy: str, caplog: pytest.LogCaptureFixture
) -> None:
    kvs = {"kvs": "redis", "kvs_kwargs": {"url": redis_server.url}}
    app = limited(kvs, strategy=strategy)
    redis_server.client.lpush("ratelimit::@address::192.0.2.1::ratelimit", "x")
    assert statuses(app, 5) == [200, 200, 200, 429, 429]
    [(level, line)] = lines(caplog)
    assert level == logging.ERROR
    assert "WRONGTYPE" in line
    other = TestApp(app.app, extra_environ={"REMOTE_ADDR": "192.0.2.99"})
    assert other.get("/").headers["X-RateLimit-Remaining"] == "2"
    assert len(redis_server.client.keys("*99*")) == 1


def test_a_session_is_served_although_its_store_refuses_to_count(
    own_redis: Callable[..., RedisServer],
) -> None:
    settings = user(own_redis(), "-time")
    app = make_app({"limit": 9, "window": 600, "strategy": "gcra"}, settings)
    assert [app.get("/visit").text for _ in range(3)] == ["1", "2", "3"]


def test_threads_make_one_counter_in_memory() -> None:
    """Otherwise the first requests of an outage count on several, and more are admitted."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(20):
            assert _admitted_by_threads(LimitStore(KVS("memory"))) == 5
    finally:
        sys.setswitchinterval(interval)


def _admitted_by_threads(store: LimitStore) -> int:
    barrier, admitted = threading.Barrier(16), []
    check = LimitCheck(Rule("fixed-window", 5, 60_000, 5), "k", "k")

    def run() -> None:
        barrier.wait(60)
        admitted.append(store.count_here([check]).allowed)

    threads = [threading.Thread(target=run) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(admitted)

"""The store is unavailable: killed or hung, and back again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPNotFound
from pyramid.request import Request
from pyramid.response import Response
from webtest import TestApp

from tests.ratelimit.stores import make_app, statuses
from tests.servers import RedisServer, free_port

OwnRedis = Callable[..., RedisServer]
LOG = "pyramid_kvs.ratelimit"


def limited(server: RedisServer, on_error: str, **options: Any) -> TestApp:
    store = {"kvs": "redis", "kvs_kwargs": {"url": server.url}}
    return make_app({"limit": 3, "window": 600, "on_error": on_error, **store, **options})


def kill(server: RedisServer) -> None:
    server.kill()


def hang(server: RedisServer) -> None:
    server.pause()


@pytest.fixture(params=[kill, hang])
def break_store(request: pytest.FixtureRequest) -> Callable[[RedisServer], None]:
    return request.param  # type: ignore[no-any-return]


def quickest(app: TestApp, count: int = 3) -> tuple[list[int], float]:
    """Send requests; return their statuses, and the seconds that the quickest one took."""
    found, times = [], []
    for _ in range(count):
        started = time.monotonic()
        found += statuses(app, 1)
        times.append(time.monotonic() - started)
    return found, min(times)


def test_allow_lets_requests_pass_and_logs_once(
    own_redis: OwnRedis,
    break_store: Callable[[RedisServer], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = own_redis()
    app = limited(server, "allow")
    assert statuses(app, 3) == [200, 200, 200]
    break_store(server)
    found, _ = quickest(app)
    assert found == [200, 200, 200]
    headers = app.get("/").headers
    assert (headers["X-RateLimit-Limit"], headers["X-RateLimit-Remaining"]) == ("3", "3")
    assert "RateLimit" not in headers
    logged = [record.getMessage() for record in caplog.records if record.name == LOG]
    assert len(logged) == 1
    assert logged[0].startswith(
        "rate limit: the store is unavailable, requests pass uncounted: redis at"
    )
    assert "192.0.2.1" not in logged[0]


def test_deny_answers_503(own_redis: OwnRedis, break_store: Callable[[RedisServer], None]) -> None:
    server = own_redis()
    app = limited(server, "deny")
    assert statuses(app, 1) == [200]
    break_store(server)
    response = app.get("/", status=503)
    assert int(response.headers["Retry-After"]) > 0
    assert response.headers["X-RateLimit-Limit"] == "3"
    assert int(response.headers["X-RateLimit-Remaining"]) >= 0
    assert "RateLimit" not in response.headers
    assert statuses(app, 3) == [503, 503, 503]


def test_memory_counts_in_the_process(
    own_redis: OwnRedis, break_store: Callable[[RedisServer], None]
) -> None:
    server = own_redis()
    app = limited(server, "memory")
    assert statuses(app, 2) == [200, 200]
    break_store(server)
    response = app.get("/")
    assert response.headers["RateLimit"] == '"session-600s";r=2;t=600'
    assert statuses(app, 3) == [200, 200, 429]
    other = TestApp(app.app, extra_environ={"REMOTE_ADDR": "192.0.2.99"})
    assert statuses(other, 4) == [200, 200, 200, 429]


def test_a_hung_store_does_not_delay_every_request(own_redis: OwnRedis) -> None:
    """After one request has waited, others pass for a second without asking the store."""
    server = own_redis()
    app = limited(server, "allow")
    app.get("/")
    server.pause()
    started = time.monotonic()
    app.get("/")
    assert time.monotonic() - started > 0.2
    _, quick = quickest(app)
    assert quick < 0.2


@pytest.mark.parametrize("on_error", ["allow", "deny", "memory"])
def test_the_return_of_the_store_is_noticed(own_redis: OwnRedis, on_error: str) -> None:
    server = own_redis()
    app = limited(server, on_error)
    assert statuses(app, 2) == [200, 200]
    server.pause()
    statuses(app, 1)
    server.resume()
    server.reset_calls()
    deadline = time.monotonic() + 5
    while "evalsha" not in server.calls():
        assert time.monotonic() < deadline
        statuses(app, 1)
        time.sleep(0.02)
    assert statuses(app, 3)[-1] == 429


def test_a_limiter_starts_while_its_store_is_down(own_redis: OwnRedis) -> None:
    server = own_redis()
    server.kill()
    app = limited(server, "allow")
    assert statuses(app, 2) == [200, 200]
    server.start()
    assert "RateLimit" in app.get("/").headers


def test_each_limit_has_its_own_on_error(own_redis: OwnRedis) -> None:
    server = own_redis()
    store = {"kvs": "redis", "kvs_kwargs": {"url": server.url}, "window": 600}
    app = make_app(
        [
            {"limit": 3, "on_error": "allow", "name": "a", **store},
            {"limit": 2, "on_error": "memory", "name": "m", **store},
            {"limit": 9, "name": "own", "kvs": "memory"},
        ]
    )
    app.get("/")
    server.kill()
    assert statuses(app, 3) == [200, 200, 429]


def test_a_session_survives_an_outage_of_the_store(own_redis: OwnRedis) -> None:
    """If the store is unavailable, the session must not seem unknown."""
    server = own_redis()
    session = {"kvs": "redis", "kvs_kwargs": {"url": server.url}}
    app = make_app({"limit": 99, "window": 600, "on_error": "memory"}, session)
    app.get("/visit")
    cookie = app.cookies["session_id"]
    server.pause()
    assert app.get("/visit", status="*").status_int == 503
    server.resume()
    deadline = time.monotonic() + 5
    while (response := app.get("/visit", status="*")).status_int != 200:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert response.text == "2"
    assert app.cookies["session_id"] == cookie


def test_an_outage_is_logged_once_a_minute(own_redis: OwnRedis) -> None:
    server = own_redis()
    app = limited(server, "allow")
    server.kill()
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logging.getLogger(LOG).addHandler(handler)
    try:
        statuses(app, 20)
    finally:
        logging.getLogger(LOG).removeHandler(handler)
    assert len(records) == 1


@pytest.mark.parametrize("count", ["all", "failures"])
def test_a_session_that_nobody_knows_is_charged_where_it_was_counted(count: str) -> None:
    """With "unknown": "allow", nothing but the id of the session tells who is counted."""

    def charge(request: Request) -> Response:
        request.ratelimit.charge(2)
        raise HTTPNotFound

    def charging(config: Configurator) -> None:
        config.add_route("charge", "/charge")
        config.add_view(charge, route_name="charge")

    limit = {"limit": 3, "window": 600, "on_error": "memory", "unknown": "allow", "count": count}
    session = {"kvs": "redis", "kvs_kwargs": {"url": f"redis://127.0.0.1:{free_port()}"}}
    app = make_app(limit, session, charging)
    found = statuses(app, 5, "/charge", headers={"Cookie": f"session_id={'0' * 40}"})
    counted = 1 if count == "all" else 3
    assert found == [404] * counted + [429] * (5 - counted)

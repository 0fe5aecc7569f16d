"""How many round trips to the store a request takes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response
from webtest import TestApp

from tests.ratelimit.proxy import count_trips
from tests.ratelimit.stores import make_app, store_settings
from tests.servers import RedisServer

THREE_LIMITS: list[dict[str, Any]] = [
    {"limit": 1000, "window": 60},
    {"limit": 5000, "window": 3600, "by": "address", "strategy": "sliding-window"},
    {"limit": 100, "window": 60, "strategy": "gcra", "name": "smooth"},
]


def read(request: Request) -> Response:
    return Response(str(request.session.get("visits")))


def with_read(config: Configurator) -> None:
    config.add_route("read", "/read")
    config.add_view(read, route_name="read")


def redis_app(server: RedisServer, limits: Any) -> TestApp:
    session = {"kvs": "redis", "kvs_kwargs": {"url": server.url}}
    app = make_app(limits, session, with_read)
    app.get("/visit")
    app.get("/visit")
    server.reset_calls()
    return app


@pytest.mark.parametrize("limits", [THREE_LIMITS[0], THREE_LIMITS])
def test_redis_counts_and_reads_the_session_in_one_call(
    redis_server: RedisServer, limits: Any
) -> None:
    app = redis_app(redis_server, limits)
    assert app.get("/read").text == "2"
    calls = redis_server.calls()
    assert calls.pop("evalsha") == 1
    assert calls.pop("getex") == 1  # in the script, like the remaining ones
    assert set(calls) <= {"get", "set", "time", "incrby", "pttl"}


def test_a_request_that_does_not_use_the_session_is_one_call(redis_server: RedisServer) -> None:
    app = redis_app(redis_server, THREE_LIMITS)
    app.get("/")
    assert redis_server.calls()["evalsha"] == 1


def test_a_request_that_counts_for_nobody_is_no_call(redis_server: RedisServer) -> None:
    app = redis_app(redis_server, {**THREE_LIMITS[0], "unknown": "allow"})
    app.reset()
    app.get("/")
    assert redis_server.calls() == {}


def test_a_charge_is_no_call_if_all_limits_count_by_the_response(redis_server: RedisServer) -> None:
    def charge(request: Request) -> Response:
        request.ratelimit.charge(3)
        return Response("charged")

    limit = {"kvs": "redis", "kvs_kwargs": {"url": redis_server.url}, "count": [401]}
    app = make_app(limit, configure=lambda config: config.add_view(charge, name="charge"))
    redis_server.reset_calls()
    app.get("/charge")
    assert redis_server.calls()["evalsha"] == 1


def test_a_request_that_changes_the_session_is_two_calls(redis_server: RedisServer) -> None:
    app = redis_app(redis_server, THREE_LIMITS)
    assert app.get("/visit").text == "3"
    assert redis_server.calls()["evalsha"] == 2


@pytest.mark.parametrize(
    ("name", "path", "trips"),
    [
        *[("redis", "/", 1), ("redis", "/read", 1), ("redis", "/visit", 2)],
        *[("memcache", "/", 2), ("memcache", "/read", 2), ("memcache", "/visit", 3)],
        *[("postgresql", "/", 2), ("postgresql", "/read", 2), ("postgresql", "/visit", 3)],
    ],
)
def test_round_trips_with_three_limits(
    request: pytest.FixtureRequest, name: str, path: str, trips: int
) -> None:
    settings = store_settings(name, request)
    fixture = {"redis": "redis_server", "memcache": "memcached_server"}.get(name, "postgres_server")
    server = request.getfixturevalue(fixture)
    with count_trips(server.port) as proxy:
        through = json.dumps(settings["kvs_kwargs"]).replace(f":{server.port}", f":{proxy.port}")
        settings["kvs_kwargs"] = json.loads(through)
        app = make_app(THREE_LIMITS, settings, with_read)
        for _ in range(8):  # a driver may prepare a statement at its first uses
            app.get("/visit")
            app.get("/read")
        found = []
        for _ in range(3):  # on a busy machine, a reply may come between two parts of a request
            proxy.trips = 0
            app.get(path)
            found.append(proxy.trips)
        assert min(found) == trips


def test_a_refused_request_writes_nothing(redis_server: RedisServer) -> None:
    app = redis_app(redis_server, {"limit": 2, "window": 60})
    app.get("/")
    redis_server.reset_calls()
    assert app.get("/", status=429)
    assert redis_server.calls() == {"evalsha": 1, "getex": 1, "get": 1, "pttl": 1}

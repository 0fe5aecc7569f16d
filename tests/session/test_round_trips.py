"""Round trips, counted by redis itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.servers import RedisServer
from tests.session.apps import COOKIE, Store, Visit, do, new_session

Count = Callable[..., dict[str, int]]


@pytest.fixture
def count(redis: Store, redis_server: RedisServer) -> Count:
    """Return the commands that a request with these operations takes."""

    def counted(*operations: list[object], **options: object) -> dict[str, int]:
        app = redis.app(**options)
        session_id = new_session(redis.factory(**options), a=1, nested={"b": [1]}, _f_=["hi"])
        app.set_cookie(COOKIE, session_id)
        do(app, ["get", "a"], ["set", "b", 1])  # makes the connection, and loads the scripts
        redis_server.reset_calls()
        do(app, *operations)
        return redis_server.calls()

    return counted


def test_untouched_takes_none(count: Count) -> None:
    assert count(["nothing"]) == {}


def test_read_takes_one(count: Count) -> None:
    assert count(["get", "a"], ["all"], ["peek_flash"], ["keys"]) == {"getex": 1}


def test_read_without_expiry_takes_one(count: Count) -> None:
    assert count(["get", "a"], ttl=None) == {"get": 1}


@pytest.mark.parametrize(
    "operation",
    [
        ["set", "a", 2],
        ["incr", "a"],
        ["nest", "nested", "b", 1],
        ["flash", "x"],
        ["pop_flash"],
        ["delete", "a"],
    ],
    ids=lambda operation: operation[0],
)
def test_change_takes_two(count: Count, operation: list[object]) -> None:
    calls = count(operation)
    assert calls.pop("getex") == 1
    assert calls.pop("evalsha") == 1
    # The script runs the other commands, on the server.
    assert set(calls) <= {"get", "set", "del"}


def test_setting_the_same_value_takes_one(count: Count) -> None:
    assert count(["set", "a", 1]) == {"getex": 1}


def test_changed_without_a_change_takes_one(count: Count) -> None:
    assert count(["changed"]) == {"getex": 1}


def test_new_session_takes_one(redis: Store, redis_server: RedisServer) -> None:
    app = redis.app()
    do(app, ["set", "a", 1])
    app.reset()
    redis_server.reset_calls()
    do(app, ["set", "a", 1])
    assert redis_server.calls()["evalsha"] == 1
    assert "getex" not in redis_server.calls()


def test_impossible_id_takes_none(redis: Store, redis_server: RedisServer) -> None:
    app = redis.app()
    do(app, ["set", "a", 1])
    redis_server.reset_calls()
    for session_id in ("a" * 129, "a" * 64, "a::b", "a.b", "a" * 39 + "%0a", '"' + "a" * 40, "é"):
        app.set_cookie(COOKIE, "z")
        app.post_json("/", [["all"]], headers={"Cookie": f"{COOKIE}={session_id}"})
    assert redis_server.calls() == {}


def test_new_id_takes_three(count: Count) -> None:
    calls = count(["regenerate"])
    assert (calls["getex"], calls["evalsha"]) == (1, 2)


def test_invalidate_takes_one(count: Count) -> None:
    assert count(["invalidate"]) == {"getdel": 1}


def test_preloaded_session_takes_none(redis: Store, redis_server: RedisServer) -> None:
    factory = redis.factory()
    session_id = new_session(factory, a=1)
    visit = Visit(factory, session_id)
    key = factory.session_key(visit.request)
    factory.preload(visit.request, key, factory.driver.raw_load(key, factory.ttl))
    redis_server.reset_calls()
    assert visit.session["a"] == 1
    visit.end()
    assert redis_server.calls() == {}
    visit = Visit(factory, session_id)
    factory.preload(visit.request, key, None)
    assert visit.session.new

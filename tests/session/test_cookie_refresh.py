"""How often the cookie is sent, and what Max-Age it has."""

from __future__ import annotations

from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response
from webtest import TestApp

from pyramid_kvs.session import session as module
from tests.clock import Clock
from tests.servers import RedisServer
from tests.session.apps import COOKIE, Store, Visit, cookie_of, do, make_app, new_session, send


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(1_800_000_000.0)
    monkeypatch.setattr(module, "time", clock)
    return clock


def read(app: TestApp) -> bool:
    """Read the session; return whether the response sets the cookie."""
    return cookie_of(send(app, ["get", "a"])) is not None


def reads(app: TestApp, clock: Clock, count: int, seconds: float) -> list[float]:
    """Read a page again and again; return when the responses set the cookie.

    :param seconds: the pause before each read.
    """
    start, sent = clock.now, []
    for _ in range(count):
        clock.now += seconds
        if read(app):
            sent.append(clock.now - start)
    return sent


# -- cookie_refresh --------------------------------------------------------------------------


def test_every_read_sends_the_cookie_by_default(store: Store, clock: Clock) -> None:
    app = store.app()
    do(app, ["set", "a", 1])
    assert len(reads(app, clock, 100, 10)) == 100


def test_100_reads_in_a_minute_send_no_cookie(store: Store, clock: Clock) -> None:
    app = store.app(cookie_refresh=60)
    assert cookie_of(send(app, ["set", "a", 1]))
    assert reads(app, clock, 100, 0.5) == []


def test_100_reads_every_ten_seconds_send_16_cookies(store: Store, clock: Clock) -> None:
    app = store.app(cookie_refresh=60)
    do(app, ["set", "a", 1])
    assert reads(app, clock, 100, 10) == [60.0 * n for n in range(1, 17)]


def test_rare_reads_send_the_cookie_each_time(store: Store, clock: Clock) -> None:
    app = store.app(cookie_refresh=60)
    do(app, ["set", "a", 1])
    assert len(reads(app, clock, 5, 200)) == 5


def test_a_read_is_one_round_trip_unless_the_cookie_is_due(
    redis: Store, redis_server: RedisServer, clock: Clock
) -> None:
    app = redis.app(cookie_refresh=60)
    do(app, ["set", "a", 1])
    redis_server.reset_calls()
    reads(app, clock, 100, 10)
    calls = redis_server.calls()
    assert (calls["getex"], calls["evalsha"]) == (100, 16)


def test_a_change_does_not_send_the_cookie(store: Store, clock: Clock) -> None:
    app = store.app(cookie_refresh=60)
    do(app, ["set", "a", 1])
    clock.now += 59
    response = send(app, ["set", "a", 2])
    assert "Set-Cookie" not in response.headers
    assert response.headers["Vary"] == "Cookie"
    clock.now += 1
    assert cookie_of(send(app, ["set", "a", 3])) == app.cookies[COOKIE]
    assert do(app, ["all"]) == [{"a": 3}]


@pytest.mark.parametrize("operation", [["regenerate"], ["remember"]], ids=str)
def test_a_new_id_is_sent_at_once(store: Store, clock: Clock, operation: list[Any]) -> None:
    app = store.app(cookie_refresh=60, remember_ttl=600)
    do(app, ["set", "a", 1])
    before = app.cookies[COOKIE]
    assert cookie_of(send(app, operation)) not in {None, "", before}
    assert reads(app, clock, 6, 10) == [60]


def test_logout_expires_the_cookie_at_once(store: Store, clock: Clock) -> None:
    app = store.app(cookie_refresh=60)
    do(app, ["set", "a", 1])
    assert cookie_of(send(app, ["invalidate"])) == ""
    do(app, ["set", "a", 1])
    assert cookie_of(send(app, ["get", "a"], ["clear"])) == ""


@pytest.mark.parametrize("sent", [None, 4_000_000_000, "odd", [1]], ids=str)
def test_a_cookie_whose_time_is_unknown_is_sent(store: Store, clock: Clock, sent: Any) -> None:
    """Versions before, servers whose clock was wrong."""
    session_id = new_session(store.factory(), a=1)
    record = store.record(session_id)
    store.put(session_id, {**record, "__kvs_sent": sent} if sent else record)
    app = store.app(cookie_refresh=60)
    app.set_cookie(COOKIE, session_id)
    if sent in ("odd", [1]):  # the record does not decode; a new session takes its place
        assert do(app, ["set", "a", 2]) == [None]
    else:
        assert read(app)
    assert not read(app)


def test_two_requests_for_which_the_cookie_is_due(store: Store, clock: Clock) -> None:
    factory = store.factory(cookie_refresh=60)
    session_id = new_session(factory, a=1)
    clock.now += 100
    one, two = Visit(factory, session_id), Visit(factory, session_id)
    one.session.get("a")
    two.session["b"] = 2
    clock.now += 1
    assert [cookie_of(visit.end()) for visit in (two, one)] == [session_id] * 2
    assert dict(Visit(factory, session_id).session) == {"a": 1, "b": 2}


@pytest.mark.parametrize("on_conflict", ["merge", "overwrite", "raise"])
def test_a_cookie_that_is_due_overwrites_no_change(
    store: Store, clock: Clock, on_conflict: str
) -> None:
    """The request only reads. That the library notes the time must not undo a change."""
    factory = store.factory(cookie_refresh=60, on_conflict=on_conflict)
    session_id = new_session(factory, a=1)
    clock.now += 100
    slow, fast = Visit(factory, session_id), Visit(factory, session_id)
    slow.session.get("a")
    fast.session["a"] = 2
    fast.end()
    assert slow.end().status_code == 200
    assert Visit(factory, session_id).session["a"] == 2


def test_a_session_that_was_ended_gets_no_cookie(store: Store, clock: Clock) -> None:
    factory = store.factory(cookie_refresh=60)
    session_id = new_session(factory, a=1)
    clock.now += 100
    slow, fast = Visit(factory, session_id), Visit(factory, session_id)
    slow.session.get("a")
    fast.session.invalidate()
    fast.end()
    assert cookie_of(slow.end()) is None
    assert Visit(factory, session_id).session.new


def test_a_read_after_the_response_does_not_count_as_sent(store: Store, clock: Clock) -> None:
    """A generator reads the session when the headers have been sent already."""

    def stream(request: Request) -> Response:
        return Response(app_iter=(str(request.session["a"]).encode() for _ in range(1)))

    def add(config: Configurator) -> None:
        config.add_route("stream", "/stream")
        config.add_view(stream, route_name="stream")

    app = make_app({**store.options, "cookie_refresh": 60}, add)
    do(app, ["set", "a", 1])
    clock.now += 100
    response = app.get("/stream")
    assert response.body == b"1"
    assert "Set-Cookie" not in response.headers
    assert read(app)


def test_the_note_is_not_seen_by_the_application(store: Store, clock: Clock) -> None:
    app = store.app(cookie_refresh=60)
    do(app, ["set", "a", 1])
    assert do(app, ["all"], ["keys"]) == [{"a": 1}, ["a"]]


# -- cookie_max_age --------------------------------------------------------------------------


def test_browser_session_cookie_has_no_max_age(store: Store) -> None:
    app = store.app(cookie_max_age="session")
    for operation in (["set", "a", 1], ["get", "a"], ["set", "a", 2], ["regenerate"]):
        set_cookie = send(app, operation).headers["Set-Cookie"]
        assert "max-age" not in set_cookie.lower()
        assert "expires" not in set_cookie.lower()
    assert do(app, ["get", "a"]) == [2]


def test_browser_session_lives_for_the_ttl_in_the_store(
    redis: Store, redis_server: RedisServer
) -> None:
    session_id = new_session(redis.factory(cookie_max_age="session", ttl=500), a=1)
    key = redis.options["key_prefix"] + session_id
    assert 499 < redis_server.client.pttl(key) / 1000 <= 500


def test_logout_expires_a_browser_session_cookie(store: Store) -> None:
    app = store.app(cookie_max_age="session")
    do(app, ["set", "a", 1])
    assert "Max-Age=0" in send(app, ["invalidate"]).headers["Set-Cookie"]


# -- the response of a subrequest ------------------------------------------------------------


def nested_app(store: Store, **options: Any) -> TestApp:
    """Return an application whose page ``/outer`` answers with a subrequest's response."""

    def outer(request: Request) -> Response:
        how = request.matchdict["how"]
        if "read" in how:
            request.session.get("a")
        if "save" in how:
            request.session["saved"] = 1
            request.session.save()
        inner = Request.blank("/", cookies=request.cookies, POST=request.body or b"[]")
        response = request.invoke_subrequest(inner, use_tweens=True)
        if "after" in how:
            request.session["after"] = 1
        if "logout" in how:
            request.session.invalidate()
        return response

    def add(config: Configurator) -> None:
        config.add_route("outer", "/outer/{how}")
        config.add_view(outer, route_name="outer")

    return make_app({**store.options, **options}, add)


def cookies_of(response: Any) -> list[str]:
    """Return the ids that a response sets."""
    return [
        header.partition(";")[0].removeprefix(f"{COOKIE}=")
        for header in response.headers.getall("Set-Cookie")
    ]


@pytest.mark.parametrize("how", ["read", "untouched", "save"])
@pytest.mark.parametrize("refresh", [None, 60])
def test_login_in_a_subrequest_reaches_the_browser(
    store: Store, how: str, refresh: float | None
) -> None:
    app = nested_app(store, cookie_refresh=refresh)
    do(app, ["set", "a", 1])
    before = app.cookies[COOKIE]
    response = app.post(f"/outer/{how}", b'[["set", "user", 1], ["regenerate"]]')
    [session_id] = cookies_of(response)
    assert session_id not in ("", before)
    assert do(app, ["get", "a"], ["get", "user"]) == [1, 1]


def test_login_in_a_subrequest_after_the_old_session_was_over(store: Store) -> None:
    """The outer request has read the old session, which that removed."""
    store.put("old", {"a": 1, "__kvs_created": 1})
    app = nested_app(store, absolute_ttl=600)
    app.set_cookie(COOKIE, "old")
    [session_id] = cookies_of(app.post("/outer/read", b'[["set", "user", 1]]'))
    assert session_id
    assert do(app, ["all"], headers={"Cookie": f"{COOKIE}={session_id}"}) == [{"user": 1}]


def test_logout_after_a_subrequest_expires_the_cookie(store: Store) -> None:
    app = nested_app(store)
    do(app, ["set", "a", 1])
    assert cookies_of(app.post("/outer/logout", b'[["get", "a"]]')) == [""]


@pytest.mark.parametrize("how", ["read", "untouched"])
def test_logout_in_a_subrequest_reaches_the_browser(store: Store, how: str) -> None:
    app = nested_app(store)
    do(app, ["set", "a", 1])
    assert cookies_of(app.post(f"/outer/{how}", b'[["invalidate"]]')) == [""]
    assert COOKIE not in app.cookies


def test_new_session_of_a_subrequest_reaches_the_browser(store: Store) -> None:
    app = nested_app(store)
    [session_id] = cookies_of(app.post("/outer/read", b'[["set", "a", 1]]'))
    assert session_id
    assert do(app, ["all"]) == [{"a": 1}]


def test_read_in_a_subrequest_and_outside_of_it_sets_one_cookie(store: Store) -> None:
    app = nested_app(store)
    do(app, ["set", "a", 1])
    assert cookies_of(app.post("/outer/read", b'[["get", "a"]]')) == [app.cookies[COOKIE]]


def test_change_outside_of_the_subrequest_sets_one_cookie(store: Store) -> None:
    app = nested_app(store)
    do(app, ["set", "a", 1])
    response = app.post("/outer/after", b'[["set", "b", 1]]')
    assert cookies_of(response) == [app.cookies[COOKIE]]
    assert do(app, ["all"]) == [{"a": 1, "b": 1, "after": 1}]

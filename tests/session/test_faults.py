"""An unavailable store: what the client gets, and what the store still has."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPFound
from pyramid.request import Request
from pyramid.response import Response
from webtest import TestApp

from pyramid_kvs.exceptions import KVSUnavailable, SessionTooLarge
from pyramid_kvs.session import SessionFactory
from tests.servers import RedisServer
from tests.session.apps import (
    COOKIE,
    Store,
    Visit,
    cookie_of,
    do,
    make_app,
    new_session,
    send,
)

Configure = Callable[[Configurator], None]


class Failing:
    """An application whose view stops the store after it has used the session."""

    def __init__(self, server: RedisServer, configure: Configure | None = None) -> None:
        self.fail: Callable[[], Any] = server.kill
        self.options = {"kvs": "redis", "kvs_kwargs": {"url": server.url}}
        self.app = make_app(self.options, self._configured(configure))

    def _configured(self, configure: Configure | None) -> Configure:
        def configured(config: Configurator) -> None:
            config.add_route("fail", "/fail")
            config.add_view(self.view, route_name="fail")
            if configure is not None:
                configure(config)

        return configured

    def view(self, request: Request) -> Response:
        request.session["a"] = 2
        response = Response("all is well", content_type="text/x-ours")
        response.headers["X-Other"] = "kept"
        response.headers["ETag"] = "of the lost body"
        self.fail()
        return response


def test_reading_answers_503(own_redis: Callable[..., RedisServer]) -> None:
    server = own_redis()
    failing = Failing(server)
    session_id = new_session(SessionFactory(failing.options), a=1)
    failing.app.set_cookie(COOKIE, session_id)
    server.kill()
    response = send(failing.app, ["get", "a"], status=503)
    assert int(response.headers["Retry-After"]) > 0
    assert response.headers["Vary"] == "Cookie"
    server.start()
    send(failing.app, ["get", "a"], status=200)


@pytest.mark.parametrize("fault", ["kill", "pause"])
def test_save_that_fails_answers_503(own_redis: Callable[..., RedisServer], fault: str) -> None:
    server = own_redis()
    failing = Failing(server)
    failing.fail = getattr(server, fault)
    failing.app.set_cookie(COOKIE, new_session(SessionFactory(failing.options), a=1))
    started = time.monotonic()
    response = failing.app.get("/fail", status=503)
    assert time.monotonic() - started < 5
    assert int(response.headers["Retry-After"]) > 0
    assert "Set-Cookie" not in response.headers
    assert "all is well" not in response.text
    assert "ETag" not in response.headers
    assert response.headers["X-Other"] == "kept"
    assert response.headers["Vary"] == "Cookie"
    assert int(response.headers["Content-Length"]) == len(response.body)


def test_save_that_fails_without_the_include_answers_503(
    own_redis: Callable[..., RedisServer],
) -> None:
    server = own_redis()
    config = Configurator()
    config.set_session_factory(SessionFactory({"kvs": "redis", "kvs_kwargs": {"url": server.url}}))

    def view(request: Request) -> Response:
        request.session["a"] = 1
        server.kill()
        return Response("fine")

    config.add_view(view)
    response = TestApp(config.make_wsgi_app()).get("/", status=503)
    assert "Retry-After" in response.headers
    assert "Set-Cookie" not in response.headers


def test_exception_view_of_the_application_answers(
    own_redis: Callable[..., RedisServer],
) -> None:
    def configure(config: Configurator) -> None:
        config.add_exception_view(
            lambda error, request: Response("back soon", status=503), context=KVSUnavailable
        )

    response = Failing(own_redis(), configure).app.get("/fail", status=503)
    assert response.text == "back soon"


def test_redirection_that_fails_is_answered_without_a_body(
    own_redis: Callable[..., RedisServer],
) -> None:
    server = own_redis()

    def view(request: Request) -> Response:
        request.session["a"] = 1
        server.kill()
        return HTTPFound("/elsewhere")

    def configure(config: Configurator) -> None:
        config.add_route("move", "/move")
        config.add_view(view, route_name="move")
        config.add_exception_view(
            lambda error, request: Response(status=503), context=KVSUnavailable
        )

    response = Failing(server, configure).app.get("/move", status=503)
    assert response.body == b""
    assert "Location" not in response.headers


def test_exception_view_cannot_make_it_a_success(
    own_redis: Callable[..., RedisServer],
) -> None:
    def configure(config: Configurator) -> None:
        config.add_exception_view(lambda error, request: Response("oops"), context=Exception)

    Failing(own_redis(), configure).app.get("/fail", status=503)


def test_exception_view_may_use_the_session(own_redis: Callable[..., RedisServer]) -> None:
    def error_view(error: Exception, request: Request) -> Response:
        request.session["seen"] = True
        return Response(f"a={request.session['a']}", status=503)

    def configure(config: Configurator) -> None:
        config.add_exception_view(error_view, context=KVSUnavailable)

    response = Failing(own_redis(), configure).app.get("/fail", status=503)
    assert response.text == "a=2"
    assert "Set-Cookie" not in response.headers


def test_body_of_the_replaced_response_is_closed(own_redis: Callable[..., RedisServer]) -> None:
    server = own_redis()
    closed = []

    class Body:
        def __iter__(self) -> Any:
            return iter([b"streamed"])

        def close(self) -> None:
            closed.append(True)

    def view(request: Request) -> Response:
        request.session["a"] = 1
        server.kill()
        return Response(app_iter=Body())

    def configure(config: Configurator) -> None:
        config.add_route("stream", "/stream")
        config.add_view(view, route_name="stream")

    response = Failing(server, configure).app.get("/stream", status=503)
    assert b"streamed" not in response.body
    assert closed == [True]


def test_invalidate_that_fails_is_an_error(own_redis: Callable[..., RedisServer]) -> None:
    server = own_redis()
    failing = Failing(server)
    failing.app.set_cookie(COOKIE, new_session(SessionFactory(failing.options), a=1))
    server.kill()
    send(failing.app, ["invalidate"], status=503)


def test_invalidate_that_fails_keeps_the_session(own_redis: Callable[..., RedisServer]) -> None:
    server = own_redis()
    factory = SessionFactory({"kvs": "redis", "kvs_kwargs": {"url": server.url}})
    session_id = new_session(factory, a=1)
    visit = Visit(factory, session_id)
    server.command("REPLICAOF", "127.0.0.1", "1")  # a replica refuses to write
    with pytest.raises(KVSUnavailable):
        visit.session.invalidate()
    server.command("REPLICAOF", "NO", "ONE")
    assert visit.session["a"] == 1
    assert visit.end().headers["Vary"] == "Cookie"


def test_full_store_answers_503(own_redis: Callable[..., RedisServer]) -> None:
    server = own_redis("--maxmemory-policy", "noeviction")
    app = Failing(server).app
    server.command("CONFIG", "SET", "maxmemory", "1")
    send(app, ["set", "a", 1], status=503)


def test_unwritable_value_raises_and_names_the_key(store: Store) -> None:
    app = store.app()
    session_id = cookie_of(send(app, ["set", "a", 1]))
    with pytest.raises(TypeError, match=r"'bad'.*object"):
        send(app, ["set", "b", 2], ["unserializable", "bad"])
    assert do(app, ["all"]) == [{"a": 1}]
    assert set(store.record(session_id)) == {"a", "__kvs_created"}


def test_unwritable_value_is_answered_by_a_view_for_it(memory: Store) -> None:
    def configure(config: Configurator) -> None:
        config.add_exception_view(
            lambda error, request: Response("a bug", status=500), context=TypeError
        )

    app = make_app(memory.options, configure)
    response = send(app, ["unserializable", "bad"], status=500)
    assert response.text == "a bug"
    assert "Set-Cookie" not in response.headers


def test_bytes_are_unwritable(memory: Store) -> None:
    visit = Visit(memory.factory())
    visit.session["data"] = {"inner": [b"x"]}
    with pytest.raises(TypeError, match="'data'"):
        visit.end()


def test_too_large_names_the_largest_keys(store: Store) -> None:
    app = store.app(max_bytes=1000)
    do(app, ["set", "a", 1])
    with pytest.raises(SessionTooLarge, match=r"1000.*'long' \(9.*'middle'") as raised:
        send(app, ["set", "long", "x" * 900], ["set", "middle", "y" * 200], ["set", "b", 1])
    assert "xxx" not in str(raised.value)
    assert do(app, ["all"]) == [{"a": 1}]


def test_default_limit_is_below_the_limit_of_memcached(store: Store) -> None:
    app = store.app()
    with pytest.raises(SessionTooLarge, match="'long'"):
        send(app, ["set", "long", "x" * 1024 * 1024])
    do(app, ["set", "a", "x" * 1_000_000])
    assert len(do(app, ["get", "a"])[0]) == 1_000_000


def test_limit_of_the_store_names_the_largest_keys() -> None:
    app = make_app({"kvs": "memory", "kvs_kwargs": {"max_bytes": 10_000}})
    with pytest.raises(SessionTooLarge, match="'long'"):
        send(app, ["set", "long", "x" * 20_000])


def test_change_in_a_later_callback_is_saved(store: Store) -> None:
    def view(request: Request) -> Response:
        request.session["items"] = [1]
        request.add_response_callback(lambda request, _: request.session["items"].append(2))
        request.add_response_callback(lambda request, _: request.session.update(late=True))
        return Response()

    def configure(config: Configurator) -> None:
        config.add_route("late", "/late")
        config.add_view(view, route_name="late")

    app = make_app(store.options, configure)
    response = app.get("/late")
    assert len(response.headers.getall("Set-Cookie")) == 1
    assert response.headers.getall("Vary") == ["Cookie"]
    assert do(app, ["all"]) == [{"items": [1, 2], "late": True}]


def test_later_callback_changes_a_value_in_place(store: Store) -> None:
    def view(request: Request) -> Response:
        items = request.session.setdefault("items", [])
        request.add_response_callback(lambda request, _: items.append(len(items)))
        return Response()

    def configure(config: Configurator) -> None:
        config.add_route("late", "/late")
        config.add_view(view, route_name="late")

    app = make_app(store.options, configure)
    app.get("/late")
    app.get("/late")
    assert do(app, ["all"]) == [{"items": [0, 1]}]


def test_change_before_an_error_with_a_view_is_saved(memory: Store) -> None:
    def view(request: Request) -> Response:
        request.session["a"] = 1
        raise KeyError("oops")

    def configure(config: Configurator) -> None:
        config.add_route("error", "/error")
        config.add_view(view, route_name="error")
        config.add_exception_view(
            lambda error, request: Response("sorry", status=500), context=KeyError
        )

    app = make_app(memory.options, configure)
    app.get("/error", status=500)
    assert do(app, ["all"]) == [{"a": 1}]

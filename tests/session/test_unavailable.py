"""A store that is unavailable gives 503, wherever in the life of a request it is first used."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response
from pyramid.router import default_execution_policy
from webtest import TestApp, TestResponse

from pyramid_kvs.exceptions import KVSUnavailable
from pyramid_kvs.session import SessionFactory
from tests.servers import RedisServer
from tests.session.apps import COOKIE, new_session
from tests.session.site_without_store import PLACES, USES, make_application, settings_of
from tests.web_servers import Gunicorn, Uwsgi, Waitress, WebServer

APPLICATION = "tests.session.wsgi:application"
COOKIES = f"{COOKIE}={'0' * 40}; perl={'0' * 32}"
LINE = "a store is unavailable, requests that need it get a 503"

Store = dict[str, Any]


@pytest.fixture(scope="module")
def down() -> Iterator[Store]:
    """The setting of a store that refuses connections, without a delay."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        yield {"kvs": "redis", "kvs_kwargs": {"host": "127.0.0.1", "port": port}}


def ask(app: TestApp, path: str) -> TestResponse:
    """Ask for a page, with the cookies of two sessions, and expect a 503."""
    response = app.get(path, headers={"Cookie": COOKIES}, status=503)
    assert int(response.headers["Retry-After"]) > 0
    assert "Set-Cookie" not in response.headers
    return response


@pytest.mark.parametrize("includes", [[], ["pyramid_retry"], ["pyramid_tm", "pyramid_retry"]])
@pytest.mark.parametrize("name", USES)
def test_the_first_use_answers_503_everywhere(name: str, includes: list[str], down: Store) -> None:
    app = TestApp(make_application(settings_of(down), *includes))
    for place in PLACES:
        ask(app, f"/{place}?use={name}")


def test_the_log_has_one_line_a_minute(down: Store, caplog: pytest.LogCaptureFixture) -> None:
    app = TestApp(make_application(settings_of(down)))
    caplog.clear()
    for place in PLACES:
        ask(app, f"/{place}?use=session")
    lines = [record.name for record in caplog.records if LINE in record.getMessage()]
    assert lines == ["pyramid_kvs.web"]


@pytest.mark.parametrize("place", PLACES)
def test_a_rate_limit_that_denies_answers_503(place: str, down: Store) -> None:
    limit = {**down, "limit": 9, "window": 60, "on_error": "deny"}
    app = TestApp(make_application({**settings_of(down), "kvs.ratelimit": limit}))
    ask(app, f"/{place}?use=session")


@pytest.mark.parametrize("kind", [Gunicorn, Uwsgi, Waitress])
def test_a_server_sees_no_error(kind: type[WebServer], down: Store) -> None:
    with kind(APPLICATION, SETTINGS=json.dumps(settings_of(down))) as server:
        for place in PLACES:
            status, body = server.get(f"/{place}?use=session", Cookie=COOKIES)
            assert (status, b"Traceback" in body) == (503, False), place
        assert "Traceback" not in server.log


def test_an_error_page_that_shows_flash_messages(own_redis: Callable[..., RedisServer]) -> None:
    server = own_redis()
    store = {"kvs": "redis", "kvs_kwargs": {"url": server.url}}
    config = Configurator(settings={"kvs.session": store, "pyramid.includes": "pyramid_kvs"})

    def page(error: Exception, request: Request) -> Response:
        return Response(" ".join(["sorry", *request.session.pop_flash()]), status=500)

    config.add_exception_view(page, context=Exception)
    config.add_exception_view(page, context=KVSUnavailable)
    config.add_notfound_view(lambda error, request: page(error, request))
    app = TestApp(config.make_wsgi_app())
    app.set_cookie(COOKIE, new_session(SessionFactory(store), _f_=["saved"]))
    assert app.get("/missing", status=500).text == "sorry saved"
    server.kill()
    assert "Retry-After" in app.get("/missing", status=503).headers


def test_a_view_of_a_failed_save_that_needs_a_store(own_redis: Callable[..., RedisServer]) -> None:
    """The session is saved by a response callback, where no exception view runs by itself."""
    server = own_redis()
    store = {"kvs": "redis", "kvs_kwargs": {"url": server.url}}
    settings = {"kvs.session": store, "kvs.cache": {**store, "on_error": "raise"}}
    config = Configurator(settings={**settings, "pyramid.includes": "pyramid_kvs"})

    def change(request: Request) -> Response:
        request.session["name"] = "ann"
        server.kill()
        return Response("done")

    def show(error: Exception, request: Request) -> Response:
        return Response(str(request.cache.get("page")), status=500)

    config.add_view(change)
    config.add_exception_view(show, context=KVSUnavailable)
    response = TestApp(config.make_wsgi_app()).get("/", status=503)
    assert "Retry-After" in response.headers
    assert "Set-Cookie" not in response.headers


def test_every_router_of_a_configurator_answers_503(down: Store) -> None:
    config = Configurator(settings={**settings_of(down), "pyramid.includes": "pyramid_kvs"})

    def view(request: Request) -> Response:
        request.add_response_callback(lambda request, response: request.session.get("name"))
        return Response("done")

    config.add_view(view)
    for router in [config.make_wsgi_app() for _ in range(3)]:
        TestApp(router).get("/", headers={"Cookie": COOKIES}, status=503)
    assert not config.registry.has_listeners


def test_a_request_pays_one_call() -> None:
    config = Configurator(settings={"pyramid.includes": "pyramid_kvs"})
    router = config.make_wsgi_app()
    assert router.execution_policy.__closure__ is not None
    policies = [cell.cell_contents for cell in router.execution_policy.__closure__]
    assert default_execution_policy in policies
    assert not config.registry.has_listeners

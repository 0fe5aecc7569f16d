"""Helpers for functional tests: the session of a client, and a test without limits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pyramid.config import Configurator
from webtest import TestApp

from pyramid_kvs.testing import MockStore, empty_store, session_of, without_limits

MOCK = {"kvs": "mock"}


@pytest.fixture(autouse=True)
def store() -> Iterator[MockStore]:
    with empty_store() as found:
        yield found


def home(request: Any) -> str:
    request.session["seen"] = request.session.get("seen", 0) + 1
    return str(request.session.get("user"))


def application(view_options: dict[str, Any] | None = None, **features: Any) -> Any:
    settings = {f"kvs.{name}": value for name, value in features.items()}
    config = Configurator(settings=settings)
    config.include("pyramid_kvs.testing")
    config.add_route("home", "/")
    config.add_view(home, route_name="home", renderer="string", **(view_options or {}))
    return config.make_wsgi_app()


def test_a_client_is_logged_in_by_its_session() -> None:
    app = TestApp(application(session=MOCK))
    with session_of(app) as session:
        session["user"] = "fred"
    assert app.get("/").text == "fred"
    with session_of(app) as session:
        assert session["seen"] == 1
        assert not session.new
        session["user"] = "mary"
    assert app.get("/").text == "mary"


def test_two_clients_have_two_sessions() -> None:
    application_ = application(session=MOCK)
    one, other = TestApp(application_), TestApp(application_)
    with session_of(one) as session:
        session["user"] = "fred"
    assert (one.get("/").text, other.get("/").text) == ("fred", "None")


def test_the_session_that_a_view_has_made_is_found(store: MockStore) -> None:
    app = TestApp(application(session=MOCK))
    app.get("/")
    with session_of(app) as session:
        assert session["seen"] == 1
    assert len(store) == 1


def test_a_test_may_end_the_session() -> None:
    app = TestApp(application(session=MOCK))
    with session_of(app) as session:
        session["user"] = "fred"
    with session_of(app) as session:
        session.invalidate()
    assert app.cookies == {}
    assert app.get("/").text == "None"


def test_a_token_of_csrf_is_that_of_the_session() -> None:
    app = TestApp(application({"require_csrf": True}, session=MOCK))
    app.post("/", status=400)
    with session_of(app) as session:
        token = session.get_csrf_token()
    assert app.post("/", {"csrf_token": token}).text == "None"


def test_reading_a_session_stores_nothing(store: MockStore) -> None:
    app = TestApp(application(session=MOCK))
    with session_of(app) as session:
        assert session.get("user") is None
    assert not store
    assert app.cookies == {}


def test_header_sessions_are_those_of_the_environ() -> None:
    options = {"kvs": "mock", "session_type": "header", "key_name": "X-Token"}
    app = TestApp(application(session=options), extra_environ={"HTTP_X_TOKEN": "t" * 40})
    with session_of(app) as session:
        session["user"] = "fred"
    assert app.get("/").text == "fred"


def test_a_cookie_with_a_path_belongs_to_the_urls_below_it() -> None:
    app = TestApp(application(session={"kvs": "mock", "cookie_path": "/shop"}))
    with session_of(app, "/shop/cart") as session:
        session["user"] = "fred"
    with session_of(app, "/shop/other") as session:
        assert session["user"] == "fred"
    with session_of(app, "/") as session:
        assert session.new


def test_a_secure_cookie_belongs_to_https() -> None:
    app = TestApp(application(session=MOCK), extra_environ={"wsgi.url_scheme": "https"})
    with session_of(app, "https://localhost/") as session:
        session["user"] = "fred"
    assert app.get("https://localhost/").text == "fred"


def test_an_error_in_the_block_saves_nothing(store: MockStore) -> None:
    app = TestApp(application(session=MOCK))

    def fail() -> None:
        with session_of(app) as session:
            session["user"] = "fred"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not store
    assert app.get("/").text == "None"


def test_an_application_without_sessions_says_so() -> None:
    def ask() -> None:
        with session_of(TestApp(application())):
            pytest.fail("there is no session")

    with pytest.raises(LookupError, match=r"kvs\.session is missing"):
        ask()


def test_middleware_hides_the_application() -> None:
    wrapped = TestApp(lambda environ, start_response: [])
    for helper in (session_of, without_limits):
        with pytest.raises(TypeError, match=r"expected webtest\.TestApp\(application\)"):
            helper(wrapped).__enter__()


def test_no_limit_counts_in_a_block_without_limits() -> None:
    app = TestApp(application(session=MOCK, ratelimit={"limit": 1, "window": 60}))
    with without_limits(app):
        for _ in range(3):
            assert "X-RateLimit-Limit" not in app.get("/").headers
    app.get("/")
    app.get("/", status=429)
    with without_limits(app.app), without_limits(app.app.registry):
        app.get("/")
    app.get("/", status=429)


def test_limits_of_views_do_not_count_either() -> None:
    view = {"ratelimit": {"limit": 1, "window": 60}}
    app = TestApp(application(view, session=MOCK, ratelimit=[]))
    with without_limits(app):
        app.get("/")
        app.get("/")
    app.get("/")
    app.get("/", status=429)


def test_an_application_without_limits_says_so() -> None:
    with pytest.raises(LookupError, match=r"kvs\.ratelimit is missing"):
        without_limits(TestApp(application())).__enter__()

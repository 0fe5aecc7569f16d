"""Limits of views and routes: which of them apply, which views are exempt, introspection."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError, URLDecodeError
from pyramid.registry import Registry
from pyramid.request import Request
from pyramid.response import Response
from pyramid.scripts.pviews import PViewsCommand
from pyramid.static import static_view
from pyramid.testing import DummyRequest
from pyramid.view import view_config, view_defaults
from webtest import TestApp

from pyramid_kvs import subscribe_ratelimit
from pyramid_kvs.ratelimit import RateLimitError
from tests.ratelimit.stores import hello, make_app, mock_keys, policies, statuses
from tests.servers import RedisServer

APPLICATION = {"limit": 4, "window": 600, "name": "application", "kvs": "memory"}
TIGHT = {"limit": 2, "window": 600, "kvs": "memory"}


def app_with(path: str = "/view", limits: Any = APPLICATION, **options: Any) -> TestApp:
    """Return an application whose route ``view`` has a view with these options."""

    def configure(config: Configurator) -> None:
        config.add_route("view", path)
        config.add_view(hello, route_name="view", **options)

    return make_app(limits, configure=configure)


# -- instead, in addition, exempt --------------------------------------------------------------


def test_an_object_replaces_the_limits_of_the_application() -> None:
    app = app_with(ratelimit=TIGHT)
    assert statuses(app, 3, "/view") == [200, 200, 429]
    assert statuses(app, 5) == [200, 200, 200, 200, 429]
    assert policies(app.get("/view", status=429)) == ["view-600s"]


def test_an_object_with_add_adds_to_them() -> None:
    app = app_with(ratelimit={**TIGHT, "add": True})
    assert policies(app.get("/view")) == ["application", "view-600s"]
    assert statuses(app, 2, "/view") == [200, 429]
    assert statuses(app, 3) == [200, 200, 429]


def test_all_limits_of_a_list_apply() -> None:
    app = app_with(ratelimit=[TIGHT, {**TIGHT, "window": 60, "add": True}])
    assert policies(app.get("/view")) == ["application", "view-600s", "view-60s"]


@pytest.mark.parametrize("option", [False, []])
def test_an_exempt_view_is_not_counted(option: Any) -> None:
    app = app_with(ratelimit=option)
    assert statuses(app, 9, "/view") == [200] * 9
    assert "X-RateLimit-Limit" not in app.get("/view").headers
    assert statuses(app, 5) == [200, 200, 200, 200, 429]


def test_the_option_none_is_as_if_absent() -> None:
    assert policies(app_with(ratelimit=None).get("/view")) == ["application"]


def test_with_an_empty_setting_only_limits_of_views_apply() -> None:
    app = app_with(limits=[], ratelimit=TIGHT)
    assert statuses(app, 9) == [200] * 9
    assert statuses(app, 3, "/view") == [200, 200, 429]


def test_over_the_limit_neither_permission_nor_view_are_asked() -> None:
    asked: list[str] = []

    class Policy:
        def permits(self, request: Request, context: Any, permission: str) -> bool:
            asked.append(permission)
            return False

    def configure(config: Configurator) -> None:
        config.set_security_policy(Policy())
        config.add_route("view", "/view")
        config.add_view(hello, route_name="view", permission="see", ratelimit=TIGHT)

    app = make_app(APPLICATION, configure=configure)
    assert statuses(app, 4, "/view") == [403, 403, 429, 429]
    assert asked == ["see", "see"]


@view_defaults(route_name="decorated", ratelimit=TIGHT)
class Decorated:
    def __init__(self, request: Request) -> None:
        self.request = request

    @view_config(request_method="GET")
    def get(self) -> Response:
        return Response()

    @view_config(request_method="POST", ratelimit=False)
    def post(self) -> Response:
        return Response()


def test_decorators_accept_the_option() -> None:
    def configure(config: Configurator) -> None:
        config.add_route("decorated", "/decorated")
        config.scan(__name__)

    app = make_app(APPLICATION, configure=configure)
    assert statuses(app, 3, "/decorated") == [200, 200, 429]
    assert [app.post("/decorated").status_int for _ in range(5)] == [200] * 5


def test_views_of_one_route_can_have_different_limits() -> None:
    def configure(config: Configurator) -> None:
        config.add_route("view", "/view")
        config.add_view(hello, route_name="view", request_param="tight", ratelimit=TIGHT)
        config.add_view(hello, route_name="view", request_param="free", ratelimit=False)
        config.add_view(hello, route_name="view")

    app = make_app(APPLICATION, configure=configure)
    assert policies(app.get("/view?tight=")) == ["view-600s"]
    assert policies(app.get("/view?free=")) == []
    assert policies(app.get("/view")) == ["application"]


def test_traversal_views_have_limits() -> None:
    def configure(config: Configurator) -> None:
        config.add_view(hello, name="tight", ratelimit=TIGHT)
        config.add_view(hello, name="plain")

    app = make_app(APPLICATION, configure=configure)
    assert statuses(app, 3, "/tight") == [200, 200, 429]
    assert statuses(app, 5, "/plain") == [200, 200, 200, 200, 429]
    assert statuses(app, 1) == [429]


def test_views_share_the_limit_of_their_route() -> None:
    def configure(config: Configurator) -> None:
        config.add_route("tight", "/tight", ratelimit=TIGHT)
        config.add_view(hello, route_name="tight")
        config.add_view(hello, route_name="tight", request_method="POST")
        config.add_view(hello, route_name="tight", request_method="PUT", ratelimit=False)

    app = make_app(APPLICATION, configure=configure)
    found = [app.get("/tight"), app.post("/tight"), app.get("/tight", status="*")]
    assert [response.status_int for response in found] == [200, 200, 429]
    assert app.put("/tight").status_int == 200


def test_limits_without_a_name_count_separately() -> None:
    """Two views of one route do not share a counter by accident."""

    def configure(config: Configurator) -> None:
        config.add_route("view", "/view")
        for method in ("GET", "POST"):
            config.add_view(hello, route_name="view", request_method=method, ratelimit=TIGHT)

    app = make_app(APPLICATION, configure=configure)
    assert statuses(app, 3, "/view") == [200, 200, 429]
    assert [app.post("/view", status="*").status_int for _ in range(3)] == [200, 200, 429]


def test_limits_of_one_name_are_one_limit() -> None:
    def configure(config: Configurator) -> None:
        for name in ("one", "two"):
            config.add_route(name, f"/{name}")
            config.add_view(hello, route_name=name, ratelimit={**TIGHT, "name": "shared"})

    app = make_app(APPLICATION, configure=configure)
    found = [app.get(path, status="*").status_int for path in ("/one", "/two", "/one", "/two")]
    assert found == [200, 200, 429, 429]


def test_a_limit_without_a_store_uses_that_of_the_first_limit(
    mock_store: dict[str, Any], redis_server: RedisServer
) -> None:
    """With it, both are checked in one call."""
    redis = {"kvs": "redis", "kvs_kwargs": {"url": redis_server.url}}

    def configure(config: Configurator) -> None:
        config.add_route("view", "/view")
        config.add_view(
            hello, route_name="view", ratelimit={"limit": 2, "window": 600, "add": True}
        )

    limits = [{**APPLICATION, **redis}, {"limit": 9, "window": 600, "name": "session's"}]
    app = make_app(limits, mock_store, configure)
    assert policies(app.get("/view")) == ["application", "view-600s", "session's"]
    assert redis_server.client.get("ratelimit::@address::192.0.2.1::ratelimit::view-600s") == b"1"
    assert mock_keys() == ["session::@address::192.0.2.1::ratelimit::session's"]


def test_without_application_limits_a_limit_uses_the_store_of_the_session(
    mock_store: dict[str, Any],
) -> None:
    def configure(config: Configurator) -> None:
        for name, option in (("one", {**TIGHT, "limit": 9}), ("two", {"limit": 9})):
            config.add_route(name, f"/{name}")
            config.add_view(hello, route_name=name, ratelimit=option)

    app = make_app([], mock_store, configure)
    app.get("/one"), app.get("/two")
    assert mock_keys() == ["session::@address::192.0.2.1::ratelimit::two-1s"]


# -- requests without a view -------------------------------------------------------------------


def count(request: Request) -> Any:
    raise ValueError("the root factory fails")


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("/view/no/such", {"request_param": "never"}),
        ("/view/predicate", {"request_method": "PATCH"}),
    ],
)
def test_requests_without_a_view_are_counted(path: str, options: dict[str, Any]) -> None:
    app = app_with("/view/*rest", ratelimit=False, **options)
    assert statuses(app, 5, path) == [404, 404, 404, 404, 429]


def test_a_request_that_fails_before_its_view_is_counted() -> None:
    def configure(config: Configurator) -> None:
        config.add_route("view", "/view", factory=count)
        config.add_view(hello, route_name="view", ratelimit=False)
        config.add_exception_view(lambda error, request: Response(status=500), context=ValueError)

    app = make_app(APPLICATION, configure=configure)
    assert statuses(app, 5, "/view") == [500, 500, 500, 500, 429]


def test_a_path_that_a_subscriber_rewrites_does_not_avoid_the_limit() -> None:
    """The tween has seen another path and counted for the application. The view counts too."""

    def rewrite(event: Any) -> None:
        if event.request.path_info == "/old":
            event.request.path_info = "/view"

    def configure(config: Configurator) -> None:
        config.add_subscriber(rewrite, "pyramid.interfaces.INewRequest")
        config.add_route("view", "/view")
        config.add_view(hello, route_name="view", ratelimit=TIGHT)

    app = make_app(APPLICATION, configure=configure)
    assert policies(app.get("/old")) == ["application", "view-600s"]
    assert statuses(app, 2, "/old") == [200, 429]


def test_a_subrequest_with_tweens_is_counted_separately() -> None:
    def outer(request: Request) -> Response:
        inner = Request.blank("/view", environ={"REMOTE_ADDR": "192.0.2.1"})
        return request.invoke_subrequest(inner, use_tweens=request.params["tweens"] == "1")

    def configure(config: Configurator) -> None:
        config.add_route("outer", "/outer")
        config.add_view(outer, route_name="outer")
        config.add_route("view", "/view")
        config.add_view(hello, route_name="view", ratelimit=TIGHT)

    app = make_app({**APPLICATION, "limit": 99}, configure=configure)
    assert policies(app.get("/outer?tweens=0")) == ["application"]
    response = app.get("/outer?tweens=1")
    assert policies(response) == ["application"]
    assert response.headers["X-RateLimit-Remaining"] == "97"
    assert app.get("/view").headers["X-RateLimit-Remaining"] == "0"


# -- views that are added later ----------------------------------------------------------------


def test_a_view_that_a_later_commit_adds_has_its_own_limits() -> None:
    """The application already serves requests when the views are added."""
    config = Configurator(settings={"kvs.ratelimit": APPLICATION})
    config.include("pyramid_kvs")
    config.add_route("old", "/")
    config.add_view(hello, route_name="old")
    app = TestApp(config.make_wsgi_app(), extra_environ={"REMOTE_ADDR": "192.0.2.1"})
    assert statuses(app, 1) == [200]
    config.add_route("free", "/free")
    config.add_view(hello, route_name="free", ratelimit=False)
    config.add_route("tight", "/tight")
    config.add_view(hello, route_name="tight", ratelimit=TIGHT)
    config.commit()
    assert statuses(app, 9, "/free") == [200] * 9
    assert "X-RateLimit-Limit" not in app.get("/free").headers
    assert policies(app.get("/tight")) == ["tight-600s"]
    assert statuses(app, 4) == [200, 200, 200, 429]


def test_a_later_commit_can_move_the_route_of_an_exempt_view() -> None:
    config = Configurator(settings={"kvs.ratelimit": APPLICATION})
    config.include("pyramid_kvs")
    config.add_route("free", "/free")
    config.add_view(hello, route_name="free", ratelimit=False)
    app = TestApp(config.make_wsgi_app(), extra_environ={"REMOTE_ADDR": "192.0.2.1"})
    config.add_route("free", "/moved")
    config.commit()
    assert statuses(app, 9, "/moved") == [200] * 9


# -- static views ------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "file.txt").write_text("text")
    return tmp_path


def static_app(name: str, folder: Path, **options: Any) -> TestApp:
    def configure(config: Configurator) -> None:
        config.add_route("hi", "/hi")
        config.add_view(hello, route_name="hi")
        config.add_static_view(name, str(folder), **options)

    return make_app(APPLICATION, configure=configure)


@pytest.mark.parametrize(
    ("name", "path"), [("static", "/static/file.txt"), ("/", "/file.txt"), ("a/b", "/a/b/file.txt")]
)
def test_static_views_are_exempt(folder: Path, name: str, path: str) -> None:
    app = static_app(name, folder)
    assert statuses(app, 9, path) == [200] * 9
    assert "X-RateLimit-Limit" not in app.get(path).headers
    assert statuses(app, 5) == [200, 200, 200, 200, 429]


@pytest.mark.parametrize("name", ["static", "/"])
@pytest.mark.parametrize(
    "path",
    [
        *("/static", "//static/file.txt", "/static/../hi", "/static/%2e%2e/hi", "/%73tatic"),
        *("/static%2ffile.txt", "/STATIC/file.txt", "/static;/file.txt", "/hi/", "/hi", "/%68i"),
        *("/hi?/static/file.txt", "/hi;/static/", "/./static/file.txt", "/static\\", "//hi"),
    ],
)
def test_unusual_paths_do_not_avoid_the_limit(folder: Path, name: str, path: str) -> None:
    """A response that is not from the static view is counted, whatever the path."""
    app = static_app(name, folder)
    for number in range(6):
        response = app.get(path, status="*")
        is_exempt = "X-RateLimit-Limit" not in response.headers
        if response.text == "hello":
            assert number < 4
            assert not is_exempt
        assert not is_exempt or response.status_int == 404 or response.text == "text"
    if path in ("/hi", "/%68i", "/hi?/static/file.txt"):
        assert response.status_int == 429


def test_a_path_that_does_not_decode_is_counted(folder: Path) -> None:
    app = static_app("static", folder)
    for _ in range(4):
        with pytest.raises(URLDecodeError):
            app.get("/static/%ff")
    assert app.get("/static/%ff", status=429)


def test_a_static_view_with_the_option_is_limited(folder: Path) -> None:
    app = static_app("static", folder, ratelimit=TIGHT)
    assert statuses(app, 3, "/static/file.txt") == [200, 200, 429]

    def configure(config: Configurator) -> None:
        config.add_route("files", "/files/*subpath")
        view = static_view(str(folder), use_subpath=True)
        config.add_view(view, route_name="files", ratelimit=TIGHT)

    app = make_app(APPLICATION, configure=configure)
    assert statuses(app, 3, "/files/file.txt") == [200, 200, 429]


# -- introspection -----------------------------------------------------------------------------


def test_pviews_shows_the_limits(capsys: pytest.CaptureFixture[str]) -> None:
    app = app_with(ratelimit={**TIGHT, "add": True}).app

    class Command(PViewsCommand):  # type: ignore[misc]
        bootstrap = staticmethod(
            lambda *args, request, **options: {
                "registry": request.__dict__.setdefault("registry", app.registry),
                "closer": lambda: None,
            }
        )
        setup_logging = staticmethod(lambda *args, **options: None)

    Command(["pviews", "x.ini", "/view"], quiet=False).run()
    shown = capsys.readouterr().out
    assert "ratelimit = application: 4 in 600 s by session, view-600s: 2 in 600 s" in shown


def test_the_introspector_has_what_is_special_about_a_limit() -> None:
    special = {"mode": "shadow", "count": [401, 403], "except": ["192.0.2.7"]}
    introspector = app_with(ratelimit={**TIGHT, **special}).app.registry.introspector
    entries = introspector.get_category("kvs rate limits")
    shown = [entry["introspectable"]["limits"] for entry in entries]
    expected = "by session (shadow, counts 401 403, except 192.0.2.7/32)"
    assert [text for text in shown if text.endswith(expected)] != []


def test_the_introspector_has_the_limits() -> None:
    introspector = app_with(ratelimit=TIGHT).app.registry.introspector
    shown = {
        entry["introspectable"].title: entry["introspectable"]["limits"]
        for entry in introspector.get_category("kvs rate limits")
    }
    assert shown["route view (hello)"] == "view-600s: 2 in 600 s by session"
    assert shown["all other views"].startswith("application: 4 in 600 s by session")
    views = [entry["introspectable"] for entry in introspector.get_category("views")]
    assert [view["ratelimit"] for view in views if "ratelimit" in view] == [TIGHT]


# -- bad options -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (True, "found true, expected false"),
        ("5/m", "found '5/m'|found \"5/m\""),
        ({"limt": 5}, "unknown key 'limt'.*did you mean 'limit'"),
        ({"limit": 0}, "limit: found 0"),
        ([{"limit": 5}, {"window": "1"}], r"\[1\]: window: found \"1\""),
        ({"add": 1}, "add: found 1, expected true or false"),
        ([{**TIGHT, "name": "a"}] * 2, "duplicate name 'a'"),
        ({**TIGHT, "name": "application"}, "another limit with other options"),
    ],
)
def test_a_bad_option_stops_the_start_and_names_the_view(option: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"(?s)route view \(hello\).*{message}"):
        app_with(ratelimit=option)


def plain_app(**options: Callable[..., Any] | Any) -> Configurator:
    config = Configurator(settings={"kvs.cache": {"kvs": "memory"}})
    config.include("pyramid_kvs")
    config.add_route("view", "/view")
    config.add_view(hello, route_name="view", **options)
    return config


def test_a_limit_without_the_setting_stops_the_start() -> None:
    with pytest.raises(ConfigurationError, match=r"view \(hello\).*kvs.ratelimit is not set"):
        plain_app(ratelimit=TIGHT).make_wsgi_app()


@pytest.mark.parametrize("option", [False, []])
def test_an_exempt_view_is_harmless_without_the_setting(option: Any) -> None:
    app = TestApp(plain_app(ratelimit=option).make_wsgi_app())
    assert app.get("/view").text == "hello"


def test_an_exempt_route_is_harmless_without_the_setting() -> None:
    config = Configurator(settings={"kvs.cache": {"kvs": "memory"}})
    config.include("pyramid_kvs")
    config.add_route("view", "/view", ratelimit=False)
    config.add_view(hello, route_name="view")
    assert TestApp(config.make_wsgi_app()).get("/view").text == "hello"


def test_without_setting_and_option_views_stay_as_they_are(folder: Path) -> None:
    config = plain_app()
    config.add_static_view("static", str(folder))
    app = TestApp(config.make_wsgi_app())
    assert "X-RateLimit-Limit" not in app.get("/view").headers
    assert app.get("/static/file.txt").text == "text"


def test_the_option_of_an_exception_view_stops_the_start() -> None:
    def configure(config: Configurator) -> None:
        config.add_notfound_view(hello, ratelimit=TIGHT)

    with pytest.raises(ConfigurationError, match="already been counted"):
        make_app(APPLICATION, configure=configure)


# -- without the router ------------------------------------------------------------------------


def new_event(registry: Registry, **attributes: Any) -> SimpleNamespace:
    """Return an event with a request that has not passed through the router."""
    request = DummyRequest(**attributes)
    request.registry = registry
    return SimpleNamespace(request=request)


def test_subscribe_ratelimit_counts_any_request() -> None:
    registry = make_app(TIGHT).app.registry
    for remaining in ("1", "0"):
        event = new_event(registry, remote_addr="192.0.2.1")
        subscribe_ratelimit(event)
        response = Response()
        event.request._process_response_callbacks(response)
        assert response.headers["X-RateLimit-Remaining"] == remaining
    with pytest.raises(RateLimitError) as caught:
        subscribe_ratelimit(new_event(registry, remote_addr="192.0.2.1"))
    assert (caught.value.limit, caught.value.remaining) == (2, 0)
    assert caught.value.headers["Retry-After"] == str(caught.value.retry_after)


def test_a_request_without_an_address_is_refused_too() -> None:
    registry = make_app(TIGHT).app.registry
    for _ in range(2):
        subscribe_ratelimit(new_event(registry))
    with pytest.raises(RateLimitError):
        subscribe_ratelimit(new_event(registry))

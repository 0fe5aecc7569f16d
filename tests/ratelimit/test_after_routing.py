"""Limits by user and by a callable: they are asked when a request has reached its view."""

from __future__ import annotations

import time
from typing import Any

import pytest
from pyramid.authorization import ACLHelper
from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPForbidden
from pyramid.request import Request, RequestLocalCache
from pyramid.response import Response
from webtest import TestApp

from pyramid_kvs.exceptions import CodecError, KVSUnavailable
from pyramid_kvs.ratelimit.views.late import LateRefusals
from tests.ratelimit.stores import hello, make_app, mock_keys, policies, statuses
from tests.servers import RedisServer

MEMORY = {"kvs": "memory", "limit": 3, "window": 600}
BY_USER = {**MEMORY, "by": "user"}
BY_ADDRESS = {**MEMORY, "by": "address", "name": "site"}


class Policy:
    """A security policy; subclasses say who a request is from."""

    def find(self, request: Request) -> Any:
        return request.params.get("user")

    def authenticated_userid(self, request: Request) -> Any:
        return self.find(request)

    identity = authenticated_userid

    def permits(self, request: Request, context: Any, permission: str) -> Any:
        return ACLHelper().permits(context, [self.authenticated_userid(request)], permission)


class ByRoute(Policy):
    """Trusts the parameter on one route only."""

    def find(self, request: Request) -> Any:
        route = request.matched_route
        return super().find(request) if route and route.name == "private" else None


class ByContext(Policy):
    """Trusts the users that the context names."""

    def find(self, request: Request) -> Any:
        user = super().find(request)
        return user if user in getattr(request.context, "users", ()) else None


class Caching(ByContext):
    """Asks once in a request, as the documentation of Pyramid recommends."""

    def __init__(self) -> None:
        self.cache = RequestLocalCache(super().find)

    def find(self, request: Request) -> Any:
        return self.cache.get_or_create(request)


class CachingRoute(ByRoute):
    def __init__(self) -> None:
        self.cache = RequestLocalCache(super().find)

    def find(self, request: Request) -> Any:
        return self.cache.get_or_create(request)


POLICIES = [ByRoute, ByContext, Caching, CachingRoute]


class Root:
    """A resource that ann may see."""

    users = ("ann",)
    __acl__ = [("Allow", "ann", "see")]

    def __init__(self, request: Request) -> None:
        pass


def whoami(request: Request) -> Response:
    return Response(str(request.authenticated_userid))


def caught(error: Exception, request: Request) -> Response:
    return Response(f"{type(error).__name__}: {request.authenticated_userid}", status=404)


def app_with(policy: Policy, limits: Any = BY_USER, root: Any = Root) -> TestApp:
    def configure(config: Configurator) -> None:
        config.set_security_policy(policy)
        config.set_root_factory(root)
        config.add_route("private", "/private", factory=root)
        config.add_view(whoami, route_name="private")
        config.add_route("open", "/open")
        config.add_view(whoami, route_name="open")
        config.add_route("secret", "/secret", factory=root)
        config.add_view(whoami, route_name="secret", permission="see")
        config.add_route("picky", "/picky")
        config.add_view(whoami, route_name="picky", request_method="PUT")
        config.add_view(whoami, name="traversed", context=Root)
        config.add_static_view("static", "tests:ratelimit")
        config.add_notfound_view(caught)

    return make_app(limits, configure=configure)


PAGES = [
    f"{path}{query}"
    for path in ("/private", "/open", "/secret", "/traversed", "/picky", "/none", "/static/none")
    for query in ("", "?user=ann", "?user=bob")
]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    "limits", [BY_USER, [BY_ADDRESS, BY_USER], {**BY_USER, "by": f"{__name__}.by_user"}]
)
def test_pages_are_the_same_with_and_without_a_limit(policy: type[Policy], limits: Any) -> None:
    limits = [{**one, "limit": 999} for one in (limits if isinstance(limits, list) else [limits])]
    limited, free = app_with(policy(), limits), app_with(policy(), [])
    for page in PAGES:
        expected, found = (app.get(page, status="*") for app in (free, limited))
        assert (page, found.status, found.text) == (page, expected.status, expected.text)
        assert ("X-RateLimit-Limit" in found.headers) is not page.startswith("/static")
    assert limited.get("/secret?user=ann", status="*").status_int == (
        403 if issubclass(policy, ByRoute) else 200
    )


def by_user(request: Request) -> Any:
    return request.authenticated_userid


@pytest.mark.parametrize("policy", POLICIES)
def test_users_are_counted_apart(policy: type[Policy]) -> None:
    app = app_with(policy())
    assert statuses(app, 4, "/private?user=ann") == [200, 200, 200, 429]
    assert statuses(app, 4, "/private") == [200, 200, 200, 429]


def test_a_callable_sees_the_request_as_a_view_does() -> None:
    seen.clear()
    app = app_with(Policy(), {**MEMORY, "by": f"{__name__}.tell"})
    app.get("/private"), app.get("/traversed"), app.get("/none", status=404)
    assert seen == [("private", "Root", ""), (None, "Root", "traversed")]


seen: list[Any] = []


def tell(request: Request) -> str:
    route = getattr(request, "matched_route", None)
    seen.append((route and route.name, type(request.context).__name__, request.view_name))
    return "everybody"


@pytest.mark.parametrize("path", ["/none", "/picky", "/private/none"])
@pytest.mark.parametrize("by", ["user", f"{__name__}.by_user"])
def test_requests_without_a_view_count_by_address(mock_store: Any, path: str, by: str) -> None:
    app = app_with(Policy(), {**BY_USER, **mock_store, "by": by})
    assert statuses(app, 4, f"{path}?user=ann") == [404, 404, 404, 429]
    assert mock_keys() == ["ratelimit::@address::192.0.2.1::ratelimit"]
    assert statuses(app, 1, "/private?user=ann") == [200]


def test_unknown_allow_does_not_limit_requests_without_a_view() -> None:
    app = app_with(Policy(), {**BY_USER, "unknown": "allow"})
    assert statuses(app, 5, "/none") == [404] * 5


def fail(request: Request) -> Any:
    raise HTTPForbidden


def test_a_request_that_fails_in_its_root_factory_counts_by_address(mock_store: Any) -> None:
    app = app_with(Policy(), {**BY_USER, **mock_store}, root=fail)
    assert statuses(app, 4, "/private?user=ann") == [403, 403, 403, 429]
    assert mock_keys() == ["ratelimit::@address::192.0.2.1::ratelimit"]


def test_an_address_over_its_limit_is_refused_before_routing() -> None:
    made: list[str] = []

    class Counted(Root):
        def __init__(self, request: Request) -> None:
            made.append(request.path)

    app = app_with(Policy(), [{**BY_ADDRESS, "limit": 2}, BY_USER], root=Counted)
    assert statuses(app, 4, "/private") == [200, 200, 429, 429]
    assert len(made) == 2


def test_a_user_over_the_limit_costs_the_address_nothing() -> None:
    """If one limit refuses a request, no limit counts it, whenever they are asked."""
    app = app_with(Policy(), [{**BY_ADDRESS, "limit": 5}, {**BY_USER, "limit": 1}])
    assert statuses(app, 6, "/private?user=ann") == [200] + [429] * 5
    response = app.get("/private?user=bob")
    assert policies(response) == ["site", "user-600s"]
    assert 'r=3;t=600, "user-600s";r=0' in response.headers["RateLimit"]


def test_a_user_who_is_refused_costs_a_trip_a_second(redis_server: RedisServer) -> None:
    """Not three for each request: for the address before routing, for the user, and back."""
    store = {"kvs": "redis", "kvs_kwargs": {"url": redis_server.url}}
    app = app_with(
        Policy(), [{**BY_ADDRESS, **store, "limit": 9}, {**BY_USER, **store, "limit": 1}]
    )
    assert statuses(app, 2, "/private?user=ann") == [200, 429]
    redis_server.reset_calls()
    began = time.monotonic()
    assert statuses(app, 50, "/private?user=ann") == [429] * 50
    seconds = time.monotonic() - began
    assert redis_server.calls().get("evalsha", 0) <= seconds + 2
    response = app.get("/private?user=bob")
    assert 'r=7;t=600, "user-600s";r=0' in response.headers["RateLimit"]


def test_refusals_at_views_are_remembered_for_a_bounded_number_of_clients() -> None:
    refused, requests = LateRefusals(), []
    for number in range(25_000):
        requests.append(Request.blank("/", environ={"REMOTE_ADDR": f"client {number}"}))
        refused.note(requests[-1])
    assert refused.has(requests[-1])
    assert sum(refused.has(request) for request in requests) <= 10_000


def test_over_the_limit_neither_permission_nor_view_are_asked() -> None:
    asked: list[str] = []

    class Asking(Policy):
        def permits(self, request: Request, context: Any, permission: str) -> Any:
            asked.append(permission)
            return super().permits(request, context, permission)

    app = app_with(Asking(), {**BY_USER, "limit": 1})
    assert statuses(app, 3, "/secret?user=ann") == [200, 429, 429]
    assert asked == ["see"]


def test_limits_of_views_and_of_the_application_meet() -> None:
    """Whichever is by user: an exempt view, a view with an additional limit, and one without."""

    def configure(config: Configurator) -> None:
        config.set_security_policy(Policy())
        for name, option in {
            "plain": None,
            "free": False,
            "more": {**BY_USER, "add": True},
        }.items():
            config.add_route(name, f"/{name}")
            config.add_view(hello, route_name=name, ratelimit=option)

    limits = [BY_ADDRESS, {**BY_USER, "name": "user"}]
    app = make_app(limits, configure=configure)
    assert policies(app.get("/plain")) == ["site", "user"]
    assert policies(app.get("/free")) == []
    assert policies(app.get("/more")) == ["site", "user", "more-600s"]


def test_a_view_that_was_added_without_the_library_is_counted() -> None:
    """It was committed before the include, so that no view deriver has seen it."""
    config = Configurator(settings={"kvs.ratelimit": BY_USER}, security_policy=Policy())
    config.add_route("old", "/old")
    config.add_view(hello, route_name="old")
    config.commit()
    config.include("pyramid_kvs")
    app = TestApp(config.make_wsgi_app(), extra_environ={"REMOTE_ADDR": "192.0.2.1"})
    assert statuses(app, 4, "/old?user=ann") == [200, 200, 200, 429]
    assert statuses(app, 1, "/old?user=bob") == [200]


def test_a_custom_execution_policy_changes_nothing() -> None:
    def policy(environ: Any, router: Any) -> Any:
        with router.request_context(environ) as request:
            request.by_policy = True
            return router.invoke_request(request)

    def configure(config: Configurator) -> None:
        config.set_execution_policy(policy)
        config.set_security_policy(Caching())
        config.set_root_factory(Root)
        config.add_view(whoami, name="whoami")

    app = make_app({**BY_USER, "limit": 1}, configure=configure)
    assert app.get("/whoami?user=ann").text == "ann"
    assert statuses(app, 1, "/whoami?user=ann") == [429]
    assert app.get("/whoami").text == "None"


def test_subrequests_are_counted_as_before() -> None:
    def outer(request: Request) -> Response:
        inner = Request.blank("/inner?user=ann", environ={"REMOTE_ADDR": "192.0.2.1"})
        return request.invoke_subrequest(inner, use_tweens=request.params["tweens"] == "1")

    def configure(config: Configurator) -> None:
        config.set_security_policy(Policy())
        for view in (outer, hello):
            name = "outer" if view is outer else "inner"
            config.add_route(name, f"/{name}")
            config.add_view(view, route_name=name)

    app = make_app({**BY_USER, "limit": 9}, configure=configure)
    remaining = [
        app.get(f"/outer?tweens={tweens}&user=ann").headers["X-RateLimit-Remaining"]
        for tweens in (0, 1, 0)
    ]
    assert remaining == ["8", "7", "5"]


# -- a store that the identity needs -----------------------------------------------------------


class Unavailable(Policy):
    """Needs a store that is unavailable, as a policy that reads the session."""

    def find(self, request: Request) -> Any:
        raise KVSUnavailable("redis at 127.0.0.1:1: connection refused")


def unavailable(request: Request) -> Any:
    raise KVSUnavailable("redis at 127.0.0.1:1: connection refused")


def failing_app(limits: Any) -> TestApp:
    def configure(config: Configurator) -> None:
        config.set_security_policy(Unavailable())

    return make_app(limits, configure=configure)


@pytest.mark.parametrize("by", ["user", f"{__name__}.unavailable"])
@pytest.mark.parametrize("on_error", ["allow", "memory"])
def test_who_cannot_be_found_counts_by_address(by: str, on_error: str, caplog: Any) -> None:
    app = failing_app({**BY_USER, "by": by, "on_error": on_error})
    assert statuses(app, 4) == [200, 200, 200, 429]
    logged = [record for record in caplog.records if "who is counted" in record.getMessage()]
    assert len(logged) == 1


@pytest.mark.parametrize("by", ["user", f"{__name__}.unavailable"])
def test_who_cannot_be_found_passes_with_unknown_allow(by: str) -> None:
    app = failing_app({**BY_USER, "by": by, "unknown": "allow"})
    assert statuses(app, 5) == [200] * 5


@pytest.mark.parametrize("by", ["user", f"{__name__}.unavailable"])
def test_who_cannot_be_found_is_denied_with_on_error_deny(by: str) -> None:
    response = failing_app({**BY_USER, "by": by, "on_error": "deny"}).get("/", status=503)
    assert int(response.headers["Retry-After"]) > 0
    assert response.headers["X-RateLimit-Limit"] == "3"


@pytest.mark.parametrize(
    ("on_error", "expected"), [("allow", [200, 200, 429]), ("deny", [503] * 3)]
)
def test_a_session_that_cannot_be_looked_up_falls_under_on_error(
    own_redis: Any, on_error: str, expected: list[int]
) -> None:
    """The counters are in another store, which works, and counts by address."""
    server = own_redis()
    session = {"kvs": "redis", "kvs_kwargs": {"url": server.url}}
    app = make_app({**MEMORY, "on_error": on_error}, session)
    app.get("/visit")
    server.kill()
    assert statuses(app, 3) == expected


def odd(request: Request) -> Any:
    raise CodecError("not JSON")


def test_a_mistake_in_a_callable_is_not_hidden() -> None:
    with pytest.raises(CodecError):
        make_app({**MEMORY, "by": f"{__name__}.odd"}).get("/")

"""Several cookies of one name in a request, through HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from webtest import TestApp

from tests.servers import RedisServer
from tests.session.apps import COOKIE, Store, cookie_of, do, make_app, new_session, send

UNKNOWN = "f" * 40
#: Values that cannot be an id.
IMPOSSIBLE = ["", '"', "a b", "a.b", "::ratelimit", "a" * 64, "a" * 129, "%0d%0a", "\xe9", "\\351"]


def cookies(*values: str) -> dict[str, str]:
    """Return the header of a request with these cookies."""
    return {"Cookie": "; ".join(f"{COOKIE}={value}" for value in values)}


def unknown(number: int) -> str:
    return f"{number:040x}"


# -- two applications ------------------------------------------------------------------------


def mounted(root: Any, admin: Any) -> TestApp:
    """Return a site that has one application at ``/`` and another one at ``/admin``."""

    def site(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"].startswith("/admin"):
            environ["SCRIPT_NAME"], environ["PATH_INFO"] = "/admin", environ["PATH_INFO"][6:]
            return admin(environ, start_response)
        return root(environ, start_response)

    return TestApp(site)


def run(site: TestApp, path: str, *operations: list[Any]) -> list[Any]:
    return site.post_json(path, list(operations)).json


@pytest.fixture(params=["one prefix", "two prefixes"])
def site(request: pytest.FixtureRequest, store: Store) -> TestApp:
    """Two applications with one cookie name and one store; the browser has a cookie of each."""
    prefix = store.options["key_prefix"] + request.param.removeprefix("one prefix")
    root = store.app(cookie_path="/").app
    site = mounted(root, store.app(cookie_path="/admin", key_prefix=prefix).app)
    run(site, "/admin/", ["set", "who", "admin"])
    run(site, "/", ["set", "who", "root"])
    return site


def test_two_applications_have_their_own_sessions(site: TestApp) -> None:
    for _ in range(2):
        assert run(site, "/admin/", ["get", "who"], ["set", "a", 1]) == ["admin", None]
        assert run(site, "/", ["get", "who"], ["get", "a"]) == ["root", None]


@pytest.mark.parametrize("is_read", [False, True], ids=["unread", "read"])
def test_logout_from_one_application_leaves_the_other_logged_in(
    site: TestApp, is_read: bool
) -> None:
    before = [["get", "who"]] if is_read else []
    run(site, "/admin/", *before, ["invalidate"])
    assert run(site, "/", ["get", "who"]) == ["root"]
    run(site, "/admin/", ["set", "who", "next"])
    run(site, "/", *before, ["invalidate"])
    assert run(site, "/", ["get", "who"]) == [None]


def test_new_id_of_one_application_leaves_the_other_alone(site: TestApp) -> None:
    run(site, "/admin/", ["regenerate"])
    assert run(site, "/admin/", ["get", "who"]) == ["admin"]
    assert run(site, "/", ["get", "who"]) == ["root"]


# -- which one is the session ----------------------------------------------------------------


@pytest.mark.parametrize("is_first", [True, False])
def test_stale_cookie_does_not_hide_the_session(store: Store, is_first: bool) -> None:
    """A cookie of the whole domain, for example, that nothing removes any more."""
    app, live = store.app(), new_session(store.factory(), a=1)
    header = cookies(UNKNOWN, live) if is_first else cookies(live, UNKNOWN)
    response = send(app, ["get", "a"], ["set", "b", 2], headers=header)
    assert response.json == [1, None]
    assert cookie_of(response) == live
    assert do(app, ["all"], headers=header) == [{"a": 1, "b": 2}]


def test_first_of_two_known_sessions_is_used(store: Store) -> None:
    app, factory = store.app(), store.factory()
    one, two = new_session(factory, who=1), new_session(factory, who=2)
    assert do(app, ["get", "who"], headers=cookies(one, two)) == [1]
    assert do(app, ["get", "who"], headers=cookies(two, one)) == [2]


def test_logout_ends_the_session_of_the_request_and_no_other(store: Store) -> None:
    app, factory = store.app(), store.factory()
    one, two = new_session(factory, who=1), new_session(factory, who=2)
    response = send(app, ["invalidate"], headers=cookies(UNKNOWN, one, two))
    assert cookie_of(response) == ""
    assert do(app, ["get", "who"], headers=cookies(one, two)) == [2]


def test_session_that_is_over_does_not_hide_the_next_one(store: Store) -> None:
    live = new_session(store.factory(), a=1)
    store.put("old", {"a": 0, "__kvs_created": 1})
    app = store.app(absolute_ttl=100)
    assert do(app, ["get", "a"], headers=cookies("old", live)) == [1]


def test_none_of_several_unknown_ids_is_adopted(store: Store) -> None:
    app, sent = store.app(), [unknown(n) for n in range(3)]
    response = send(app, ["set", "a", 1], headers=cookies(*sent))
    assert cookie_of(response) not in {None, "", *sent}
    assert [store.data(session_id) for session_id in sent] == [None] * 3


@pytest.mark.parametrize("hash_keys", ["accept", "migrate", True])
def test_second_cookie_is_found_under_each_of_its_keys(store: Store, hash_keys: Any) -> None:
    for is_hashed in {hash_keys is True, True}:
        live = new_session(store.factory(hash_keys=is_hashed), a=1)
        app = store.app(hash_keys=hash_keys)
        assert do(app, ["get", "a"], headers=cookies(UNKNOWN, live)) == [1]


# -- round trips -----------------------------------------------------------------------------


def lookups(redis: Store, server: RedisServer, values: list[str], **options: Any) -> Any:
    """Return the value of ``a`` for a request with these cookies, and how many keys were read."""
    app = make_app(redis.options, **options)
    do(app, ["get", "a"], headers=cookies(UNKNOWN))  # makes the connection, loads the scripts
    server.reset_calls()
    found = do(app, ["get", "a"], headers=cookies(*values))
    return found[0], server.calls().get("getex", 0)


def test_one_cookie_costs_one_lookup_and_two_cost_two(
    redis: Store, redis_server: RedisServer
) -> None:
    live = new_session(redis.factory(), a=1)
    assert lookups(redis, redis_server, [live]) == (1, 1)
    assert lookups(redis, redis_server, [live, UNKNOWN]) == (1, 1)
    assert lookups(redis, redis_server, [UNKNOWN, live]) == (1, 2)
    assert lookups(redis, redis_server, [live, live, live]) == (1, 1)


def test_impossible_values_cost_nothing(redis: Store, redis_server: RedisServer) -> None:
    live = new_session(redis.factory(), a=1)
    assert lookups(redis, redis_server, [*IMPOSSIBLE, live, *IMPOSSIBLE]) == (1, 1)
    assert lookups(redis, redis_server, IMPOSSIBLE) == (None, 0)


def test_500_cookies_cost_8_lookups(redis: Store, redis_server: RedisServer) -> None:
    live, forged = new_session(redis.factory(), a=1), [unknown(n) for n in range(499)]
    assert lookups(redis, redis_server, [*forged[:7], live, *forged[7:]]) == (1, 8)
    assert lookups(redis, redis_server, [*forged[:8], live, *forged[8:]]) == (None, 8)


def test_logout_with_one_cookie_reads_nothing(redis: Store, redis_server: RedisServer) -> None:
    app, live = redis.app(), new_session(redis.factory(), a=1)
    do(app, ["get", "a"], headers=cookies(live))
    redis_server.reset_calls()
    do(app, ["invalidate"], headers=cookies(live, *IMPOSSIBLE))
    assert redis_server.calls() == {"getdel": 1}


# -- with a rate limit -----------------------------------------------------------------------


def statuses(app: TestApp, *headers: dict[str, str]) -> list[int]:
    return [
        app.post_json("/", [["get", "a"]], headers=header, status="*").status_int
        for header in headers
    ]


@pytest.mark.parametrize("is_own_store", [False, True], ids=["sessions' store", "own store"])
def test_limit_counts_the_session_that_the_request_has(store: Store, is_own_store: bool) -> None:
    """A client cannot avoid the limit with other cookies before or after that of its session."""
    limit = {"limit": 3, "window": 600, **({"kvs": "memory"} if is_own_store else {})}
    app = make_app(store.options, **{"kvs.ratelimit": limit})
    live = new_session(store.factory(), a=1)
    sent = [cookies(unknown(n), live) if n % 2 else cookies(live, unknown(n)) for n in range(4)]
    assert statuses(app, *sent) == [200, 200, 200, 429]
    other = new_session(store.factory(), a=1)
    assert statuses(app, cookies(other), cookies(UNKNOWN, other)) == [200, 200]


def test_limit_counts_unknown_ids_by_address(store: Store) -> None:
    app = make_app(store.options, **{"kvs.ratelimit": {"limit": 3, "window": 600}})
    sent = [cookies(unknown(n), unknown(n + 100)) for n in range(4)]
    assert statuses(app, *sent) == [200, 200, 200, 429]


def test_limit_reads_each_candidate_once(redis: Store, redis_server: RedisServer) -> None:
    live = new_session(redis.factory(), a=1)
    limit = {"kvs.ratelimit": {"limit": 99, "window": 600}}
    assert lookups(redis, redis_server, [UNKNOWN, live], **limit) == (1, 2)
    assert lookups(redis, redis_server, [live, UNKNOWN], **limit) == (1, 1)

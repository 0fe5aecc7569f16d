"""Remembered sessions: ``remember_ttl`` and ``session.remember()``."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
from webtest import TestApp

from pyramid_kvs.exceptions import KVSNotSupported
from pyramid_kvs.session import SessionFactory
from tests.servers import MemcachedServer, RedisServer
from tests.session.apps import COOKIE, Store, Visit, cookie_of, do, make_app, new_session, send
from tests.session.conftest import make_store

OPTIONS = {"ttl": 300, "remember_ttl": 5000}
STEPS = [False, "accept", "migrate", True]


def max_age(response: Any) -> int | None:
    found = re.search("Max-Age=([0-9]+)", response.headers["Set-Cookie"])
    return int(found[1]) if found else None


def remembered(factory: SessionFactory, **values: Any) -> str:
    """Store a remembered session and return its id."""
    visit = Visit(factory)
    visit.session.update(values)
    visit.session.remember()
    session_id = cookie_of(visit.end())
    assert session_id
    return session_id


def left(store: Store, factory: SessionFactory, session_id: str) -> float:
    """Return the ttl that a session has in the store, under whichever key."""
    request = Visit(factory, session_id).request
    ttls = [store.driver.raw_ttl(lookup.key) for lookup in factory.lookups(request)]
    [found] = [ttl for ttl in ttls if ttl > 10]  # a session that has moved leaves something shorter
    return found


def shorten(store: Store, factory: SessionFactory, session_id: str, ttl: float) -> None:
    for lookup in factory.lookups(Visit(factory, session_id).request):
        store.driver.raw_expire(lookup.key, ttl)


@pytest.fixture
def timed(store: Store, request: pytest.FixtureRequest) -> Store:
    """Each store, and how it tells a ttl; the driver of memcached cannot."""
    if store.kvs == "memcache":
        server = request.getfixturevalue("memcached_server")
        store.driver.raw_ttl = lambda key: _memcached_ttl(server, store.options["key_prefix"] + key)
    return store


def _memcached_ttl(server: MemcachedServer, key: str) -> float:
    reply = server.talk(f"mg {key} t\r\n".encode()).split()
    # A ttl may end up to a second late, because the server's clock ticks once a second.
    return float(reply[1][1:]) - 1 if reply[0] == b"HD" else -1.0


# -- through HTTP ----------------------------------------------------------------------------


@pytest.mark.parametrize("cookie_max_age", [None, 100, "session"])
def test_login_with_remember_me(store: Store, cookie_max_age: Any) -> None:
    app = store.app(**OPTIONS, cookie_max_age=cookie_max_age)
    ordinary = {None: 300, 100: 100, "session": None}[cookie_max_age]
    assert max_age(send(app, ["set", "cart", [1]])) == ordinary
    before = app.cookies[COOKIE]
    response = send(app, ["regenerate"], ["set", "user", 7], ["remember"])
    assert max_age(response) == 5000
    assert app.cookies[COOKIE] != before
    response = send(app, ["all"])
    assert response.json == [{"cart": [1], "user": 7}]
    assert max_age(response) == 5000
    assert do(app, ["get", "user"], headers={"Cookie": f"{COOKIE}={before}"}) == [None]


def test_remember_false_ends_it(store: Store) -> None:
    app = store.app(**OPTIONS)
    do(app, ["set", "a", 1], ["remember"])
    response = send(app, ["remember", False])
    assert max_age(response) == 300
    assert re.fullmatch("[0-9a-f]{40}", app.cookies[COOKIE])
    assert max_age(send(app, ["get", "a"])) == 300


def test_logout_ends_it(store: Store) -> None:
    app = store.app(**OPTIONS)
    do(app, ["set", "a", 1], ["remember"])
    before = app.cookies[COOKIE]
    assert max_age(send(app, ["invalidate"])) == 0
    assert max_age(send(app, ["set", "a", 2])) == 300
    assert do(app, ["get", "a"], headers={"Cookie": f"{COOKIE}={before}"}) == [None]


def test_logout_and_a_new_session_in_one_request_is_not_remembered(store: Store) -> None:
    app = store.app(**OPTIONS)
    do(app, ["set", "a", 1], ["remember"])
    assert max_age(send(app, ["invalidate"], ["set", "a", 2])) == 300


def test_a_new_id_is_remembered_too(store: Store) -> None:
    app = store.app(**OPTIONS)
    do(app, ["set", "a", 1], ["remember"])
    before = app.cookies[COOKIE]
    assert max_age(send(app, ["regenerate"])) == 5000
    assert app.cookies[COOKIE] != before
    assert max_age(send(app, ["get", "a"])) == 5000


@pytest.mark.parametrize(
    ("operations", "is_remembered"),
    [
        ([["remember"], ["regenerate"]], True),
        ([["regenerate"], ["remember"]], True),
        ([["remember"], ["remember", False]], False),
        ([["remember"], ["remember", False], ["regenerate"]], False),
        ([["remember", False], ["remember"]], True),
    ],
    ids=str,
)
@pytest.mark.parametrize("was_remembered", [False, True])
def test_last_call_in_a_request_decides(
    store: Store, operations: list[Any], is_remembered: bool, was_remembered: bool
) -> None:
    app = store.app(**OPTIONS)
    do(app, ["set", "a", 1], *([["remember"]] if was_remembered else []))
    before = app.cookies[COOKIE]
    assert max_age(send(app, *operations)) == (5000 if is_remembered else 300)
    assert app.cookies[COOKIE] != before
    response = send(app, ["get", "a"])
    assert response.json == [1]
    assert max_age(response) == (5000 if is_remembered else 300)


@pytest.mark.parametrize("on", [True, False])
def test_nothing_happens_if_it_is_so_already(store: Store, on: bool) -> None:
    app = store.app(**OPTIONS)
    do(app, ["set", "a", 1], ["remember", on])
    before, stored = app.cookies[COOKIE], store.data(app.cookies[COOKIE])
    do(app, ["remember", on])
    assert app.cookies[COOKIE] == before
    assert store.data(before) == stored


def test_an_empty_session_is_not_stored(store: Store) -> None:
    app = store.app(**OPTIONS)
    assert "Set-Cookie" not in send(app, ["remember"]).headers


def test_the_csrf_token_of_open_forms_stays_valid(store: Store) -> None:
    app = store.app(**OPTIONS)
    [token] = do(app, ["csrf"])
    assert do(app, ["remember"], ["csrf"]) == [None, token]
    assert do(app, ["csrf"]) == [token]


@pytest.mark.parametrize("hash_keys", STEPS, ids=str)
def test_a_slower_request_does_not_bring_the_old_id_back(store: Store, hash_keys: Any) -> None:
    factory = store.factory(**OPTIONS, hash_keys=hash_keys)
    session_id = new_session(factory, a=1)
    slow, login = Visit(factory, session_id), Visit(factory, session_id)
    slow.session["late"] = 1
    login.session.remember()
    new_id = cookie_of(login.end())
    assert cookie_of(slow.end()) is None
    assert Visit(factory, session_id).session.get("a") is None
    assert Visit(factory, new_id).session["a"] == 1


def test_two_requests_remember_one_session(store: Store) -> None:
    factory = store.factory(**OPTIONS)
    session_id = new_session(factory, a=1)
    visits = [Visit(factory, session_id) for _ in range(2)]
    for visit in visits:
        visit.session.remember()
    ids = [cookie_of(visit.end()) for visit in visits]
    [known] = [new_id for new_id in ids if new_id and not Visit(factory, new_id).session.new]
    assert dict(Visit(factory, known).session) == {"a": 1}


# -- the lifetime in the store ---------------------------------------------------------------


@pytest.mark.parametrize("hash_keys", STEPS, ids=str)
def test_lifetime_in_the_store(timed: Store, hash_keys: Any) -> None:
    factory = timed.factory(**OPTIONS, hash_keys=hash_keys)
    session_id = remembered(factory, a=1)
    assert 4990 < left(timed, factory, session_id) <= 5000
    shorten(timed, factory, session_id, 50)
    visit = Visit(factory, session_id)
    assert visit.session["a"] == 1
    visit.end()
    assert 4900 < left(timed, factory, session_id) <= 5000, "a read"
    shorten(timed, factory, session_id, 50)
    visit = Visit(factory, session_id)
    visit.session["a"] = 2
    visit.end()
    assert 4900 < left(timed, factory, session_id) <= 5000, "a change"
    visit = Visit(factory, session_id)
    visit.session.remember(False)
    session_id = cookie_of(visit.end())
    assert 290 < left(timed, factory, session_id) <= 300


def test_it_outlives_the_ttl(store: Store) -> None:
    factory = store.factory(ttl=1, remember_ttl=600)
    session_id, other = remembered(factory, a=1), new_session(factory, a=1)
    end = time.monotonic() + 30
    while not Visit(factory, other).session.new and time.monotonic() < end:
        time.sleep(1.3)  # the read gives it another second
    assert Visit(factory, other).session.new
    assert Visit(factory, session_id).session["a"] == 1


@pytest.mark.parametrize(("before", "after"), [(False, "accept"), ("accept", "migrate")], ids=str)
def test_migration_keeps_the_lifetime(timed: Store, before: Any, after: Any) -> None:
    session_id = remembered(timed.factory(**OPTIONS, hash_keys=before), a=1)
    factory = timed.factory(**OPTIONS, hash_keys=after)
    visit = Visit(factory, session_id)
    assert visit.session["a"] == 1
    assert cookie_of(visit.end()) == session_id
    assert 4900 < left(timed, factory, session_id) <= 5000


def test_sessions_that_never_expire_beside_remembered_ones(timed: Store) -> None:
    app = timed.app(ttl=None, remember_ttl=5000)
    assert max_age(send(app, ["set", "a", 1])) is None
    assert timed.driver.raw_ttl(app.cookies[COOKIE]) < 0
    assert max_age(send(app, ["remember"])) == 5000
    assert 4900 < timed.driver.raw_ttl(app.cookies[COOKIE]) <= 5000


def test_absolute_ttl_ends_a_remembered_session(store: Store) -> None:
    factory = store.factory(**OPTIONS, absolute_ttl=6000)
    session_id = remembered(factory, a=1)
    assert Visit(factory, session_id).session["a"] == 1
    record = store.record(session_id)
    store.put(session_id, {**record, "__kvs_created": time.time() - 6001}, 5000)
    visit = Visit(factory, session_id)
    assert visit.session.new
    assert cookie_of(visit.end()) == ""
    assert store.data(session_id) is None


def test_without_the_option_remembered_sessions_are_ordinary_again(timed: Store) -> None:
    session_id = remembered(timed.factory(**OPTIONS), a=1)
    factory = timed.factory(ttl=300)
    shorten(timed, factory, session_id, 50)
    visit = Visit(factory, session_id)
    assert visit.session["a"] == 1
    assert max_age(visit.end()) == 300
    assert 290 < left(timed, factory, session_id) <= 300


# -- round trips -----------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [None, {"limit": 99, "window": 600}], ids=["", "rate limit"])
def test_a_read_is_one_round_trip_and_renews_it(
    redis: Store, redis_server: RedisServer, limit: Any
) -> None:
    app = make_app({**redis.options, **OPTIONS}, **{"kvs.ratelimit": limit})
    do(app, ["set", "a", 1], ["remember"])
    do(app, ["get", "a"])
    key = redis.options["key_prefix"] + app.cookies[COOKIE]
    redis_server.client.expire(key, 50)
    redis_server.reset_calls()
    assert do(app, ["get", "a"]) == [1]
    calls = redis_server.calls()
    assert calls["getex"] == 1
    assert calls.get("evalsha", 0) == (0 if limit is None else 1)
    assert 4900 < redis_server.client.ttl(key) <= 5000


def test_rate_limit_with_its_own_store_renews_it(redis: Store, redis_server: RedisServer) -> None:
    limit = {"limit": 99, "window": 600, "kvs": "memory"}
    app = make_app({**redis.options, **OPTIONS}, **{"kvs.ratelimit": limit})
    do(app, ["set", "a", 1], ["remember"])
    key = redis.options["key_prefix"] + app.cookies[COOKIE]
    redis_server.client.expire(key, 50)
    redis_server.reset_calls()
    assert do(app, ["get", "a"]) == [1]
    assert redis_server.calls() == {"getex": 1}
    assert 4900 < redis_server.client.ttl(key) <= 5000


# -- users -----------------------------------------------------------------------------------


def test_the_sessions_of_a_user_end_together(store: Store) -> None:
    app, other = store.app(**OPTIONS), store.app(**OPTIONS)
    do(app, ["set", "a", 1], ["bind", 7], ["remember"])
    do(other, ["set", "b", 1], ["bind", 7])
    do(other, ["end_all", 7])
    assert do(app, ["all"]) == [{}]


@pytest.mark.parametrize("name", ["memory", "redis", "postgresql"])
def test_last_seen_of_a_remembered_session(name: str, request: pytest.FixtureRequest) -> None:
    app = make_store(name, request).app(**OPTIONS, hash_keys=True)
    do(app, ["set", "a", 1], ["bind", 7], ["remember"])
    [[session]] = do(app, ["list", 7])
    assert abs(session["last_seen"] - time.time()) < 100


# -- workers of 1.0 --------------------------------------------------------------------------


@pytest.fixture(params=["redis", "memcache"])
def shared(request: pytest.FixtureRequest) -> Store:
    """The stores of 1.0."""
    return make_store(request.param, request)


def visit_version_1(store: Store, session_id: str, **values: Any) -> dict[str, Any]:
    """Do what 1.0 does: read the record by the cookie's value, write it back with its ttl."""
    record = json.loads(store.data(session_id) or "{}")
    store.put(session_id, {**record, **values}, 300)
    return record


def test_version_1_reads_and_changes_a_remembered_session(shared: Store) -> None:
    app = shared.app(**OPTIONS)
    do(app, ["set", "a", 1], ["bind", 7], ["remember"])
    session_id = app.cookies[COOKIE]
    for count in range(3):
        assert visit_version_1(shared, session_id, old=count)["a"] == 1
        response = send(app, ["all"], ["set", "new", count])
        assert response.json[0]["old"] == count
        assert max_age(response) == 5000
        assert app.cookies[COOKIE] == session_id
    assert visit_version_1(shared, session_id)["new"] == 2


def test_version_1_shortens_the_life_until_the_next_read(
    redis: Store, redis_server: RedisServer
) -> None:
    app = redis.app(**OPTIONS)
    do(app, ["set", "a", 1], ["remember"])
    key = redis.options["key_prefix"] + app.cookies[COOKIE]
    visit_version_1(redis, app.cookies[COOKIE])
    assert 290 < redis_server.client.ttl(key) <= 300
    assert do(app, ["get", "a"]) == [1]
    assert 4900 < redis_server.client.ttl(key) <= 5000


def test_logout_by_version_1_ends_a_remembered_session(shared: Store) -> None:
    app = shared.app(**OPTIONS)
    do(app, ["set", "a", 1], ["remember"])
    shared.put(app.cookies[COOKIE], {})
    assert do(app, ["all"]) == [{}]


# -- where it is not supported ---------------------------------------------------------------


@pytest.mark.parametrize("on", [True, False])
def test_it_needs_the_option(memory: Store, on: bool) -> None:
    session = Visit(memory.factory()).session
    with pytest.raises(KVSNotSupported, match="set remember_ttl in seconds"):
        session.remember(on)


@pytest.mark.parametrize("on", [True, False])
def test_header_sessions_are_not_remembered(memory: Store, on: bool) -> None:
    factory = memory.factory(session_type="header", key_name="X-T")
    with pytest.raises(KVSNotSupported, match="set ttl in kvs"):
        Visit(factory, X_T="t").session.remember(on)


def test_a_token_of_the_same_form_is_an_ordinary_one(redis: Store) -> None:
    factory = redis.factory(session_type="header", key_name="X-T", ttl=300)
    token = "r" + "0" * 40
    visit = Visit(factory, X_T=token)
    visit.session["a"] = 1
    visit.end()
    assert 290 < redis.driver.raw_ttl(f"x-t::{token}") <= 300


def test_no_client_can_choose_to_be_remembered(store: Store) -> None:
    app: TestApp = store.app(**OPTIONS)
    app.set_cookie(COOKIE, "r" + "0" * 40)
    assert max_age(send(app, ["set", "a", 1])) == 300
    assert app.cookies[COOKIE] != "r" + "0" * 40

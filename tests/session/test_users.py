"""List and end all sessions of a user."""

from __future__ import annotations

import hashlib
import threading
import time
from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.request import Request
from webtest import TestApp

from pyramid_kvs.exceptions import KVSNotSupported
from pyramid_kvs.session import SessionFactory, end_session, end_sessions, list_sessions
from tests.session.apps import (
    COOKIE,
    STORES,
    Store,
    Visit,
    cookie_of,
    do,
    new_session,
    overtake,
    run,
    send,
)
from tests.session.conftest import make_store

#: The key of the list of sessions, or of the epoch, of the user "u".
LIST_OF_U = "__kvs_user::" + hashlib.sha256(b"u").hexdigest()


@pytest.fixture(params=[name for name in STORES if name != "memcache"])
def lister(request: pytest.FixtureRequest) -> Store:
    """Each store that can list a user's sessions."""
    return make_store(request.param, request)


def log_in(factory: SessionFactory, user: Any, session_id: str | None = None) -> str:
    visit = Visit(factory, session_id)
    visit.session["user"] = user
    visit.session.bind(user)
    session_id = cookie_of(visit.end())
    assert session_id
    return session_id


def visit_of(factory: SessionFactory, session_id: str | None = None) -> Request:
    """Return a request with a session, for the functions that need one."""
    visit = Visit(factory, session_id)
    visit.request.session = visit.session
    visit.request.end = visit.end
    return visit.request


def is_alive(factory: SessionFactory, session_id: str) -> bool:
    return not Visit(factory, session_id).session.new


def test_listed_with_handle_and_times(lister: Store) -> None:
    factory = lister.factory(ttl=1000)
    first, second = log_in(factory, "u"), log_in(factory, "u")
    log_in(factory, "other")
    new_session(factory, nobody=1)
    found = list_sessions(visit_of(factory, second), "u")
    assert len(found) == 2
    assert [session.is_current for session in found].count(True) == 1
    assert len({session.handle for session in found}) == 2
    for session in found:
        assert abs(session.created - time.time()) < 60
        assert abs(session.last_seen - time.time()) < 100
        assert session.handle not in (first, second)
    assert first not in repr(found)
    assert second not in repr(found)


def test_listing_uses_the_session(lister: Store) -> None:
    app = lister.app()
    session_id = cookie_of(send(app, ["set", "a", 1], ["bind", "u"]))
    response = send(app, ["list", "u"])
    assert response.json[0][0]["is_current"] is True
    assert response.headers["Vary"] == "Cookie"
    assert cookie_of(response) == session_id


def test_last_seen_without_a_write(lister: Store) -> None:
    factory = lister.factory(ttl=1000)
    session_id = log_in(factory, "u")
    lister.driver.expire(session_id, 600)
    [found] = list_sessions(visit_of(factory), "u")
    assert 390 < time.time() - found.last_seen < 460


def test_last_seen_is_unknown_without_ttl(lister: Store) -> None:
    factory = lister.factory(ttl=None)
    log_in(factory, "u")
    [found] = list_sessions(visit_of(factory), "u")
    assert found.last_seen is None


def test_one_session_ended_by_handle(lister: Store) -> None:
    factory = lister.factory()
    first, second = log_in(factory, "u"), log_in(factory, "u")
    request = visit_of(factory, first)
    [handle] = [s.handle for s in list_sessions(request, "u") if not s.is_current]
    assert end_session(request, "other", handle) is False
    assert end_session(request, "u", handle) is True
    assert end_session(request, "u", handle) is False
    assert (is_alive(factory, first), is_alive(factory, second)) == (True, False)


def test_all_ended(store: Store) -> None:
    factory = store.factory()
    sessions = [log_in(factory, "u") for _ in range(3)]
    other, nobody = log_in(factory, "v"), new_session(factory, a=1)
    count = end_sessions(visit_of(factory), "u")
    assert count == (None if store.kvs == "memcache" else 3)
    assert not any(is_alive(factory, session_id) for session_id in sessions)
    assert is_alive(factory, other)
    assert is_alive(factory, nobody)
    assert is_alive(factory, log_in(factory, "u"))


def test_all_ended_except_the_current_one(store: Store) -> None:
    factory = store.factory()
    first, second = log_in(factory, "u"), log_in(factory, "u")
    request = visit_of(factory, first)
    end_sessions(request, "u", except_current=True)
    assert cookie_of(request.end()) in (first, None)
    assert is_alive(factory, first)
    assert not is_alive(factory, second)


def test_login_that_ends_all_others(store: Store) -> None:
    app, factory = store.app(), store.factory()
    old = log_in(factory, "u")
    do(app, ["set", "cart", 1])
    session_id = cookie_of(
        send(app, ["bind", "u"], ["regenerate"], ["end_all", "u", True], ["set", "x", 1])
    )
    assert do(app, ["all"]) == [{"cart": 1, "x": 1}]
    assert not is_alive(factory, old)
    assert is_alive(factory, session_id)


def test_ending_all_ends_the_current_one_too(store: Store) -> None:
    app = store.app()
    session_id = cookie_of(send(app, ["set", "a", 1], ["bind", "u"]))
    response = send(app, ["end_all", "u"], ["all"])
    assert response.json[1] == {}
    assert cookie_of(response) == ""
    assert store.data(session_id) is None


def test_bound_in_this_request_and_ended(store: Store) -> None:
    app = store.app()
    response = send(app, ["set", "a", 1], ["bind", "u"], ["end_all", "u"])
    assert not cookie_of(response)


def test_slow_request_does_not_bring_an_ended_session_back(store: Store) -> None:
    factory = store.factory()
    session_id = log_in(factory, "u")
    slow = Visit(factory, session_id)
    slow.session["late"] = 1
    end_sessions(visit_of(factory), "u")
    slow.end()
    assert not is_alive(factory, session_id)


def test_bound_before_and_saved_after_the_end(store: Store) -> None:
    factory = store.factory()
    slow = Visit(factory)
    slow.session["a"] = 1
    slow.session.bind("u")
    end_sessions(visit_of(factory), "u")
    session_id = cookie_of(slow.end())
    if store.kvs != "memcache":
        assert len(list_sessions(visit_of(factory), "u")) == 1
    end_sessions(visit_of(factory), "u")
    assert not is_alive(factory, session_id)


def test_end_between_the_index_and_the_session(lister: Store) -> None:
    """The save has listed the session, but not stored it yet, when all sessions are ended."""
    factory, ended = lister.factory(), []

    def end() -> None:
        ended.append(end_sessions(visit_of(lister.factory()), "u"))

    overtake(factory.driver, "raw_swap", end, unless="__kvs_user::")
    session_id = log_in(factory, "u")
    assert ended == [0]
    assert is_alive(factory, session_id)
    assert len(list_sessions(visit_of(factory), "u")) == 1


def test_regenerated_session_stays_listed_once(lister: Store) -> None:
    factory = lister.factory()
    visit = Visit(factory, log_in(factory, "u"))
    visit.session.regenerate_id()
    session_id = cookie_of(visit.end())
    assert len(list_sessions(visit_of(factory), "u")) == 1
    end_sessions(visit_of(factory), "u")
    assert not is_alive(factory, session_id)


def test_logout_removes_it_from_the_list(lister: Store) -> None:
    factory = lister.factory()
    one, two, three = (log_in(factory, "u") for _ in range(3))
    Visit(factory, one).session.invalidate()
    cleared = Visit(factory, two)
    cleared.session.clear()
    cleared.session["anonymous"] = 1
    cleared.end()
    [found] = list_sessions(visit_of(factory, three), "u")
    assert found.is_current


def test_bound_to_another_user(store: Store) -> None:
    factory = store.factory()
    session_id = log_in(factory, "v", log_in(factory, "u"))
    end_sessions(visit_of(factory), "u")
    assert is_alive(factory, session_id)
    end_sessions(visit_of(factory), "v")
    assert not is_alive(factory, session_id)


def test_number_and_its_string_are_one_user(memory: Store) -> None:
    factory = memory.factory()
    log_in(factory, 7)
    assert len(list_sessions(visit_of(factory), "7")) == 1


@pytest.mark.parametrize("user", [None, "", True, 1.5, b"u", ["u"]])
def test_refused_user_ids(memory: Store, user: Any) -> None:
    with pytest.raises(TypeError, match="user id"):
        Visit(memory.factory()).session.bind(user)


def test_user_id_is_not_stored(memory: Store) -> None:
    visit = Visit(memory.factory())
    visit.session.bind("zoe@example.org")
    visit.end()
    keys = memory.driver.get_keys()
    assert len(keys) == 2
    assert "zoe" not in "".join(keys + [str(memory.data(key)) for key in keys])


def test_binding_again_writes_nothing(memory: Store) -> None:
    factory = memory.factory()
    session_id = log_in(factory, "u")
    before = memory.data(session_id)
    visit = Visit(factory, session_id)
    visit.session.bind("u")
    visit.end()
    assert memory.data(session_id) == before


def test_dead_sessions_are_pruned(memory: Store) -> None:
    factory = memory.factory()
    key = LIST_OF_U
    memory.put(key, {f"{number:040x}": 1000.0 for number in range(47)})
    session_id = log_in(factory, "u")
    assert list(memory.record(key)) == [session_id]


def test_list_outlives_sessions_that_are_read(memory: Store) -> None:
    """A session that is in use is entered again when its entry is old."""
    factory = memory.factory(ttl=300)
    session_id = log_in(factory, "u")
    key = LIST_OF_U
    assert memory.driver.ttl_of(key) > 29 * 86400
    record = memory.record(session_id)
    memory.put(session_id, {**record, "__kvs_user_at": record["__kvs_user_at"] - 16 * 86400})
    memory.driver.delete(key)
    visit = Visit(factory, session_id)
    visit.session.get("a")
    visit.end()
    assert list(memory.record(key)) == [session_id]


def test_garbage_in_the_list_does_not_stop_a_login(
    memory: Store, caplog: pytest.LogCaptureFixture
) -> None:
    key = LIST_OF_U
    memory.put(key, "\x80garbage")
    session_id = log_in(memory.factory(), "u")
    assert list(memory.record(key)) == [session_id]
    assert len(caplog.records) == 1


def test_memcached_cannot_list(request: pytest.FixtureRequest) -> None:
    factory = make_store("memcache", request).factory()
    with pytest.raises(KVSNotSupported, match="memcache"):
        list_sessions(visit_of(factory), "u")
    with pytest.raises(KVSNotSupported, match="all sessions at once"):
        end_session(visit_of(factory), "u", "handle")


def test_lost_epoch_ends_sessions(request: pytest.FixtureRequest) -> None:
    store = make_store("memcache", request)
    factory = store.factory()
    session_id = log_in(factory, "u")
    store.driver.delete(LIST_OF_U)
    assert not is_alive(factory, session_id)


def test_garbage_instead_of_the_epoch(request: pytest.FixtureRequest) -> None:
    store = make_store("memcache", request)
    factory = store.factory()
    before = log_in(factory, "u")
    store.put(LIST_OF_U, "\x80garbage")
    assert not is_alive(factory, before)
    after = log_in(factory, "u")
    assert (is_alive(factory, before), is_alive(factory, after)) == (False, True)


@pytest.mark.parametrize("hash_keys", [True, "migrate"])
def test_with_hashed_keys(lister: Store, hash_keys: Any) -> None:
    factory = lister.factory(hash_keys=hash_keys)
    first, second = log_in(factory, "u"), log_in(factory, "u")
    end_sessions(visit_of(factory, first), "u", except_current=True)
    assert (is_alive(factory, first), is_alive(factory, second)) == (True, False)


def test_header_sessions(lister: Store) -> None:
    factory = lister.factory(session_type="header", key_name="X-T")
    for token in ("one", "two"):
        visit = Visit(factory, X_T=token)
        visit.session.bind("u")
        visit.end()
    request = visit_of(factory)
    assert len(list_sessions(request, "u")) == 2
    assert end_sessions(request, "u") == 2
    assert Visit(factory, X_T="one").session.new


def test_logins_at_once_are_all_listed(lister: Store) -> None:
    factory = lister.factory()
    threads = [threading.Thread(target=log_in, args=(factory, "u")) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    request = visit_of(factory)
    assert len(list_sessions(request, "u")) == 20
    assert end_sessions(request, "u") == 20


def test_end_over_http(lister: Store) -> None:
    config = Configurator(settings={"kvs.session": lister.options})
    config.include("pyramid_kvs")
    config.add_view(run, renderer="json")
    wsgi = config.make_wsgi_app()
    phone, laptop = TestApp(wsgi), TestApp(wsgi)
    for app in (phone, laptop):
        do(app, ["set", "user", "u"], ["bind", "u"])
    [listed] = do(laptop, ["list", "u"])
    assert len(listed) == 2
    do(laptop, ["end_all", "u", True])
    assert do(phone, ["all"]) == [{}]
    assert do(laptop, ["all"]) == [{"user": "u"}]
    assert COOKIE in laptop.cookies

"""List and end all sessions of a user."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response
from webtest import TestApp

from pyramid_kvs.exceptions import KVSNotSupported
from pyramid_kvs.kvs import KVS
from pyramid_kvs.session import SessionFactory, end_session, end_sessions, list_sessions
from pyramid_kvs.session.users import UserIndex
from pyramid_kvs.session.users.shards import SHARDS
from tests.servers import RedisServer
from tests.session.apps import (
    COOKIE,
    Store,
    Visit,
    cookie_of,
    do,
    make_app,
    new_session,
    overtake,
    run,
    send,
)
from tests.session.conftest import make_store
from tests.stores import STORES, without

#: The beginning of the keys of the index, or the key of the epoch, of the user "u".
LIST_OF_U = "__kvs_user::" + hashlib.sha256(b"u").hexdigest()


@pytest.fixture(params=without(STORES, "memcache"))
def lister(request: pytest.FixtureRequest) -> Store:
    """Each store that can list a user's sessions."""
    return make_store(request.param, request)


class CompressedJSON:
    """A codec whose data do not show the keys."""

    def dumps(self, value: Any) -> bytes:
        return zlib.compress(json.dumps(value).encode())

    def loads(self, data: bytes) -> Any:
        return json.loads(zlib.decompress(data))


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


def test_an_empty_user_id_is_named(memory: Store) -> None:
    with pytest.raises(TypeError, match="not an empty string"):
        Visit(memory.factory()).session.bind("")


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


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Move the clock of the application, but not that of the store."""
    now = time.time() + seconds
    monkeypatch.setattr(time, "time", lambda: now)


def shards(store: Store) -> dict[str, dict[str, Any]]:
    """Return the index of the user "u", by key."""
    keys = [f"{LIST_OF_U}::{number}" for number in range(SHARDS)]
    return {key: record for key in keys if (record := store.record(key)) is not None}


def entries(store: Store) -> dict[str, Any]:
    return {key: at for shard in shards(store).values() for key, at in shard.items()}


def has_index(store: Store) -> bool:
    keys = [f"{LIST_OF_U}::{number}" for number in range(SHARDS)]
    return bool(store.driver.raw_get_many(keys))


def drop_index(store: Store) -> None:
    store.driver.delete_many([f"{LIST_OF_U}::{number}" for number in range(SHARDS)])
    assert not has_index(store)


def test_login_rewrites_a_small_part_of_the_index(lister: Store) -> None:
    factory = lister.factory()
    enter(lister, *(f"{number:040x}" for number in range(600)))
    before = shards(lister)
    assert len(before) == SHARDS
    session_id = log_in(factory, "u")
    changed = {key for key, shard in shards(lister).items() if shard != before[key]}
    assert len(changed) == 1
    assert all(len(shard) < 60 for shard in before.values())
    assert session_id in entries(lister)


def test_login_takes_two_round_trips_more(redis: Store, redis_server: RedisServer) -> None:
    factory = redis.factory()
    for _ in range(40):
        log_in(factory, "u")
    redis_server.reset_calls()
    new_session(factory, a=1)
    without = redis_server.calls()
    redis_server.reset_calls()
    log_in(factory, "u")
    # One more GET, and one more script, which runs GET and SET.
    assert redis_server.calls() == {"evalsha": 2, "get": without["get"] + 2, "set": 2}


def test_round_trips_do_not_depend_on_the_number_of_sessions(
    redis: Store, redis_server: RedisServer
) -> None:
    factory = redis.factory()
    for _ in range(150):
        log_in(factory, "u")
    session_id = log_in(factory, "u")

    def reads() -> int:
        return int(redis_server.command("INFO", "stats")["total_reads_processed"])

    request = visit_of(factory, session_id)
    redis_server.reset_calls()
    before = reads()
    assert len(list_sessions(request, "u")) == 151
    # The index, the sessions, the session of this request, and 151 ttls with one send.
    assert redis_server.calls() == {"mget": 2, "getex": 1, "pttl": 151}
    assert reads() - before < 12
    redis_server.reset_calls()
    before = reads()
    assert end_sessions(request, "u", except_current=True) == 150
    # The index and the sessions twice, because a session may have moved before it was removed.
    assert redis_server.calls() == {"mget": 4, "unlink": 1}
    assert reads() - before < 12


def enter(store: Store, *keys: str, its_ttl: float | None = None, **options: Any) -> None:
    """Enter sessions in the index of the user "u"."""
    index = UserIndex(store.factory(**options)._backend.store)
    for key in keys:
        index.enter(hashlib.sha256(b"u").hexdigest(), key, {}, its_ttl)


def test_entries_of_ended_sessions_are_dropped_by_age(lister: Store) -> None:
    session_id = log_in(lister.factory(ttl=100), "u")
    [(key, shard)] = shards(lister).items()
    now = int(time.time())
    old, recent = f"{1:040x}", f"{2:040x}"
    lister.put(key, {**shard, old: now - 221, recent: now - 200})
    enter(lister, session_id, ttl=100)
    assert entries(lister).keys() == {session_id, recent}


@pytest.mark.parametrize(("ttl", "absolute_ttl"), [(100, None), (None, 100), (100, 5000)])
def test_index_expires_after_the_last_session(
    lister: Store, ttl: float | None, absolute_ttl: float | None
) -> None:
    log_in(lister.factory(ttl=ttl, absolute_ttl=absolute_ttl), "u")
    [key] = shards(lister)
    assert 210 < lister.driver.ttl_of(key) <= 221


def test_session_with_another_ttl(lister: Store) -> None:
    factory = lister.factory(ttl=100)
    session_id = log_in(factory, "u")
    enter(lister, session_id, its_ttl=5000, ttl=100)
    [key] = shards(lister)
    assert 5100 < lister.driver.ttl_of(key) <= 5121
    lister.driver.expire(session_id, 4000)
    [found] = list_sessions(visit_of(factory), "u")
    assert 990 < time.time() - found.last_seen < 1060
    assert end_sessions(visit_of(factory), "u") == 1


def test_without_any_ttl_ended_sessions_are_looked_for_now_and_then(lister: Store) -> None:
    session_id = log_in(lister.factory(ttl=None), "u")
    [(key, shard)] = shards(lister).items()
    assert lister.driver.ttl_of(key) < 0
    lister.put(key, {**shard, **{f"{number:040x}": 1000 for number in range(14)}}, None)
    enter(lister, session_id, ttl=None)
    assert list(entries(lister)) == [session_id]


def test_dropped_index_comes_back_while_a_session_is_in_use(
    lister: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    factory = lister.factory()
    in_use, idle = log_in(factory, "u"), log_in(factory, "u")
    drop_index(lister)
    later(monkeypatch, 61)
    visit = Visit(factory, in_use)
    assert visit.session["user"] == "u"
    visit.end()
    assert list(entries(lister)) == [in_use]
    assert end_sessions(visit_of(factory), "u") == 1
    assert (is_alive(factory, in_use), is_alive(factory, idle)) == (False, True)


def test_session_in_use_is_entered_once_a_minute(
    redis: Store, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = redis.app()
    do(app, ["set", "a", 1], ["bind", "u"])
    for seconds, is_entered in ((50, False), (15, True), (50, False), (15, True)):
        later(monkeypatch, seconds)
        redis_server.reset_calls()
        for _ in range(3):
            do(app, ["get", "a"])
        calls = redis_server.calls()
        assert calls["getex"] == 3
        assert calls.get("evalsha", 0) == (2 if is_entered else 0)


def test_change_in_the_request_that_enters_the_session_again(
    lister: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = lister.app()
    session_id = cookie_of(send(app, ["set", "a", [1]], ["bind", "u"]))
    later(monkeypatch, 61)
    do(app, ["append", "a", 2])
    assert do(app, ["get", "a"]) == [[1, 2]]
    assert abs(lister.record(session_id)["__kvs_user_at"] - time.time()) < 2


def test_logout_while_the_session_is_entered_again(
    lister: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    factory, other = lister.factory(), lister.factory()
    session_id = log_in(factory, "u")
    later(monkeypatch, 61)
    overtake(
        factory.driver,
        "raw_swap",
        lambda: Visit(other, session_id).session.invalidate(),
        unless="__kvs_user::",
    )
    visit = Visit(factory, session_id)
    assert visit.session["user"] == "u"
    visit.session["late"] = 1
    visit.end()
    assert not is_alive(other, session_id)


@pytest.mark.parametrize("codec", ["json", "zjson"])
@pytest.mark.parametrize("path", ["/ping", "/crash", "/nowhere"])
def test_session_that_only_a_rate_limit_reads_is_entered_again(
    lister: Store, monkeypatch: pytest.MonkeyPatch, path: str, codec: str
) -> None:
    """The limit renews its ttl, so that it must be found."""

    def crash(request: Request) -> Response:
        raise ZeroDivisionError

    def configure(config: Configurator) -> None:
        config.add_kvs_codec("zjson", CompressedJSON())
        for name, view in (("ping", lambda request: Response("pong")), ("crash", crash)):
            config.add_route(name, f"/{name}")
            config.add_view(view, route_name=name)

    options = {**lister.options, "codec": codec}
    app = make_app(options, configure, **{"kvs.ratelimit": {"limit": 100, "window": 60}})
    later(monkeypatch, 0)  # stops the clock
    session_id = cookie_of(send(app, ["set", "a", 1], ["bind", "u"]))
    before = lister.driver.raw_get(session_id)
    for seconds, is_entered in ((50, False), (15, True), (50, False)):
        drop_index(lister)
        later(monkeypatch, seconds)
        with contextlib.suppress(ZeroDivisionError):
            response = app.get(path, expect_errors=True)
            assert "Set-Cookie" not in response.headers
        assert has_index(lister) is is_entered
        assert (lister.driver.raw_get(session_id) != before) is is_entered
        before = lister.driver.raw_get(session_id)
    later(monkeypatch, 61)
    app.get("/ping")
    assert do(app, ["end_all", "u"], ["all"]) == [1, {}]


def test_page_that_reads_does_not_fail_if_the_store_is_full(
    own_redis: Callable[..., RedisServer],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = own_redis("--maxmemory-policy", "noeviction")
    app = make_app({"kvs": "redis", "kvs_kwargs": {"url": server.url}})
    session_id = cookie_of(send(app, ["set", "a", 1], ["bind", "u"]))
    server.command("CONFIG", "SET", "maxmemory", "1")
    later(monkeypatch, 61)
    for _ in range(2):
        assert do(app, ["get", "a"]) == [1]
    [record] = [record for record in caplog.records if "entered again" in record.getMessage()]
    assert "KVSUnavailable" in record.getMessage()
    assert session_id not in caplog.text


def test_full_redis_that_drops_the_index(
    own_redis: Callable[..., RedisServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = own_redis("--maxmemory-policy", "allkeys-lru", "--maxmemory-samples", "64")
    factory = SessionFactory({"kvs": "redis", "kvs_kwargs": {"url": server.url}, "ttl": 3600})
    session_id = log_in(factory, "u")
    keys = [f"session::{LIST_OF_U}::{number}" for number in range(SHARDS)]
    [key] = [key for key in keys if server.command("EXISTS", key)]
    index = server.command("DUMP", key)
    server.command("RESTORE", key, 10**7, index, "REPLACE", "IDLETIME", 1000)
    used = int(server.command("INFO", "memory")["used_memory"])
    server.command("CONFIG", "SET", "maxmemory", str(used + 300_000))
    server.command("SET", "filler", "x" * 10_000)
    filler = server.command("DUMP", "filler")
    for number in range(100):
        server.command("RESTORE", f"filler{number}", 0, filler, "IDLETIME", 500)
    assert not server.command("EXISTS", key)
    assert end_sessions(visit_of(factory), "u") == 0
    later(monkeypatch, 61)
    assert is_alive(factory, session_id)
    assert end_sessions(visit_of(factory), "u") == 1
    assert not is_alive(factory, session_id)


def before_call(driver: KVS, number: int, action: Callable[[], Any]) -> list[str]:
    """Run an action before the call of a driver's hook with this number; return the calls.

    Calls of one hook by another do not count.
    """
    calls: list[str] = []
    running: list[str] = []

    def wrap(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            if running:
                return original(*args)
            calls.append(name)
            if len(calls) == number:
                action()
            running.append(name)
            try:
                return original(*args)
            finally:
                running.clear()

        return call

    for name in ("raw_load", "raw_load_many", "raw_swap", "raw_delete", "raw_delete_many"):
        setattr(driver, name, wrap(name, getattr(driver, name)))
    return calls


def move(factory: SessionFactory, session_id: str, moved: list[str]) -> None:
    """Give a session a new id, and add it to a list."""
    visit = Visit(factory, session_id)
    visit.session.regenerate_id()
    moved.append(cookie_of(visit.end()) or "")


@pytest.mark.parametrize("except_current", [False, True])
def test_move_at_the_same_time(lister: Store, except_current: bool) -> None:
    """Another request of the session gives it a new id, before each step of the end."""
    for number in range(1, 20):
        one, two = lister.factory(), lister.factory()
        session_id, other_id = log_in(two, "u"), log_in(two, "u")
        moved: list[str] = []
        request = visit_of(one, session_id)
        assert request.session["user"] == "u"
        calls = before_call(one.driver, number, partial(move, two, session_id, moved))
        end_sessions(request, "u", except_current)
        ids = [session_id, *filter(None, moved)]
        alive = [session_id for session_id in ids if is_alive(two, session_id)]
        assert len(alive) == except_current
        assert not is_alive(two, other_id)
        if len(calls) < number:
            break
    assert number > 3


def test_key_that_is_written_while_the_sessions_are_ended(lister: Store) -> None:
    """It is in the index already, but the session is not there when the end looks for it."""
    mover, ender = lister.factory(), lister.factory()
    session_id, moved = log_in(mover, "u"), list[Any]()
    entered, go_on = threading.Event(), threading.Event()

    def pause() -> None:
        entered.set()
        assert go_on.wait(60)

    visit = Visit(mover, session_id)
    visit.session.regenerate_id()
    overtake(mover.driver, "raw_swap", pause, unless="__kvs_user::")
    thread = threading.Thread(target=lambda: moved.append(cookie_of(visit.end())))
    thread.start()
    assert entered.wait(60)
    delete = ender.driver.raw_delete_many

    def delete_late(keys: list[str]) -> None:
        go_on.set()
        thread.join(60)
        delete(keys)

    ender.driver.raw_delete_many = delete_late
    end_sessions(visit_of(ender), "u")
    assert moved[0] != session_id
    assert not is_alive(mover, moved[0])


def test_handle_of_a_session_that_moves_at_the_same_time(lister: Store) -> None:
    for number in range(1, 20):
        one, two = lister.factory(), lister.factory()
        session_id, other_id = log_in(two, "u"), log_in(two, "u")
        request, moved = visit_of(one, other_id), list[str]()
        [handle] = [found.handle for found in list_sessions(request, "u") if not found.is_current]
        calls = before_call(one.driver, number, partial(move, two, session_id, moved))
        assert end_session(request, "u", handle) is True
        assert not any(is_alive(two, session_id) for session_id in (session_id, *moved))
        assert is_alive(two, other_id)
        end_sessions(request, "u")
        if len(calls) < number:
            break
    assert number > 2


def test_garbage_in_the_index_does_not_stop_a_login(
    lister: Store, caplog: pytest.LogCaptureFixture
) -> None:
    for garbage in ("\x80garbage", [1], {"a": []}, {"a": [1]}, {"a": "x"}, {"a": 10**400}):
        for number in range(SHARDS):
            lister.put(f"{LIST_OF_U}::{number}", garbage)
        factory = lister.factory()
        log_in(factory, "u")
        assert len(list_sessions(visit_of(factory), "u")) == 1
        drop_index(lister)
    assert "does not decode" in caplog.text
    assert len(caplog.records) == 6  # once a minute and application


def test_memcached_cannot_list(request: pytest.FixtureRequest) -> None:
    factory = make_store("memcache", request).factory()
    with pytest.raises(KVSNotSupported, match=r"memcache driver cannot list .*: use end_sessions"):
        list_sessions(visit_of(factory), "u")
    with pytest.raises(KVSNotSupported, match=r"cannot end one session .*: use end_sessions"):
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

"""Sessions over HTTP, on each store."""

from __future__ import annotations

import json
import re

import pytest

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

ID = re.compile(r"[0-9a-f]{40}")


def test_next_request_finds_the_value(store: Store) -> None:
    app = store.app()
    do(app, ["set", "name", "Zoë ✓"])
    assert do(app, ["get", "name"], ["new"]) == ["Zoë ✓", False]


def test_untouched_session_costs_nothing(store: Store) -> None:
    response = send(store.app(), ["nothing"])
    assert "Set-Cookie" not in response.headers
    assert "Vary" not in response.headers


def test_empty_new_session_is_not_stored(store: Store) -> None:
    response = send(store.app(), ["all"], ["new"])
    assert response.json == [{}, True]
    assert "Set-Cookie" not in response.headers
    assert response.headers["Vary"] == "Cookie"


def test_cookie_is_sent_again_when_read(store: Store) -> None:
    app = store.app()
    first = cookie_of(send(app, ["set", "a", 1]))
    assert ID.fullmatch(first)
    assert cookie_of(send(app, ["get", "a"])) == first


def test_change_inside_a_value_is_saved(store: Store) -> None:
    app = store.app()
    do(app, ["set", "cart", {"items": [{"n": 1}]}])
    do(app, ["nest", "cart", "paid", True])
    assert do(app, ["get", "cart"]) == [{"items": [{"n": 1}], "paid": True}]


def test_stored_as_flat_json(store: Store) -> None:
    response = send(store.app(), ["set", "a", "é"], ["flash", "hi", "q"], ["csrf"])
    session_id = cookie_of(response)
    record = store.record(session_id)
    assert record["a"] == "é"
    assert record["_f_q"] == ["hi"]
    assert record["__csrf_token"] == response.json[2]
    assert {key for key in record if key.startswith("__kvs_")} == {"__kvs_created"}
    assert store.data(session_id) == json.dumps(record)


def test_invalidate_removes_and_expires_the_cookie(store: Store) -> None:
    app = store.app()
    session_id = cookie_of(send(app, ["set", "a", 1]))
    response = send(app, ["get", "a"], ["invalidate"], ["all"], ["new"])
    assert response.json == [1, None, {}, True]
    assert cookie_of(response) == ""
    assert "Max-Age=0" in response.headers["Set-Cookie"]
    assert COOKIE not in app.cookies
    assert store.data(session_id) is None


def test_invalidate_removes_a_session_that_was_not_read(store: Store) -> None:
    app = store.app()
    session_id = cookie_of(send(app, ["set", "a", 1]))
    send(app, ["invalidate"])
    assert store.data(session_id) is None


def test_change_after_invalidate_is_stored_under_a_new_id(store: Store) -> None:
    app = store.app()
    session_id = cookie_of(send(app, ["set", "a", 1]))
    second = cookie_of(send(app, ["invalidate"], ["set", "b", 2]))
    assert second != session_id
    assert store.data(session_id) is None
    assert do(app, ["all"]) == [{"b": 2}]


def test_regenerate_keeps_data_under_a_new_id(store: Store) -> None:
    app = store.app()
    response = send(app, ["set", "a", 1], ["csrf"])
    old, token = cookie_of(response), response.json[1]
    new = cookie_of(send(app, ["regenerate"]))
    assert new != old
    assert ID.fullmatch(new)
    assert not store.has_session(old)
    seen, new_token = do(app, ["get", "a"], ["csrf"])
    assert seen == 1
    assert new_token != token


def test_regenerate_after_a_change(store: Store) -> None:
    app = store.app()
    do(app, ["set", "a", 1])
    do(app, ["set", "user", "u"], ["regenerate"], ["delete", "a"])
    assert do(app, ["all"]) == [{"user": "u"}]


def test_cleared_session_leaves_the_store(store: Store) -> None:
    app = store.app()
    session_id = cookie_of(send(app, ["set", "a", 1]))
    response = send(app, ["clear"])
    assert store.data(session_id) is None
    assert cookie_of(response) == ""


def test_flash_is_shown_once(store: Store) -> None:
    app = store.app()
    do(app, ["flash", "one"], ["flash", "two"], ["flash", "two", "", False], ["flash", "x", "q"])
    assert do(app, ["peek_flash"]) == [["one", "two"]]
    assert do(app, ["pop_flash"], ["pop_flash"]) == [["one", "two"], []]
    assert do(app, ["pop_flash"], ["pop_flash", "q"]) == [[], ["x"]]


def test_undecodable_session_is_a_new_one(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    app, session_id = store.app(), "ab" * 20
    store.put(session_id, "\x80 not JSON")
    app.set_cookie(COOKIE, session_id)
    response = send(app, ["all"], ["set", "a", 1])
    assert response.json[0] == {}
    assert cookie_of(response) != session_id
    assert len(caplog.records) == 1
    assert session_id not in caplog.text
    assert "not JSON" not in caplog.text


@pytest.mark.parametrize("data", ["[1]", "null", '"text"', "12"])
def test_stored_data_that_is_not_an_object_is_a_new_session(memory: Store, data: str) -> None:
    app, session_id = memory.app(), "ab" * 20
    memory.put(session_id, data)
    app.set_cookie(COOKIE, session_id)
    assert do(app, ["all"], ["new"]) == [{}, True]


def test_pickle_codec_keeps_types(store: Store) -> None:
    factory = store.factory(codec="pickle", secret="s")
    session_id = new_session(factory, when={1, 2}, pair=(1, [2]))
    visit = Visit(factory, session_id)
    visit.session["when"].add(3)
    visit.end()
    again = Visit(factory, session_id).session
    assert again["when"] == {1, 2, 3}
    assert again["pair"] == (1, [2])


def test_pyramid_checks_csrf_tokens_of_the_session(store: Store) -> None:
    app = make_app(store.options, lambda config: config.set_default_csrf_options(require_csrf=True))
    session_id = new_session(store.factory(), __csrf_token="t0ken")
    app.set_cookie(COOKIE, session_id)
    send(app, ["nothing"], status=400)
    send(app, ["nothing"], headers={"X-CSRF-Token": "wrong"}, status=400)
    send(app, ["nothing"], headers={"X-CSRF-Token": "t0ken"}, status=200)


def test_absolute_ttl_ends_an_active_session(store: Store) -> None:
    app = store.app(absolute_ttl=1000)
    session_id = cookie_of(send(app, ["set", "a", 1]))
    record = store.record(session_id)
    store.put(session_id, {**record, "__kvs_created": record["__kvs_created"] - 999})
    assert do(app, ["get", "a"]) == [1]
    store.put(session_id, {**record, "__kvs_created": record["__kvs_created"] - 1001})
    response = send(app, ["get", "a"], ["new"])
    assert response.json == [None, True]
    assert cookie_of(response) == ""
    assert store.data(session_id) is None


def test_absolute_ttl_starts_when_an_old_session_is_first_seen(store: Store) -> None:
    app, session_id = store.app(absolute_ttl=1000), "ab" * 20
    store.put(session_id, {"a": 1})
    app.set_cookie(COOKIE, session_id)
    do(app, ["get", "a"])
    assert set(store.record(session_id)) == {"a", "__kvs_created"}


def test_ttl_null_never_expires(store: Store) -> None:
    app = store.app(ttl=None)
    response = send(app, ["set", "a", 1])
    assert "Max-Age" not in response.headers["Set-Cookie"]
    assert do(app, ["get", "a"]) == [1]
    if store.kvs != "memcache":
        assert store.driver.ttl_of(cookie_of(response)) < 0


def test_reading_renews_the_ttl(store: Store) -> None:
    if store.kvs == "memcache":
        pytest.skip("memcached cannot tell the ttl of a key")
    app = store.app(ttl=1000)
    session_id = cookie_of(send(app, ["set", "a", 1]))
    store.driver.expire(session_id, 100)
    do(app, ["get", "a"])
    assert store.driver.ttl_of(session_id) > 900

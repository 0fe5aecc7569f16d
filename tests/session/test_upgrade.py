"""Versions 1.0 and 2.0 read each other's sessions, byte by byte."""

from __future__ import annotations

import json

import pytest

from tests.session.apps import COOKIE, Store, Visit, do, send
from tests.session.conftest import make_store

ID = "356a192b7913b04c54574d18c28d46e6395428ab"

#: A cookie session with a CSRF token, flash messages and text that is not ASCII.
COOKIE_RECORD = (
    b'{"user": "zo\\u00eb", "n": 1, "cart": [{"sku": "A1", "price": 9.5}], "none": null, '
    b'"__csrf_token": "0123456789abcdef0123456789abcdef01234567", '
    b'"_f_": ["Hello"], "_f_error": ["Oh no"]}'
)
#: A session with the header X-Dummy_Token.
HEADER_RECORD = b'{"account": 7}'
#: The record after a logout.
LOGGED_OUT = b"{}"

CONTENT = {
    "user": "zoë",
    "n": 1,
    "cart": [{"sku": "A1", "price": 9.5}],
    "none": None,
    "__csrf_token": "0123456789abcdef0123456789abcdef01234567",
    "_f_": ["Hello"],
    "_f_error": ["Oh no"],
}


@pytest.fixture(params=["redis", "memcache"])
def old(request: pytest.FixtureRequest) -> Store:
    """The stores of version 1.0, with its prefix, and filled in the way that it did."""
    store = make_store(request.param, request)
    store.options["key_prefix"] = "session::"
    if request.param == "redis":
        server = request.getfixturevalue("redis_server")
        store.fill = lambda key, data: server.command("SETEX", key, 300, data)
        store.read = lambda key: server.command("GET", key)
    else:
        server = request.getfixturevalue("memcached_server")
        store.fill = lambda key, data: _set(server, key, data)
        store.read = lambda key: _get(server, key)
    return store


def _set(server, key: str, data: bytes) -> None:
    """Store a string with flag 16, as python-memcached does."""
    line = f"set {key} 16 300 {len(data)}\r\n".encode()
    assert server.talk(line + data + b"\r\n") == b"STORED\r\n"


def _get(server, key: str) -> bytes:
    head, _, rest = server.talk(f"get {key}\r\n".encode()).partition(b"\r\n")
    assert head.split()[2] in (b"0", b"16")
    return rest.removesuffix(b"\r\nEND\r\n")


def test_cookie_session_is_read(old: Store) -> None:
    old.fill(f"session::{ID}", COOKIE_RECORD)
    app = old.app()
    app.set_cookie(COOKIE, ID)
    assert do(app, ["all"], ["new"]) == [CONTENT, False]
    assert do(app, ["peek_flash", "error"], ["csrf"]) == [["Oh no"], CONTENT["__csrf_token"]]
    assert old.read(f"session::{ID}") == COOKIE_RECORD


def test_header_session_is_read(old: Store) -> None:
    old.fill("session::x-dummy-token::t0k", HEADER_RECORD)
    app = old.app(session_type="header", key_name="X-Dummy_Token")
    assert do(app, ["all"], headers={"X-Dummy-Token": "t0k"}) == [{"account": 7}]


def test_change_is_written_as_version_1_would(old: Store) -> None:
    old.fill(f"session::{ID}", COOKIE_RECORD)
    app = old.app()
    app.set_cookie(COOKIE, ID)
    do(app, ["set", "n", 2], ["set", "new", "é"], ["pop_flash"])
    data = old.read(f"session::{ID}")
    record = json.loads(data)
    assert data == json.dumps(record).encode()
    assert record.pop("__kvs_created") > 0
    expected = {**CONTENT, "n": 2, "new": "é"}
    del expected["_f_"]
    assert record == expected


def test_version_1_writes_between_load_and_save(old: Store) -> None:
    factory = old.factory()
    old.fill(f"session::{ID}", COOKIE_RECORD)
    visit = Visit(factory, ID)
    visit.session["mine"] = 1
    old.fill(f"session::{ID}", json.dumps({**CONTENT, "theirs": 1}).encode())
    visit.end()
    assert dict(Visit(factory, ID).session) == {**CONTENT, "mine": 1, "theirs": 1}


def test_version_1_writes_back_what_it_loaded_before(old: Store) -> None:
    """It had read the session before 2.0 added metadata."""
    factory = old.factory()
    old.fill(f"session::{ID}", COOKIE_RECORD)
    first = Visit(factory, ID)
    first.session["first"] = 1
    first.end()
    visit = Visit(factory, ID)
    visit.session["mine"] = 1
    old.fill(f"session::{ID}", json.dumps({**CONTENT, "theirs": 1}).encode())
    visit.end()
    assert dict(Visit(factory, ID).session) == {**CONTENT, "mine": 1, "theirs": 1}


def test_version_1_logs_out_between_load_and_save(old: Store) -> None:
    old.fill(f"session::{ID}", COOKIE_RECORD)
    visit = Visit(old.factory(), ID)
    visit.session["late"] = 1
    old.fill(f"session::{ID}", LOGGED_OUT)
    visit.end()
    assert old.read(f"session::{ID}") == LOGGED_OUT


def test_logged_out_session_can_be_used_again(old: Store) -> None:
    old.fill(f"session::{ID}", LOGGED_OUT)
    app = old.app()
    app.set_cookie(COOKIE, ID)
    assert do(app, ["all"], ["set", "a", 1]) == [{}, None]
    assert do(app, ["all"]) == [{"a": 1}]


def test_old_session_gets_a_new_id_at_login(old: Store) -> None:
    old.fill(f"session::{ID}", COOKIE_RECORD)
    app = old.app()
    app.set_cookie(COOKIE, ID)
    send(app, ["regenerate"], ["bind", 7])
    assert do(app, ["get", "user"]) == ["zoë"]
    assert app.cookies[COOKIE] != ID


def test_two_new_requests_change_one_old_session(old: Store) -> None:
    old.fill(f"session::{ID}", COOKIE_RECORD)
    factory = old.factory()
    one, two = Visit(factory, ID), Visit(factory, ID)
    one.session["one"] = 1
    two.session["two"] = 2
    one.end()
    two.end()
    assert dict(Visit(factory, ID).session) == {**CONTENT, "one": 1, "two": 2}


@pytest.mark.parametrize("on_conflict", ["merge", "overwrite"])
def test_third_request_has_the_same_session(old: Store, on_conflict: str) -> None:
    """Two requests set the time of creation. A third one has read that of the first."""
    old.fill(f"session::{ID}", COOKIE_RECORD)
    factory = old.factory(on_conflict=on_conflict)
    early, first = Visit(factory, ID), Visit(factory, ID)
    early.session["early"] = 1
    first.session["first"] = 1
    first.end()
    third = Visit(factory, ID)
    third.session["third"] = 1
    early.end()
    third.end()
    found = set(Visit(factory, ID).session) - set(CONTENT)
    assert found == ({"early", "first", "third"} if on_conflict == "merge" else {"first", "third"})


def test_pickles_of_version_1_load_only_with_the_option(old: Store) -> None:
    import pickle

    old.fill(f"session::{ID}", pickle.dumps({"a": 1}, 2))
    assert Visit(old.factory(), ID).session.new
    factory = old.factory(fallback_codec="pickle")
    assert dict(Visit(factory, ID).session) == {"a": 1}

"""Sessions by a token that the client sends in a header."""

from __future__ import annotations

from typing import Any

import pytest
from pyramid.exceptions import ConfigurationError
from webtest import TestApp

from pyramid_kvs.exceptions import KVSNotSupported
from pyramid_kvs.session import SessionFactory
from tests.session.apps import Store, Visit, do, overtake, send

TOKEN = {"X-Auth-Token": "secret-1"}


@pytest.fixture
def app(store: Store) -> TestApp:
    return store.app(session_type="header", key_name="X-Auth-Token")


def test_data_by_token(store: Store, app: TestApp) -> None:
    response = send(app, ["set", "a", 1], ["new"], headers=TOKEN)
    assert response.json[1] is True
    assert response.headers["Vary"] == "X-Auth-Token"
    assert "Set-Cookie" not in response.headers
    assert store.record("x-auth-token::secret-1")["a"] == 1
    assert do(app, ["all"], ["new"], headers=TOKEN) == [{"a": 1}, False]
    assert do(app, ["all"], headers={"X-Auth-Token": "other"}) == [{}]


def test_underscore_equals_dash(store: Store) -> None:
    app = store.app(session_type="header", key_name="X_Auth_Token")
    response = send(app, ["set", "a", 1], headers=TOKEN)
    assert response.headers["Vary"] == "X-Auth-Token"
    assert store.record("x-auth-token::secret-1")["a"] == 1


def test_first_of_several_headers_wins(store: Store) -> None:
    app = store.app(session_type="header", key_name=["X-One", "X-Two"])
    response = send(app, ["set", "a", 2], headers={"X-Two": "t"})
    assert response.headers["Vary"] == "X-One, X-Two"
    send(app, ["set", "a", 1], headers={"X-Two": "t", "X-One": "t"})
    assert store.record("x-one::t")["a"] == 1
    assert store.record("x-two::t")["a"] == 2


def test_write_without_header_is_dropped_with_one_warning(
    memory: Store, caplog: pytest.LogCaptureFixture
) -> None:
    app = memory.app(session_type="header", key_name="X-Auth-Token")
    assert do(app, ["set", "a", 1], ["set", "b", 1], ["get", "a"]) == [None, None, 1]
    assert len(caplog.records) == 1
    assert "X-Auth-Token" in caplog.text
    assert memory.driver.get_keys() == []


def test_the_token_stays_after_invalidate(store: Store, app: TestApp) -> None:
    do(app, ["set", "a", 1], headers=TOKEN)
    do(app, ["invalidate"], ["set", "b", 2], headers=TOKEN)
    assert do(app, ["all"], headers=TOKEN) == [{"b": 2}]
    do(app, ["invalidate"], headers=TOKEN)
    assert store.data("x-auth-token::secret-1") is None


def test_late_change_does_not_mix_with_the_next_session(store: Store) -> None:
    factory = store.factory(session_type="header", key_name="X-T")
    first = Visit(factory, X_T="t")
    first.session["user"] = "one"
    first.end()
    late, second = Visit(factory, X_T="t"), Visit(factory, X_T="t")
    late.session["cart"] = "of one"
    second.session.invalidate()
    second.session["user"] = "two"
    second.end()
    late.end()
    assert dict(Visit(factory, X_T="t").session) == {"user": "two"}


def test_regenerate_id_is_not_supported(memory: Store) -> None:
    with pytest.raises(KVSNotSupported, match="update_session_token"):
        Visit(memory.factory(session_type="header", key_name="X-T")).session.regenerate_id()


@pytest.mark.parametrize("name", ["X-Auth-Token", "x_auth_token"])
def test_token_update_moves_the_data(store: Store, app: TestApp, name: str) -> None:
    do(app, ["set", "a", 1], headers=TOKEN)
    do(app, ["token", name, "secret-2"], headers=TOKEN)
    assert not store.has_session("x-auth-token::secret-1")
    assert do(app, ["all"], headers={"X-Auth-Token": "secret-2"}) == [{"a": 1}]


def test_token_update_with_a_change(store: Store, app: TestApp) -> None:
    do(app, ["set", "a", 1], headers=TOKEN)
    do(app, ["set", "b", 2], ["token", "x-auth-token", "t2"], ["set", "c", 3], headers=TOKEN)
    assert do(app, ["all"], headers={"X-Auth-Token": "t2"}) == [{"a": 1, "b": 2, "c": 3}]


def test_token_update_gives_a_first_token(store: Store, app: TestApp) -> None:
    do(app, ["set", "a", 1], ["token", "X-Auth-Token", "given"])
    assert do(app, ["all"], headers={"X-Auth-Token": "given"}) == [{"a": 1}]


def test_token_update_replaces_another_session(store: Store, app: TestApp) -> None:
    do(app, ["set", "other", 1], headers={"X-Auth-Token": "t2"})
    do(app, ["set", "a", 1], headers=TOKEN)
    do(app, ["token", "X-Auth-Token", "t2"], headers=TOKEN)
    assert do(app, ["all"], headers={"X-Auth-Token": "t2"}) == [{"a": 1}]


def test_two_requests_move_to_one_token(store: Store) -> None:
    factory = store.factory(session_type="header", key_name="X-T")
    first = Visit(factory, X_T="t")
    first.session["a"] = 1
    first.end()
    one, two = Visit(factory, X_T="t"), Visit(factory, X_T="t")
    for visit, key in ((one, "one"), (two, "two")):
        visit.session[key] = True
        visit.session.update_session_token("X-T", "t2")
    one.end()
    two.end()
    moved = dict(Visit(factory, X_T="t2").session)
    assert moved == {"a": 1, "one": True, "two": True} or moved == {"a": 1, "one": True}
    assert not store.has_session("x-t::t")


@pytest.mark.parametrize("begins_again", [False, True])
def test_logout_under_a_new_token_before_the_old_one_is_left(
    store: Store, begins_again: bool
) -> None:
    options: dict[str, Any] = {"session_type": "header", "key_name": "X-T"}
    factory, other = store.factory(**options), store.factory(**options)
    first = Visit(other, X_T="old")
    first.session["a"] = 1
    first.end()

    def change_and_log_out() -> None:
        changing, ending = Visit(other, X_T="old"), Visit(other, X_T="new")
        changing.session["late"] = 1
        changing.end()
        ending.session.invalidate()
        if begins_again:
            ending.session["again"] = 1
        ending.end()

    moving = Visit(factory, X_T="old")
    moving.session.update_session_token("X-T", "new")
    overtake(factory.driver, "raw_swap", change_and_log_out, unless="x-t::new")
    moving.end()
    assert dict(Visit(other, X_T="old").session) == {}
    assert dict(Visit(other, X_T="new").session) == ({"again": 1} if begins_again else {})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("X-Other", "t", "reads x-t"),
        ("X-T", "", "control"),
        ("X-T", "a\r\nb", "control"),
        ("X-T", "x" * 8193, "8192"),
    ],
)
def test_token_that_a_header_cannot_contain_is_refused(
    memory: Store, name: str, value: str, message: str
) -> None:
    session = Visit(memory.factory(session_type="header", key_name="X-T"), X_T="t").session
    with pytest.raises(ValueError, match=message):
        session.update_session_token(name, value)


@pytest.mark.parametrize(
    "token", ["a b", "gét", "%0d%0aset x", "*", "x" * 8192, "::", "session_id", "__kvs_user::x"]
)
def test_hostile_token_is_only_a_key(store: Store, token: str) -> None:
    factory = store.factory(session_type="header", key_name="X-T")
    visit = Visit(factory, X_T=token)
    visit.session["a"] = 1
    visit.end()
    assert Visit(factory, X_T=token).session["a"] == 1
    assert Visit(factory, X_T=token + "x").session.new


@pytest.mark.parametrize("token", ["", "  ", "a\r\nset b", "a\x00", "x" * 8193])
def test_impossible_token_counts_as_missing(memory: Store, token: str) -> None:
    factory = memory.factory(session_type="header", key_name="X-T")
    visit = Visit(factory)
    visit.request.environ["HTTP_X_T"] = token
    assert factory.session_key(visit.request) is None
    assert visit.session.get_session_key() is None


HEADER: dict[str, Any] = {"kvs": "memory", "session_type": "header", "key_name": "X-T"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("cookie_httponly", True),
        ("cookie_samesite", "Lax"),
        ("cookie_secure", None),
        ("cookie_path", "/"),
        ("cookie_domain", None),
        ("cookie_max_age", "session"),
        ("cookie_refresh", None),
        ("remember_ttl", 5000),
    ],
)
def test_options_of_cookies_stop_the_start(key: str, value: Any) -> None:
    """Even with their default values: whoever writes them believes that there is a cookie."""
    with pytest.raises(ConfigurationError) as raised:
        SessionFactory({**HEADER, key: value})
    assert str(raised.value) == (
        f'kvs.session: {key}: remove it, because header sessions ("session_type": "header") have '
        "no cookie"
    )


def test_all_options_of_cookies_are_named_at_once() -> None:
    with pytest.raises(ConfigurationError, match="cookie_path, cookie_secure: remove them"):
        SessionFactory({**HEADER, "cookie_secure": True, "cookie_path": "/"})
    with pytest.raises(ConfigurationError, match="did you mean 'cookie_path'"):
        SessionFactory({**HEADER, "cookie_pat": "/"})
    assert SessionFactory(HEADER).session_class.__name__ == "AuthTokenSession"

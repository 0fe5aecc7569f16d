"""The session cookie: its attributes, what is read, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pyramid.exceptions import ConfigurationError
from pyramid.request import Request
from pyramid.response import Response
from webob.cookies import parse_cookie

from pyramid_kvs.session import SessionFactory
from tests.session.apps import COOKIE, Store, Visit, cookie_of, do, new_session, send

ID = "0123456789abcdef" * 2 + "01234567"
#: As in the documentation.
POSSIBLE_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


def set_cookie(store: Store, scheme: str = "http", **options: Any) -> set[str]:
    """Return the parts of a Set-Cookie header, without the id."""
    visit = Visit(store.factory(**options))
    visit.request.scheme = scheme
    visit.session["a"] = 1
    name_and_id, *attributes = visit.end().headers["Set-Cookie"].split("; ")
    assert name_and_id.startswith(options.get("key_name", COOKIE) + "=")
    return set(attributes)


def test_attributes_by_default(memory: Store) -> None:
    assert set_cookie(memory) == {"Max-Age=300", "Path=/", "HttpOnly", "SameSite=Lax"}


def test_secure_with_https(memory: Store) -> None:
    assert "secure" in set_cookie(memory, "https")
    assert "secure" not in set_cookie(memory, "https", cookie_secure=False)
    assert "secure" in set_cookie(memory, cookie_secure=True)


def test_attributes_by_settings(memory: Store) -> None:
    assert set_cookie(
        memory, cookie_httponly=False, cookie_samesite="Strict", cookie_path="/app",
        cookie_domain="example.org", cookie_max_age=86400.5, key_name="sid",
    ) == {"Max-Age=86401", "Path=/app", "Domain=example.org", "SameSite=Strict"}  # fmt: skip


def test_same_site_can_be_omitted(memory: Store) -> None:
    assert set_cookie(memory, cookie_samesite=None, ttl=None) == {"Path=/", "HttpOnly"}


@pytest.mark.parametrize(
    "options",
    [{"cookie_samesite": "None"}, {"key_name": "__Host-sid"}, {"key_name": "__Secure-sid"}],
    ids=str,
)
def test_secure_if_browsers_require_it(memory: Store, options: dict[str, Any]) -> None:
    assert "secure" in set_cookie(memory, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key_name": "a b"}, 'key_name: found "a b", expected a cookie name'),
        ({"key_name": "a\r\nX-Evil"}, "key_name"),
        ({"key_name": "a;b"}, "key_name"),
        ({"key_name": "Path"}, "key_name"),
        ({"key_name": ["a", "b"]}, "a list is for session_type 'header'"),
        ({"cookie_path": "/a; Domain=evil.org"}, "cookie_path"),
        ({"cookie_path": "/a\nX-Evil: 1"}, "cookie_path"),
        ({"cookie_path": "a"}, "cookie_path: found \"a\", expected a path that begins with '/'"),
        ({"cookie_domain": "a.org; secure"}, "cookie_domain"),
        ({"cookie_domain": "a.org\r\n"}, "cookie_domain"),
        ({"cookie_samesite": "lax"}, "did you mean 'Lax'"),
        ({"cookie_samesite": "None", "cookie_secure": False}, "cookie_secure"),
        ({"key_name": "__Host-a", "cookie_path": "/a"}, 'no cookie_domain and the cookie_path "/"'),
        ({"key_name": "a b", "session_type": "header"}, "the name of a header"),
        ({"key_name": ["X-A", "X\nB"], "session_type": "header"}, "the name of a header"),
        ({"hash_keys": 1}, "hash_keys: found 1"),
        ({"max_bytes": 0}, "max_bytes"),
        ({"on_conflict": "merg"}, "did you mean 'merge'"),
        ({"absolute_ttl": 0}, "absolute_ttl"),
        ({"cookie_max_age": "sesion"}, "\"session\", or null; did you mean 'session'?"),
        ({"cookie_max_age": "browser"}, 'a number of seconds above 0, "session", or null'),
        ({"cookie_max_age": 0}, "cookie_max_age: found 0"),
        ({"cookie_max_age": True}, "cookie_max_age: found true"),
        ({"cookie_refresh": 0}, "cookie_refresh: found 0, expected a number of seconds above 0"),
        ({"cookie_refresh": "60"}, 'cookie_refresh: found "60"'),
        ({"cookie_refresh": True}, "cookie_refresh: found true"),
        ({"cookie_refresh": float("nan")}, "cookie_refresh"),
        ({"cookie_refresh": 300}, "less than the cookie's Max-Age, which is 300 seconds"),
        ({"cookie_refresh": 60, "ttl": 60}, "which is 60 seconds"),
        ({"cookie_refresh": 90, "cookie_max_age": 60}, "which is 60 seconds"),
        ({"cookie_refresh": 90, "remember_ttl": 60}, "which is 60 seconds"),
        ({"cookie_refresh": 90, "remember_ttl": 60, "cookie_max_age": "session"}, "60 seconds"),
        ({"cookie_refres": 60}, "did you mean 'cookie_refresh'"),
        ({"remember_ttl": -1}, "remember_ttl: found -1, expected a number of seconds above 0"),
        ({"remember_ttl": "30 days"}, 'remember_ttl: found "30 days"'),
        ({"remember": 60}, "did you mean 'remember_ttl'"),
        (
            {"remember_ttl": 61, "absolute_ttl": 60},
            "remember_ttl: found 61, expected at most absolute_ttl, which ends remembered sessions "
            "too, after 60 seconds",
        ),
    ],
)
def test_refused_settings(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        SessionFactory({"kvs": "memory", **options})
    assert str(raised.value).startswith("kvs.session: ")
    assert message in str(raised.value)


def test_a_remembered_session_may_live_as_long_as_absolute_ttl_allows() -> None:
    SessionFactory({"kvs": "memory", "remember_ttl": 60, "absolute_ttl": 60})


@pytest.mark.parametrize(
    "options",
    [
        {"cookie_refresh": 299.9},
        {"cookie_refresh": 10**6, "cookie_max_age": "session"},
        {"cookie_refresh": 10**6, "ttl": None},
        {"cookie_refresh": 400, "cookie_max_age": 500},
    ],
    ids=str,
)
def test_refresh_below_max_age_is_accepted(options: dict[str, Any]) -> None:
    SessionFactory({"kvs": "memory", **options})


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, "Cookie"),
        ("Accept", "Accept, Cookie"),
        ("accept, COOKIE", "accept, COOKIE"),
        ("*", "*"),
    ],
)
def test_vary_is_added_once(memory: Store, before: str | None, after: str) -> None:
    visit = Visit(memory.factory())
    visit.session.get("a")
    response = Response()
    if before is not None:
        response.headers["vary"] = before
    visit.request._process_response_callbacks(response)
    assert response.headers.getall("Vary") == [after]


def test_thousand_forged_ids_are_not_adopted(store: Store) -> None:
    factory = store.factory()
    adopted = []
    for number in range(1000):
        forged = f"{number:040x}"
        visit = Visit(factory, forged)
        visit.session["a"] = 1
        if cookie_of(visit.end()) == forged or store.data(forged) is not None:
            adopted.append(forged)
    assert adopted == []


def test_ids_are_random_and_long(memory: Store) -> None:
    factory = memory.factory()
    ids = {new_session(factory, a=1) for _ in range(100)}
    assert len(ids) == 100
    assert all(re.fullmatch("[0-9a-f]{40}", session_id) for session_id in ids)


def test_neither_log_nor_repr_contains_the_id(
    memory: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    factory = memory.factory()
    session_id = new_session(factory, a=1)
    visit = Visit(factory, session_id)
    assert session_id not in repr(visit.session)
    visit.session["a"] = 2
    memory.driver.delete(session_id)
    visit.end()
    assert session_id not in repr(visit.session)
    assert session_id not in caplog.text


def test_one_cookie_for_a_session_used_twice(memory: Store) -> None:
    app = memory.app()
    response = send(app, ["set", "a", 1], ["invalidate"], ["set", "b", 1])
    assert len(response.headers.getall("Set-Cookie")) == 1
    assert do(app, ["all"]) == [{"b": 1}]


def test_one_cookie_for_a_session_saved_by_hand_and_again(memory: Store) -> None:
    factory, response = memory.factory(), Response()
    visit = Visit(factory, new_session(factory, a=1))
    visit.session.get("a")
    visit.session.save_session(visit.request, response)
    visit.session.get("a")
    visit.request._process_response_callbacks(response)
    assert len(response.headers.getall("Set-Cookie")) == 1


def test_another_cookie_that_is_not_utf_8_does_not_matter(memory: Store) -> None:
    app, session_id = memory.app(), new_session(memory.factory(), a=1)
    for header in (f"x=\\é; {COOKIE}={session_id}", f"{COOKIE}={session_id}; x=\\é"):
        assert do(app, ["get", "a"], headers={"Cookie": header}) == [1]
    assert do(app, ["get", "a"], headers={"Cookie": f"{COOKIE}=\\é"}) == [None]


WORDS = st.sampled_from(
    [COOKIE, "x", "other", "=", " = ", ";", "; ", '"', "\\", ",", " ", ID, ID.upper(), ID[:-1],
     f"{COOKIE}={ID}", "x=1; ", "\t", "é", "a" * 40, "$Version", "Wed, 31-Dec-97 23:59:59 GMT"]
)  # fmt: skip
FACTORY = SessionFactory({"kvs": "memory"})


def ids_in(header: str) -> list[str]:
    """Return the ids that a factory looks for."""
    request = Request.blank("/")
    request.environ["HTTP_COOKIE"] = header
    lookups = FACTORY.lookups(request)
    assert FACTORY.session_key(request) == (lookups[0].key if lookups else None)
    return [lookup.key for lookup in lookups]


def possible(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(value for value in values if POSSIBLE_ID.fullmatch(value)))[:8]


@given(st.lists(WORDS, max_size=8).map("".join))
@example(f"{COOKIE}={ID}")
@example(f"{COOKIE}={ID}; {COOKIE}={'a' * 40}")
@example(f"{COOKIE}={ID}; {COOKIE}={'a' * 129}")
@example(f'{COOKIE}="{ID}"')
@example(f'x="; {COOKIE}={ID}; y="')
@example(f"x=1,{COOKIE}={ID}")
@example(f"x{COOKIE}={ID}")
@example("session_id=\\é")
def test_only_a_semicolon_ends_a_cookie(header: str) -> None:
    """As in RFC 6265, so that no other cookie can hide the id, or add one."""
    values = []
    for cookie in header.split(";"):
        found = re.fullmatch(r"\s*([^=]*?)\s*=\s*(.*?)\s*", cookie, re.DOTALL)
        if found and found[1] == COOKIE:
            values.append(re.sub('^"(.*)"$', r"\1", found[2]))
    assert ids_in(header) == possible(values)


NAMES = st.sampled_from([COOKIE, "x", f"x{COOKIE}", f"{COOKIE}2", "$Version"])
VALUES = st.sampled_from([ID, "a" * 40, "a" * 129, "", COOKIE, f'"{ID}"', f"{COOKIE}={ID}", "b"])


@given(st.lists(st.tuples(NAMES, VALUES), max_size=12))
def test_what_browsers_send_is_read_as_webob_reads_it(sent: list[tuple[str, str]]) -> None:
    header = "; ".join(f"{name}={value}" for name, value in sent)
    found = [value.decode() for name, value in parse_cookie(header) if name == COOKIE.encode()]
    assert ids_in(header) == possible(found)


@pytest.mark.parametrize("session_id", ["chocolate", "0123456789abcdef" * 2, "a-b_C" * 20])
def test_ids_of_other_applications_are_found(session_id: str) -> None:
    """An id only has to be in the store. It need not look like an id of this library."""
    factory = SessionFactory({"kvs": "memory"})
    factory.driver.set(session_id, {"who": "Ada"})
    request = Request.blank("/", headers={"Cookie": f"{COOKIE}={session_id}"})
    assert factory(request)["who"] == "Ada"


def test_an_id_cannot_be_the_key_of_a_counter() -> None:
    factory = SessionFactory({"kvs": "memory"})
    factory.reserve("-limit")
    factory.driver.set("abc-limit", {"n": 1})
    request = Request.blank("/", headers={"Cookie": f"{COOKIE}=abc-limit"})
    assert factory.session_key(request) is None
    assert "n" not in factory(request)

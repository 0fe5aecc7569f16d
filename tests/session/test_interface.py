"""Pyramid's interface, the mapping methods, and requests without a router."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import MutableMapping
from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.interfaces import ISession, ISessionFactory
from pyramid.response import Response
from pyramid.testing import DummyRequest
from zope.interface.verify import verifyClass, verifyObject

from pyramid_kvs.exceptions import KVSNotSupported
from pyramid_kvs.session import (
    AuthTokenSession,
    CookieSession,
    SessionFactory,
    list_sessions,
)
from tests.session.apps import COOKIE, Store, Visit, cookie_of, do, make_app, new_session, send


@pytest.fixture
def session(memory: Store) -> Any:
    factory = memory.factory()
    return Visit(factory, new_session(factory, a=1, b=[2])).session


@pytest.mark.parametrize("session_class", [CookieSession, AuthTokenSession])
def test_isession(session_class: type[CookieSession], memory: Store) -> None:
    kind = "cookie" if session_class is CookieSession else "header"
    factory = memory.factory(session_type=kind)
    assert factory.session_class is session_class
    assert factory.key_name == "session_id"
    assert verifyClass(ISession, session_class)
    assert verifyObject(ISession, factory(Visit(factory).request))
    assert verifyObject(ISessionFactory, factory)


def test_mapping(session: Any) -> None:
    assert isinstance(session, MutableMapping)
    assert list(session) == list(session.keys()) == ["a", "b"]
    assert list(session.values()) == [1, [2]]
    assert list(session.items()) == [("a", 1), ("b", [2])]
    assert len(session) == 2
    assert "a" in session
    assert "c" not in session
    assert session.get("c") is None
    assert session.get("c", 3) == 3
    assert session.setdefault("a", 5) == 1
    assert session.setdefault("c", 5) == 5
    assert session.pop("c") == 5
    assert session.pop("c", None) is None
    with pytest.raises(KeyError):
        session.pop("c")
    with pytest.raises(KeyError):
        session["c"]
    with pytest.raises(KeyError):
        del session["c"]
    session.update({"d": 1}, e=2)
    assert session.popitem() == ("e", 2)
    session.clear()
    assert dict(session) == {}
    assert not session


def test_operators_and_copies_of_a_dict(session: Any) -> None:
    assert session == {"a": 1, "b": [2]}
    assert session == {"a": 1, "b": [2]}
    assert session != {"a": 1}
    assert json.loads(json.dumps(dict(session))) == {"a": 1, "b": [2]}
    assert {**session} == session.copy() == copy.copy(session) == {"a": 1, "b": [2]}
    assert session | {"a": 2} == {"a": 2, "b": [2]}
    assert {"a": 2, "c": 3} | session == {"a": 1, "b": [2], "c": 3}
    assert list(reversed(session)) == ["b", "a"]
    for copied in (session.copy(), copy.copy(session), session | {}, {} | session):
        assert type(copied) is dict
        copied["new"] = 1
    assert "new" not in session
    with pytest.raises(TypeError):
        session | 1
    same = session
    same |= {"c": 3}
    same |= [("d", 4)]
    assert same is session
    assert session == {"a": 1, "b": [2], "c": 3, "d": 4}


def test_deep_copy_is_independent(memory: Store) -> None:
    factory = memory.factory()
    session_id = new_session(factory, b=[2])
    before = memory.data(session_id)
    visit = Visit(factory, session_id)
    copied = copy.deepcopy(visit.session)
    copied["b"].append(3)
    visit.end()
    assert copied == {"b": [2, 3]}
    assert memory.data(session_id) == before


def test_shallow_copy_shares_its_values_like_that_of_a_dict(memory: Store) -> None:
    factory = memory.factory()
    session_id = new_session(factory, b=[2])
    visit = Visit(factory, session_id)
    copy.copy(visit.session)["b"].append(3)
    visit.end()
    assert memory.record(session_id)["b"] == [2, 3]


def test_in_place_update_through_the_request(memory: Store) -> None:
    def view(request: Any) -> dict[str, Any]:
        request.session |= {"b": 2}
        return {**request.session}

    def configure(config: Configurator) -> None:
        config.add_route("update", "/update")
        config.add_view(view, route_name="update", renderer="json")

    app = make_app(memory.options, configure)
    do(app, ["set", "a", 1])
    assert app.get("/update").json == {"a": 1, "b": 2}
    assert do(app, ["all"]) == [{"a": 1, "b": 2}]


def test_change_returns_the_new_value(memory: Store) -> None:
    factory = memory.factory()
    session_id = new_session(factory, a=1, b=[2])
    visit = Visit(factory, session_id)
    session = visit.session
    assert session.change("a", lambda value: value * 10) == 10
    assert session.change("b", lambda value: [*value, 3]) == [2, 3]
    assert session.change("c", lambda value: value, "default") == "default"
    assert session.change("d", lambda value: value) is None
    assert session.incr("n") == 1
    assert session.incr("n", 2) == 3
    assert session.incr("n", -0.5) == 2.5
    visit.end()
    assert dict(Visit(factory, session_id).session) == {
        "a": 10, "b": [2, 3], "c": "default", "d": None, "n": 2.5,
    }  # fmt: skip


def test_operations_store_the_bytes_of_a_plain_change(store: Store) -> None:
    factory = store.factory()
    record = {"b": 1, "list": [1.0, {"x": "é"}], "a": 2, "__kvs_created": 5.5}
    changes = [
        lambda s: (s.update(b=2), s["list"].append(3), s.update(new={})),
        lambda s: (s.incr("b"), s.change("list", lambda v: [*v, 3]), s.change("new", dict, {})),
    ]
    stored = []
    for change in changes:
        store.put("ab" * 20, record)
        visit = Visit(factory, "ab" * 20)
        change(visit.session)
        visit.end()
        stored.append(store.data("ab" * 20))
    assert stored[0] == stored[1]
    assert stored[0] == json.dumps(
        {"b": 2, "list": [1.0, {"x": "é"}, 3], "a": 2, "new": {}, "__kvs_created": 5.5}
    )


def test_function_that_changes_its_argument(memory: Store) -> None:
    def added(value: list[int]) -> list[int]:
        value.append(1)
        return value

    factory = memory.factory()
    session_id = new_session(factory, b=[0])
    visit, default = Visit(factory, session_id), list[int]()
    for _ in range(2):
        visit.session.change("b", added)
        visit.session.change("new", added, default)
    visit.end()
    assert default == []
    assert dict(Visit(factory, session_id).session) == {"b": [0, 1, 1], "new": [1, 1]}


def test_function_that_raises_leaves_the_value(memory: Store) -> None:
    factory = memory.factory()
    session_id = new_session(factory, a=1)
    before = memory.data(session_id)
    visit = Visit(factory, session_id)
    with pytest.raises(ZeroDivisionError):
        visit.session.change("a", lambda value: value / 0)
    visit.end()
    assert memory.data(session_id) == before


def test_function_that_raises_while_the_session_is_saved(memory: Store) -> None:
    """The function runs again in a response callback, outside of Pyramid's exception views."""

    def at_most_two(value: int) -> int:
        if value == 2:
            raise LookupError("full")
        return value + 1

    def view(request: Any) -> str:
        request.session.change("n", at_most_two)
        key = request.session.get_session_key()
        memory.put(key, {**memory.record(key), "n": 2})
        return "changed"

    def refused(error: LookupError, request: Any) -> Response:
        return Response(str(error), status=409)

    def configure(config: Configurator) -> None:
        config.add_route("change", "/change")
        config.add_view(view, route_name="change", renderer="json")
        config.add_exception_view(refused, context=LookupError)

    app = make_app(memory.options, configure)
    session_id = cookie_of(send(app, ["set", "n", 1]))
    assert app.get("/change", status=409).text == "full"
    assert memory.record(session_id)["n"] == 2


@pytest.mark.parametrize("value", ["1", "text", None, True, [1], {"a": 1}])
def test_only_numbers_are_incremented(session: Any, value: Any) -> None:
    session["x"] = value
    with pytest.raises(TypeError, match=rf"'x'.*not a number.*{type(value).__name__}"):
        session.incr("x")
    assert session["x"] == value
    if value != "1":
        with pytest.raises(TypeError, match="delta"):
            session.incr("a", value)
    assert session["a"] == 1


def test_operations_refuse_reserved_keys(session: Any) -> None:
    for operation in (session.incr, lambda key: session.change(key, lambda value: 1)):
        with pytest.raises(ValueError, match="__kvs_"):
            operation("__kvs_created")
        with pytest.raises(TypeError, match="string"):
            operation(1)


@pytest.mark.parametrize("options", [{}, {"session_type": "header", "key_name": "X-Token"}])
@pytest.mark.parametrize("codec", ["json", "pickle", "storable"])
def test_operations_with_every_codec(memory: Store, codec: str, options: dict[str, Any]) -> None:
    """Storable turns numbers with a fraction into strings."""
    factory = memory.factory(codec=codec, **options)
    session_id = "t" if options else new_session(factory, n=1)
    sent: dict[str, Any] = {"X_Token": "t"} if options else {"session_id": session_id}
    for _ in range(2):
        one, two = Visit(factory, **sent), Visit(factory, **sent)
        for visit in (one, two):
            visit.session.incr("n")
            visit.session.incr("half", 0.5)
            visit.session.change("list", lambda value: [*value, "x"], [])
        one.end()
        two.end()
    session = Visit(factory, **sent).session
    assert session["n"] == (4 if options else 5)
    assert session.incr("half", 0) == 2.0
    assert session["list"] == ["x"] * 4


def test_metadata_is_hidden_and_reserved(memory: Store) -> None:
    memory.put("ab" * 20, {"a": 1, "__kvs_created": 5.5, "__kvs_x": 1, "__csrf_token": "t"})
    session = Visit(memory.factory(), "ab" * 20).session
    assert dict(session) == {"a": 1, "__csrf_token": "t"}
    assert session.created == 5
    assert "__kvs_created" not in session
    assert session.get("__kvs_created") is None
    for key in ("__kvs_created", "__kvs_new"):
        with pytest.raises(ValueError, match="__kvs_"):
            session[key] = 1
        with pytest.raises(ValueError, match="__kvs_"):
            session.update({key: 1})


def test_metadata_of_a_later_version_is_kept(memory: Store) -> None:
    memory.put("ab" * 20, {"a": 1, "__kvs_later": [1]})
    visit = Visit(memory.factory(), "ab" * 20)
    visit.session["a"] = 2
    visit.end()
    assert memory.record("ab" * 20)["__kvs_later"] == [1]


def test_keys_are_strings(session: Any) -> None:
    with pytest.raises(TypeError, match="string"):
        session[1] = "x"


def test_attributes_of_version_1(memory: Store) -> None:
    factory = memory.factory()
    session_id = new_session(factory, a=1)
    session = Visit(factory, session_id).session
    assert session.client is factory.driver
    assert session.key_name == COOKIE
    assert session.get_session_key() == session_id
    assert session.client.get(session.get_session_key())["a"] == 1


def test_key_of_a_new_session_is_kept(memory: Store) -> None:
    visit = Visit(memory.factory())
    key = visit.session.get_session_key()
    visit.session["a"] = 1
    assert cookie_of(visit.end()) == key


def test_created_is_the_time_as_an_integer(memory: Store) -> None:
    created = Visit(memory.factory()).session.created
    assert type(created) is int
    assert abs(created - time.time()) < 60


def test_created_is_kept(store: Store) -> None:
    app = store.app()
    session_id = cookie_of(send(app, ["set", "a", 1]))
    store.put(session_id, {**store.record(session_id), "__kvs_created": 1000.25})
    do(app, ["set", "a", 2])
    assert do(app, ["created"]) == [1000]


def test_save_session_can_be_called_by_hand(memory: Store) -> None:
    visit, response = Visit(memory.factory()), Response()
    visit.session["a"] = 1
    visit.session.save_session(visit.request, response)
    assert memory.record(cookie_of(response))["a"] == 1


def test_dummy_request(memory: Store) -> None:
    factory = memory.factory()
    session_id = new_session(factory, a=1)
    request = DummyRequest(cookies={COOKIE: session_id})
    request.session = factory(request)
    assert request.session["a"] == 1
    token = memory.factory(session_type="header", key_name="X-T")
    request = DummyRequest(headers={"X-T": "t"})
    assert token.session_key(request) == "x-t::t"


def test_dummy_request_gets_a_cookie(memory: Store) -> None:
    request, response = DummyRequest(), Response()
    memory.factory()(request)["a"] = 1
    request._process_response_callbacks(response)
    assert memory.record(cookie_of(response))["a"] == 1


@pytest.mark.parametrize("name", ["X-Auth-Token", "x_auth_token"])
@pytest.mark.parametrize("sent", ["X-Auth-Token", "x-auth-token", "X_Auth_Token"])
def test_header_of_a_dummy_request_in_any_case(memory: Store, name: str, sent: str) -> None:
    factory = memory.factory(session_type="header", key_name=name)
    session = factory(DummyRequest(headers={sent: "t"}))
    assert session.get_session_key() == "x-auth-token::t"


@pytest.mark.parametrize(
    "given", ['{"kvs": "memory", "ttl": 7}', {"kvs.session": '{"kvs": "memory", "ttl": 7}'}]
)
def test_factory_takes_json_and_settings(given: Any) -> None:
    assert SessionFactory(given).ttl == 7


def test_settings_are_not_changed() -> None:
    options = {"kvs": "memory", "kvs_kwargs": {}}
    make_app(options)
    assert options == {"kvs": "memory", "kvs_kwargs": {}}


def test_no_session_without_the_setting() -> None:
    config = Configurator()
    config.include("pyramid_kvs")
    config.commit()
    assert config.registry.queryUtility(ISessionFactory) is None


def test_introspectable() -> None:
    config = Configurator(settings={"kvs.session": {"kvs": "memory"}})
    config.include("pyramid_kvs")
    config.commit()
    [found] = config.introspector.get_category("session factory")
    assert found["introspectable"]["setting"] == "kvs.session"


def test_applications_share_nothing() -> None:
    one, two = make_app({"kvs": "memory"}), make_app({"kvs": "memory"})
    session_id = cookie_of(send(one, ["set", "a", 1]))
    two.set_cookie(COOKIE, session_id)
    assert do(two, ["all"]) == [{}]


def test_sessions_of_another_library_cannot_be_listed() -> None:
    request = DummyRequest()
    with pytest.raises(KVSNotSupported, match="DummySession"):
        list_sessions(request, "u")


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s["list"].append(1),
        lambda s: s.get("list").append(1),
        lambda s: s["dict"]["inner"].update(x=1),
        lambda s: next(iter(s.values())).append(1),
        lambda s: dict(s.items())["dict"].clear(),
        lambda s: s.peek_flash().append(1),
        lambda s: s.setdefault("list", None).append(1),
        lambda s: s["list"].__setitem__(0, True),
        lambda s: s["list"].__setitem__(0, 1.0),
        lambda s: s["dict"].__setitem__("inner", dict(reversed(s["dict"]["inner"].items()))),
    ],
)
def test_change_in_place_is_found(memory: Store, change: Any) -> None:
    factory = memory.factory()
    session_id = new_session(factory, list=[1, 2], dict={"inner": {"a": 1, "b": 2}}, _f_=["m"])
    before = memory.data(session_id)
    visit = Visit(factory, session_id)
    change(visit.session)
    visit.end()
    assert memory.data(session_id) != before
    assert dict(Visit(factory, session_id).session) == dict(visit.session)


def test_reading_everything_writes_nothing(memory: Store) -> None:
    factory = memory.factory()
    memory.put("ab" * 20, '{ "b" :[1.0,{"x":"\\u00e9é"}],\n"a":{"k":[null,true]},"s":"é" }')
    before = memory.data("ab" * 20)
    visit = Visit(factory, "ab" * 20)
    held = [visit.session["a"], visit.session["a"]["k"], visit.session.get("b")]
    held += [dict(visit.session.items()), list(visit.session.values())]
    visit.end()
    assert memory.data("ab" * 20) == before
    held.clear()

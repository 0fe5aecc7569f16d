"""The metadata of a session, with each codec, and when they are odd."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError
from webtest import TestApp

from pyramid_kvs.session import SessionFactory, records
from tests.session.apps import COOKIE, Store, Visit, cookie_of, do, make_app, new_session, send

SESSION = "a" * 40


class Strings:
    """A codec that turns numbers into strings."""

    def dumps(self, value: Any) -> str:
        return json.dumps(self._converted(value))

    def loads(self, data: Any) -> Any:
        return json.loads(data)

    def _converted(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._converted(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._converted(inner) for inner in value]
        return str(value) if isinstance(value, (int, float)) else value


class Floats(Strings):
    """A codec that turns integers into floats."""

    def loads(self, data: Any) -> Any:
        return json.loads(data, parse_int=float)

    def _converted(self, value: Any) -> Any:
        return value


def configure(config: Configurator) -> None:
    config.add_kvs_codec("strings", Strings())
    config.add_kvs_codec("floats", Floats())


def app_with(store: Store, codec: str, **options: Any) -> TestApp:
    return make_app({**store.options, "codec": codec, **options}, configure)


codecs = pytest.mark.parametrize("codec", ["json", "pickle", "storable", "strings", "floats"])


@codecs
def test_time_of_creation_stays(store: Store, codec: str) -> None:
    app = app_with(store, codec)
    before = int(time.time())
    do(app, ["set", "a", "x"])
    [created] = do(app, ["created"])
    assert before <= created <= time.time()
    assert do(app, ["set", "a", "y"], ["created"], ["new"]) == [None, created, False]
    assert do(app, ["created"]) == [created]


@codecs
def test_absolute_ttl_ends_a_session(
    store: Store, codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = app_with(store, codec, absolute_ttl=200)
    now = time.time()
    do(app, ["set", "a", "x"])
    monkeypatch.setattr(time, "time", lambda: now + 190)
    assert do(app, ["set", "a", "y"], ["new"]) == [None, False]
    monkeypatch.setattr(time, "time", lambda: now + 202)
    assert do(app, ["all"], ["new"]) == [{}, True]


@codecs
def test_sessions_of_a_user_are_listed_and_ended(store: Store, codec: str) -> None:
    phone, laptop = app_with(store, codec), app_with(store, codec)
    for app in (phone, laptop):
        do(app, ["set", "a", "x"], ["bind", "u"])
    assert do(phone, ["get", "a"]) == ["x"]
    if store.kvs != "memcache":
        [found] = do(phone, ["list", "u"])
        assert len(found) == 2
        assert abs(found[0]["created"] - time.time()) < 60
    ended = do(phone, ["end_all", "u", True])
    assert ended == [None if store.kvs == "memcache" else 1]
    assert do(laptop, ["all"]) == [{}]
    assert do(phone, ["all"]) == [{"a": "x"}]


def test_reading_a_bound_session_writes_nothing(memory: Store) -> None:
    app = app_with(memory, "strings")
    session_id = cookie_of(send(app, ["set", "a", "x"], ["bind", "u"]))
    before = memory.data(session_id)
    do(app, ["get", "a"], ["set", "a", "x"])
    assert memory.data(session_id) == before


ODD = [
    int("9" * 400),
    -1,
    1e300,
    float("inf"),
    float("-inf"),
    float("nan"),
    True,
    None,
    "",
    "x",
    "nan",
    "9" * 400,
    "\ud800",
    [],
    [1],
    {},
    {"a": 1},
]


@pytest.mark.parametrize("value", ODD, ids=lambda value: repr(value)[:12])
def test_odd_time_of_creation_is_a_new_session(store: Store, value: Any) -> None:
    store.put(SESSION, {"a": 1, "__kvs_created": value})
    app = store.app(absolute_ttl=100)
    app.set_cookie(COOKIE, SESSION)
    assert do(app, ["all"], ["new"], ["created"], ["set", "b", 2])[:2] == [{}, True]
    assert do(app, ["all"]) == [{"b": 2}]
    assert app.cookies[COOKIE] != SESSION


odd_values = st.recursive(
    st.sampled_from(ODD) | st.integers() | st.floats() | st.text(max_size=5) | st.none(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@settings(max_examples=300, deadline=None)
@given(
    metadata=st.dictionaries(st.sampled_from(sorted(records.METADATA)), odd_values, min_size=1),
    operation=st.sampled_from(
        [["created"], ["set", "b", 2], ["invalidate"], ["clear"], ["regenerate"], ["bind", "u"]]
    ),
    options=st.fixed_dictionaries(
        {
            "absolute_ttl": st.sampled_from([None, 100]),
            "hash_keys": st.sampled_from([False, "migrate"]),
        }
    ),
)
def test_odd_metadata_never_stop_a_request(
    metadata: dict[str, Any], operation: list[Any], options: dict[str, Any]
) -> None:
    store = Store("memory", {"name": "odd metadata"})
    app = store.app(**options)
    store.put(SESSION, {"a": 1, **metadata})
    app.set_cookie(COOKIE, SESSION)
    do(app, ["all"], operation, ["created"])
    do(app, ["set", "c", 3], ["end_all", "u"], ["list", "u"])
    do(app, ["all"], ["created"])


def test_keys_that_are_not_strings_are_a_new_session(memory: Store) -> None:
    app = app_with(memory, "pickle")
    session_id = cookie_of(send(app, ["set", "a", 1]))
    codec = SessionFactory({**memory.options, "codec": "pickle"}).driver.codec
    memory.driver.raw_set(session_id, codec.dumps({1: 2, "__kvs_created": 1.0}), 300)
    assert do(app, ["all"]) == [{}]


def test_session_that_does_not_decode_is_logged_once_a_minute(
    memory: Store, caplog: pytest.LogCaptureFixture
) -> None:
    now = 0.0
    factory = memory.factory()
    factory._backend.store.codec._undecodable._clock = lambda: now
    memory.put(SESSION, "\x80garbage")
    memory.put("b" * 40, {"__kvs_created": [1]})
    for session_id in (SESSION, "b" * 40, SESSION):
        assert Visit(factory, session_id).session.new
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "does not decode" in record.getMessage()
    now += 61
    assert Visit(factory, SESSION).session.new
    assert "(2 more since" in caplog.records[1].getMessage()
    assert SESSION not in caplog.text


class Broken:
    """A codec that is JSON but for one conversion when it reads."""

    def __init__(self, convert: Any) -> None:
        self.dumps = json.dumps
        self._convert = convert

    def loads(self, data: Any) -> Any:
        return self._convert(json.loads(data))


def _with(kind: type, convert: Any) -> Any:
    def converted(value: Any) -> Any:
        if isinstance(value, dict):
            value = {key: converted(inner) for key, inner in value.items()}
        elif isinstance(value, list):
            value = [converted(inner) for inner in value]
        return convert(value) if isinstance(value, kind) else value

    return converted


@pytest.mark.parametrize(
    ("convert", "lost"),
    [
        (_with(str, str.encode), "strings"),
        (_with(str, lambda text: int(text) if text.isdigit() else text), "strings"),
        (_with(list, tuple), "lists"),
        (_with(dict, lambda found: found and dict(list(found.items())[:1])), "dicts"),
        (_with(dict, lambda found: {k.encode(): v for k, v in found.items()}), "keys"),
        (_with(float, lambda number: None), "numbers"),
    ],
)
def test_codec_that_loses_what_sessions_need_stops_the_start(
    memory: Store, convert: Any, lost: str
) -> None:
    config = Configurator(settings={"kvs.session": {**memory.options, "codec": "lossy"}})
    config.include("pyramid_kvs")
    config.add_kvs_codec("lossy", Broken(convert))
    with pytest.raises(ConfigurationError, match=rf"kvs\.session: codec: 'lossy'.*{lost}"):
        config.make_wsgi_app()


def test_codec_that_cannot_write_stops_the_start(memory: Store) -> None:
    class Refusing(Broken):
        def __init__(self) -> None:
            self.dumps = bytes  # type: ignore[assignment]

    config = Configurator(settings={"kvs.session": {**memory.options, "codec": "refusing"}})
    config.include("pyramid_kvs")
    config.add_kvs_codec("refusing", Refusing())
    with pytest.raises(ConfigurationError, match="'refusing' does not keep strings"):
        config.make_wsgi_app()


def test_unknown_session_is_not_new_because_of_unknown_metadata(memory: Store) -> None:
    """A later version may add keys."""
    memory.put(SESSION, {"a": 1, "__kvs_created": 1.0, "__kvs_later": [1]})
    app = memory.app()
    app.set_cookie(COOKIE, SESSION)
    assert do(app, ["set", "b", 2], ["all"]) == [None, {"a": 1, "b": 2}]
    assert memory.record(SESSION)["__kvs_later"] == [1]


def test_session_of_a_factory_without_an_application_checks_its_codec() -> None:
    factory = SessionFactory({"kvs": "memory", "codec": "storable"})
    assert new_session(factory, a=1)


@pytest.mark.parametrize("value", [None, 7, "text", {"a": 1}, True], ids=repr)
def test_flash_queue_that_is_no_list_and_csrf_token_that_is_no_text_are_replaced(
    memory: Store, value: Any
) -> None:
    app = memory.app()
    app.set_cookie(COOKIE, SESSION)
    odd = {"_f_": value, "_f_q": value, "__csrf_token": [value], "a": 1}
    for operation in (["flash", "new"], ["peek_flash"], ["pop_flash"], ["csrf"]):
        memory.put(SESSION, odd)
        do(app, operation)
    memory.put(SESSION, odd)
    assert do(app, ["peek_flash", "q"], ["pop_flash", "q"]) == [[], []]
    [token, *_] = do(app, ["csrf"], ["flash", "new"], ["set", "b", 2])
    assert do(app, ["csrf"], ["pop_flash"], ["get", "a"]) == [token, ["new"], 1]

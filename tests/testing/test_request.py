"""``DummyRequest``: the features of the configuration in unit tests of views."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from pyramid import testing
from pyramid.config import Configurator
from pyramid.request import apply_request_extensions
from pyramid.response import Response
from pyramid.testing import DummySession

import pyramid_kvs
from pyramid_kvs.exceptions import KVSUnavailable
from pyramid_kvs.ratelimit import RateLimitError
from pyramid_kvs.testing import DummyRequest, MockCache, MockStore, empty_store

MOCK = {"kvs": "mock"}


@pytest.fixture
def store() -> Iterator[MockStore]:
    with empty_store() as found:
        yield found


def set_up(**features: Any) -> Configurator:
    config = testing.setUp(settings={f"kvs.{name}": value for name, value in features.items()})
    config.include("pyramid_kvs.testing")
    return config


@pytest.fixture(autouse=True)
def tear_down(store: MockStore) -> Iterator[None]:
    yield
    testing.tearDown()


def test_the_cache_is_that_of_the_configuration(store: MockStore) -> None:
    set_up(cache={"kvs": "mock", "key_prefix": "mine::"})
    request = DummyRequest()
    request.cache.set("key", 1, 42)
    assert dict(store) == {b"mine::key": "1"}
    assert store.last_ttl == 42
    assert request.cache is DummyRequest().cache


def test_a_session_is_saved_and_loaded_as_after_a_view(store: MockStore) -> None:
    set_up(session=MOCK)
    request = DummyRequest()
    request.session["items"] = [1]
    assert not store
    response = request.respond()
    cookie = response.headers["Set-Cookie"]
    session_id = request.session.get_session_key()
    assert cookie.startswith(f"session_id={session_id};")

    later = DummyRequest(cookies={"session_id": session_id})
    later.session["items"].append(2)
    later.respond(Response("body"))
    again = DummyRequest(cookies={"session_id": session_id})
    assert again.session["items"] == [1, 2]
    assert not again.session.new


def test_a_header_session_is_that_of_the_token(store: MockStore) -> None:
    set_up(session={"kvs": "mock", "session_type": "header", "key_name": "X-Token"})
    request = DummyRequest(headers={"X-Token": "t" * 40})
    request.session["a"] = 1
    request.respond()
    assert DummyRequest(headers={"X-Token": "t" * 40}).session["a"] == 1


def test_a_view_may_use_flash_messages_and_csrf_tokens(store: MockStore) -> None:
    set_up(session=MOCK)
    request = DummyRequest()
    request.session.flash("saved")
    token = request.session.get_csrf_token()
    request.respond()
    cookies = {"session_id": request.session.get_session_key()}
    later = DummyRequest(cookies=cookies)
    assert later.session.pop_flash() == ["saved"]
    assert later.session.get_csrf_token() == token


def test_an_explicit_save_needs_no_response(store: MockStore) -> None:
    set_up(session=MOCK)
    request = DummyRequest()
    request.session["a"] = 1
    assert request.session.save() is True
    assert len(store) == 1


def test_a_failed_save_gives_the_response_503(store: MockStore) -> None:
    set_up(session=MOCK)
    request = DummyRequest()
    request.session["a"] = 1
    with store.full():
        assert request.respond().status_code == 503


def test_an_outage_reaches_the_view(store: MockStore) -> None:
    set_up(session=MOCK, cache=MOCK)
    request = DummyRequest(cookies={"session_id": "a" * 40})
    with store.unavailable():
        assert request.cache.get("key", "default") == "default"
        with pytest.raises(KVSUnavailable):
            request.session.get("a")


def test_a_request_counts_only_if_it_is_told_to(store: MockStore) -> None:
    set_up(session=MOCK, ratelimit={"limit": 2, "window": 60})
    request = DummyRequest()
    assert request.ratelimit.results == []
    request.ratelimit.charge(5)
    assert not store
    assert request.count_limits() is request.ratelimit
    assert (request.ratelimit.limit, request.ratelimit.remaining) == (2, 1)
    request.ratelimit.charge(1)
    assert request.ratelimit.remaining == 0
    assert request.respond().headers["X-RateLimit-Remaining"] == "0"
    with pytest.raises(RateLimitError):
        DummyRequest().count_limits()
    DummyRequest(remote_addr="192.0.2.1").count_limits()


def test_counting_warns_of_no_missing_address(
    store: MockStore, caplog: pytest.LogCaptureFixture
) -> None:
    set_up(ratelimit={"kvs": "mock", "by": "address", "limit": 2, "window": 60})
    DummyRequest().count_limits()
    assert caplog.messages == []


def test_perl_sessions_are_found_by_the_cookie(store: MockStore) -> None:
    set_up(perlsess={"kvs": "mock", "cookie_name": "SID", "codec": "json", "key_prefix": "perl::"})
    store[b"perl::" + b"a" * 32] = '{"user": "fred"}'
    request = DummyRequest(cookies={"SID": "a" * 32})
    assert request.perlsess["user"] == "fred"


@pytest.mark.parametrize("name", ["cache", "session", "ratelimit", "perlsess"])
def test_a_missing_feature_says_what_to_call(name: str) -> None:
    testing.setUp()
    with pytest.raises(AttributeError) as raised:
        getattr(DummyRequest(), name)
    assert f"the configuration has no kvs.{name}" in str(raised.value)
    assert f'setUp(settings={{"kvs.{name}": {{"kvs": "mock"}}}})' in str(raised.value)
    assert 'config.include("pyramid_kvs.testing")' in str(raised.value)


def test_counting_without_a_limit_says_what_to_call() -> None:
    testing.setUp()
    with pytest.raises(AttributeError, match=r"the configuration has no kvs\.ratelimit"):
        DummyRequest().count_limits()


def test_a_test_may_give_a_request_other_objects() -> None:
    testing.setUp()
    session = DummySession()
    request = DummyRequest(session=session, cache={"key": 1})
    assert request.session is session
    assert request.cache == {"key": 1}
    request.ratelimit = None
    assert request.ratelimit is None


def test_the_arguments_are_those_of_pyramid(store: MockStore) -> None:
    request = DummyRequest(params={"a": "1"}, post={"b": "2"}, path="/x", matchdict={"id": "7"})
    assert (request.method, request.POST["b"], request.path) == ("POST", "2", "/x")
    assert request.matchdict == {"id": "7"}
    assert isinstance(request, testing.DummyRequest)
    assert MockCache.cached_data == {}


def test_the_functions_for_events_work_on_it(store: MockStore) -> None:
    set_up(cache=MOCK, session=MOCK, ratelimit={"limit": 2, "window": 60})
    request = DummyRequest()
    apply_request_extensions(request)
    event = SimpleNamespace(request=request)
    pyramid_kvs.subscribe_cache(event)
    pyramid_kvs.subscribe_ratelimit(event)
    assert request.cache is DummyRequest().cache
    assert request.ratelimit.remaining == 1


def test_a_configurator_without_autocommit_is_used_while_it_is_current() -> None:
    config = Configurator(settings={"kvs.cache": {"kvs": "memory"}})
    config.include("pyramid_kvs")
    config.commit()
    with config:
        request = DummyRequest()
        request.cache["key"] = 1
        assert DummyRequest().cache["key"] == 1

"""The phases of a session, event by event; the library has the table in its module ``state``."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from pyramid.response import Response

from pyramid_kvs.exceptions import KVSUnavailable
from pyramid_kvs.session import SessionFactory
from tests.session.apps import Store, Visit, cookie_of, new_session


class Outage:
    """A memory store that can become unavailable."""

    def __init__(self, store: Store) -> None:
        self.factory = store.factory()
        self.session_id = new_session(self.factory, a=1)
        driver = self.factory.driver
        self._hooks = {name: getattr(driver, name) for name in ("raw_load", "raw_swap")}
        self._hooks["raw_delete"] = driver.raw_delete

    def begin(self) -> None:
        for name in self._hooks:
            setattr(self.factory.driver, name, self._refuse)

    def end(self) -> None:
        for name, hook in self._hooks.items():
            setattr(self.factory.driver, name, hook)

    @staticmethod
    def _refuse(*args: Any, **kwargs: Any) -> Any:
        raise KVSUnavailable("the store is unavailable")

    def visit(self) -> Visit:
        return Visit(self.factory, self.session_id)

    def stored(self) -> dict[str, Any]:
        return dict(self.visit().session)


@pytest.fixture
def outage(memory: Store) -> Outage:
    return Outage(memory)


def read(session: Any) -> None:
    session.get("a")


def change(session: Any) -> None:
    session["b"] = 2


# -- untouched -------------------------------------------------------------------------------


@pytest.mark.parametrize("event", [read, change, lambda session: session.invalidate()])
def test_failing_first_use_leaves_it_untouched(outage: Outage, event: Callable[..., None]) -> None:
    visit = outage.visit()
    outage.begin()
    with pytest.raises(KVSUnavailable):
        event(visit.session)
    assert "not loaded" in repr(visit.session)
    response = visit.end()
    assert response.status_code == 200
    assert response.headers["Vary"] == "Cookie"
    assert cookie_of(response) is None
    outage.end()
    assert outage.stored() == {"a": 1}


def test_use_after_a_failing_first_use_opens_it(outage: Outage) -> None:
    visit = outage.visit()
    outage.begin()
    with pytest.raises(KVSUnavailable):
        read(visit.session)
    outage.end()
    change(visit.session)
    assert cookie_of(visit.end()) == outage.session_id
    assert outage.stored() == {"a": 1, "b": 2}


def test_save_of_an_untouched_session_does_nothing(outage: Outage) -> None:
    visit = outage.visit()
    outage.begin()
    visit.session.save()
    assert "not loaded" in repr(visit.session)


# -- open ------------------------------------------------------------------------------------


def test_response_without_a_change_only_sends_the_cookie(outage: Outage) -> None:
    visit = outage.visit()
    read(visit.session)
    outage.begin()
    assert cookie_of(visit.end()) == outage.session_id


@pytest.mark.parametrize("times", [1, 2])
def test_failing_save_can_be_repeated(outage: Outage, times: int) -> None:
    visit = outage.visit()
    change(visit.session)
    outage.begin()
    for _ in range(times):
        with pytest.raises(KVSUnavailable):
            visit.session.save()
    outage.end()
    visit.session.save()
    assert outage.stored() == {"a": 1, "b": 2}


def test_failing_invalidate_keeps_it_open(outage: Outage) -> None:
    visit = outage.visit()
    change(visit.session)
    outage.begin()
    with pytest.raises(KVSUnavailable):
        visit.session.invalidate()
    outage.end()
    assert cookie_of(visit.end()) == outage.session_id
    assert outage.stored() == {"a": 1, "b": 2}


def test_new_id_is_kept_when_its_save_fails(outage: Outage) -> None:
    visit = outage.visit()
    visit.session.regenerate_id()
    key = visit.session.get_session_key()
    outage.begin()
    with pytest.raises(KVSUnavailable):
        visit.session.save()
    outage.end()
    assert cookie_of(visit.end()) == visit.session.get_session_key() == key
    assert outage.stored() == {}


# -- saved -----------------------------------------------------------------------------------


@pytest.mark.parametrize("by_hand", [True, False])
def test_use_after_a_save_opens_it_again(outage: Outage, by_hand: bool) -> None:
    visit, response = outage.visit(), Response()
    change(visit.session)
    if by_hand:
        visit.session.save()
    else:
        visit.session.save_session(visit.request, response)
    visit.session["c"] = 3
    visit.request._process_response_callbacks(response)
    assert outage.stored() == {"a": 1, "b": 2, "c": 3}
    assert len(response.headers.getall("Set-Cookie")) == 1


def test_invalidate_after_the_save_of_the_response(outage: Outage) -> None:
    visit, response = outage.visit(), Response()
    change(visit.session)
    visit.session.save_session(visit.request, response)
    visit.session.invalidate()
    visit.request._process_response_callbacks(response)
    assert cookie_of(response) == ""
    assert len(response.headers.getall("Set-Cookie")) == 1
    assert outage.stored() == {}


def test_session_that_is_stored_again_after_a_removal(memory: Store) -> None:
    factory = memory.factory()
    visit, response = Visit(factory, new_session(factory, a=1)), Response()
    visit.session.clear()
    visit.session.save_session(visit.request, response)
    assert cookie_of(response) == ""
    visit.session["b"] = 2
    visit.request._process_response_callbacks(response)
    assert len(response.headers.getall("Set-Cookie")) == 1
    assert dict(Visit(factory, cookie_of(response)).session) == {"b": 2}


def test_second_save_keeps_what_another_request_saved(store: Store) -> None:
    """The first save merges the changes of both requests, and the second one knows them."""
    factory = store.factory()
    session_id = new_session(factory, a=1, gone=1, _f_=["old"])
    slow, fast = Visit(factory, session_id), Visit(factory, session_id)
    slow.session["slow"] = 1
    fast.session.update(fast=1, a=2)
    fast.session.pop("gone")
    fast.session.flash("fast")
    fast.end()
    slow.session.save()
    slow.session["slow"] = 2
    slow.session.flash("slow")
    slow.end()
    expected = {"a": 2, "fast": 1, "slow": 2, "_f_": ["old", "fast", "slow"]}
    assert dict(Visit(factory, session_id).session) == dict(slow.session) == expected


def test_move_after_a_save_keeps_what_another_request_saved(store: Store) -> None:
    factory = store.factory()
    session_id = new_session(factory, a=1)
    slow, fast = Visit(factory, session_id), Visit(factory, session_id)
    slow.session["slow"] = 1
    slow.session.save()
    fast.session["fast"] = 1
    fast.end()
    slow.session.regenerate_id()
    new_id = cookie_of(slow.end())
    assert dict(Visit(factory, new_id).session) == {"a": 1, "slow": 1, "fast": 1}
    assert not store.has_session(session_id)


def test_move_after_a_save_does_not_undo_a_logout_of_version_1(store: Store) -> None:
    factory = store.factory()
    session_id = new_session(factory, a=1)
    visit = Visit(factory, session_id)
    visit.session["b"] = 1
    visit.session.save()
    store.put(session_id, {})
    visit.session.regenerate_id()
    assert cookie_of(visit.end()) is None
    assert store.record(session_id) == {}


# -- closed ----------------------------------------------------------------------------------


@pytest.fixture
def failed(outage: Outage) -> Visit:
    """A request whose response is a 503, because the save failed."""
    visit = outage.visit()
    change(visit.session)
    outage.begin()
    assert visit.end().status_code == 503
    outage.end()
    return visit


def test_nothing_is_saved_after_a_failed_save(outage: Outage, failed: Visit) -> None:
    failed.session["c"] = 3
    assert dict(failed.session) == {"a": 1, "b": 2, "c": 3}
    failed.session.save()
    response = Response()
    failed.session.save_session(failed.request, response)
    assert cookie_of(response) is None
    assert response.headers["Vary"] == "Cookie"
    assert outage.stored() == {"a": 1}


def test_invalidate_after_a_failed_save_removes_the_session(outage: Outage, failed: Visit) -> None:
    failed.session.invalidate()
    failed.session["c"] = 3
    failed.session.save()
    assert outage.stored() == {}


def test_session_that_was_ended_stays_ended(memory: Store, factory: SessionFactory) -> None:
    session_id = new_session(factory, a=1)
    visit, response = Visit(factory, session_id), Response()
    change(visit.session)
    visit.session.save_session(visit.request, response)
    assert cookie_of(response) == session_id
    memory.driver.delete(session_id)
    visit.session["c"] = 3
    visit.request._process_response_callbacks(response)
    assert cookie_of(response) is None
    visit.session.save()
    assert memory.driver.get_keys() == []


@pytest.fixture
def factory(memory: Store) -> SessionFactory:
    return memory.factory()


# -- changes of id ---------------------------------------------------------------------------


def test_token_that_changes_back_moves_nothing(store: Store) -> None:
    factory = store.factory(session_type="header", key_name="X-T")
    first = Visit(factory, X_T="t")
    first.session["a"] = 1
    first.end()
    visit = Visit(factory, X_T="t")
    visit.session.update_session_token("X-T", "other")
    visit.session.update_session_token("X-T", "t")
    visit.session["b"] = 2
    visit.end()
    assert dict(Visit(factory, X_T="t").session) == {"a": 1, "b": 2}
    assert store.data("x-t::other") is None


def test_invalidate_removes_the_session_from_the_old_id_only(store: Store) -> None:
    factory = store.factory(session_type="header", key_name="X-T")
    for token in ("t", "other"):
        first = Visit(factory, X_T=token)
        first.session["a"] = token
        first.end()
    visit = Visit(factory, X_T="t")
    visit.session.update_session_token("X-T", "other")
    visit.session.invalidate()
    visit.end()
    assert store.data("x-t::t") is None
    assert dict(Visit(factory, X_T="other").session) == {"a": "other"}


@pytest.mark.parametrize("hash_keys", [False, "accept", "migrate", True], ids=str)
def test_invalidate_removes_every_key_of_the_session(store: Store, hash_keys: Any) -> None:
    """Another worker may have moved the session since this request read it."""
    origin = store.factory(hash_keys=hash_keys is True)
    session_id = new_session(origin, a=1)
    leaving = Visit(store.factory(hash_keys=hash_keys), session_id)
    leaving.session.get("a")
    if hash_keys in ("accept", "migrate"):
        moving = Visit(store.factory(hash_keys="migrate"), session_id)
        moving.session.get("a")
        moving.end()
    leaving.session.invalidate()
    leaving.end()
    for other in (False, True):
        assert Visit(store.factory(hash_keys=other), session_id).session.new


# -- markers ---------------------------------------------------------------------------------


def renewed(factory: SessionFactory, session_id: str) -> str:
    visit = Visit(factory, session_id)
    visit.session.regenerate_id()
    new_id = cookie_of(visit.end())
    assert new_id
    return new_id


def test_request_with_the_old_id_changes_nothing(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    factory = store.factory()
    session_id = new_session(factory, a=1)
    new_id = renewed(factory, session_id)
    for number in range(3):
        late = Visit(factory, session_id)
        assert late.session.new
        assert dict(late.session) == {}
        late.session["late"] = number
        assert cookie_of(late.end()) is None
    assert len(caplog.records) == 1
    assert "got a new id" in caplog.text
    assert dict(Visit(factory, new_id).session) == {"a": 1}


def test_logout_with_the_old_id_ends_the_session_under_the_new_one(store: Store) -> None:
    factory = store.factory()
    session_id = new_session(factory, a=1)
    new_id = renewed(factory, renewed(factory, session_id))
    late = Visit(factory, session_id)
    late.session.invalidate()
    assert cookie_of(late.end()) == ""
    assert store.data(new_id) is None


@pytest.mark.parametrize("seconds", [5, -1], ids=["valid", "over"])
def test_marker_that_version_1_took_for_a_session(store: Store, seconds: float) -> None:
    """After its time it is a session with the keys that version 1.0 added."""
    factory = store.factory()
    session_id = new_session(factory, a=1)
    renewed(factory, session_id)
    marker = {**store.record(session_id), "__kvs_until": time.time() + seconds, "old": 1}
    store.put(session_id, marker)
    visit = Visit(factory, session_id)
    assert dict(visit.session) == ({} if seconds > 0 else {"old": 1})
    visit.session["b"] = 2
    visit.end()
    if seconds > 0:
        assert store.record(session_id) == marker
    else:
        assert store.record(session_id).keys() == {"old", "b", "__kvs_created"}


def test_marker_that_is_over_is_nothing(store: Store) -> None:
    factory = store.factory()
    session_id = new_session(factory, a=1)
    new_id = renewed(factory, session_id)
    store.put(session_id, {**store.record(session_id), "__kvs_until": time.time() - 1})
    visit = Visit(factory, session_id)
    visit.session["b"] = 2
    assert cookie_of(visit.end()) not in (session_id, new_id, None)
    assert store.data(session_id) is None

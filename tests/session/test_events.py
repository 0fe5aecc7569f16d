"""Events of sessions: when each is fired, how often, and what a subscriber may do."""

from __future__ import annotations

import gc
import json
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.events import subscriber
from pyramid.interfaces import ISessionFactory
from pyramid.request import Request
from pyramid.response import Response
from pyramid_retry import RetryableException
from webtest import TestApp

from pyramid_kvs import events
from pyramid_kvs.events import (
    ISessionStarted,
    SessionConflict,
    SessionEnded,
    SessionIdRenewed,
    SessionStarted,
)
from pyramid_kvs.exceptions import SessionConflict as SessionConflictError
from pyramid_kvs.session import SessionFactory, end_user_sessions
from tests.session.apps import COOKIE, Store, Visit, cookie_of, do, make_app, new_session, send

CLASSES = [SessionStarted, SessionEnded, SessionIdRenewed, SessionConflict]
Event = Any


class Site:
    """An application, and the events of its sessions."""

    def __init__(self, store: Store, *includes: str, **options: Any) -> None:
        self.events: list[Event] = []
        self.store = store
        self.config: Configurator

        def configure(config: Configurator) -> None:
            self.config = config
            for name in includes:
                config.include(name)
            for kind in CLASSES:
                config.add_subscriber(self.events.append, kind)

        settings = {"retry.attempts": "3"} if includes else {}
        self.app = make_app({**store.options, **options}, configure, **settings)

    @property
    def factory(self) -> SessionFactory:
        factory: SessionFactory = self.config.registry.getUtility(ISessionFactory)
        return factory

    def do(self, *operations: list[Any], **kwargs: Any) -> list[Any]:
        """Run operations in one request, and return the events that it has caused."""
        self.events.clear()
        send(self.app, *operations, **kwargs)
        return self.seen()

    def seen(self) -> list[Any]:
        """Return the classes of the events, with the reason of each end."""
        return [
            (type(event), event.reason) if isinstance(event, SessionEnded) else type(event)
            for event in self.events
        ]

    def visit(self, session_id: str | None = None) -> Visit:
        """Begin a request of the application that runs step by step."""
        visit = Visit(self.factory, session_id)
        visit.request.registry = self.config.registry
        return visit


@pytest.fixture
def site(store: Store) -> Site:
    return Site(store)


# -- when they are fired ---------------------------------------------------------------------


def test_a_session_starts_when_it_is_stored_for_the_first_time(site: Site) -> None:
    assert site.do(["get", "a"], ["created"]) == []
    assert site.do(["set", "a", 1]) == [SessionStarted]
    assert site.do(["set", "a", 2]) == []
    assert site.do(["get", "a"]) == []


def test_an_id_is_renewed_when_it_is_saved(site: Site) -> None:
    assert site.do(["set", "a", 1], ["regenerate"]) == [SessionStarted]
    assert site.do(["regenerate"]) == [SessionIdRenewed]
    assert site.do(["set", "a", 2], ["regenerate"]) == [SessionIdRenewed]


def test_remembering_a_session_renews_its_id(memory: Store) -> None:
    site = Site(memory, remember_ttl=5000)
    site.do(["set", "a", 1])
    assert site.do(["remember"]) == [SessionIdRenewed]
    assert site.do(["remember"]) == []


def test_a_session_ends_once(site: Site) -> None:
    assert site.do(["invalidate"]) == []
    site.do(["set", "a", 1])
    session_id = site.app.cookies[COOKIE]
    first, second = site.visit(session_id), site.visit(session_id)
    assert second.session["a"] == 1
    site.events.clear()
    first.session.invalidate()
    assert site.seen() == [(SessionEnded, "invalidated")]
    second.session.invalidate()
    first.end()
    second.end()
    assert site.seen() == [(SessionEnded, "invalidated")]
    assert site.events[0].request is first.request
    assert site.events[0].count == 1


def test_what_follows_a_logout_is_another_session(site: Site) -> None:
    site.do(["set", "a", 1])
    found = site.do(["get", "a"], ["invalidate"], ["set", "b", 1])
    assert found == [(SessionEnded, "invalidated"), SessionStarted]


def test_the_marker_of_a_renewed_id_is_not_a_session(site: Site) -> None:
    site.do(["set", "a", 1])
    old = site.app.cookies[COOKIE]
    site.do(["regenerate"])
    site.events.clear()
    site.visit(site.app.cookies[COOKIE]).session.invalidate()
    assert site.seen() == [(SessionEnded, "invalidated")]
    site.visit(old).session.invalidate()
    assert len(site.events) == 1


def test_a_cleared_session_ends(site: Site) -> None:
    assert site.do(["set", "a", 1], ["clear"]) == []
    site.do(["set", "a", 1])
    assert site.do(["clear"], ["set", "b", 1]) == []
    assert site.do(["clear"]) == [(SessionEnded, "cleared")]


def test_absolute_ttl_ends_a_session_once(site: Site) -> None:
    site = Site(site.store, absolute_ttl=600)
    session_id = new_session(site.factory, a=1)
    record = site.store.record(session_id)
    assert record
    site.store.put(session_id, {**record, "__kvs_created": time.time() - 601})
    site.app.set_cookie(COOKIE, session_id)
    assert site.do(["get", "a"]) == [(SessionEnded, "expired")]
    site.app.set_cookie(COOKIE, session_id)
    assert site.do(["get", "a"]) == []


def test_the_sessions_of_a_user_end_together(site: Site) -> None:
    """On memcached, one event is for all of them, because nobody knows how many there are."""
    for number in range(3):
        visit = site.visit()
        visit.session["a"] = number
        visit.session.bind("ann")
        visit.end()
    site.do(["set", "a", 1], ["bind", "ann"])
    expected = [(SessionEnded, "ended")] * (1 if site.store.kvs == "memcache" else 4)
    assert site.do(["end_all", "ann"]) == expected
    count = None if site.store.kvs == "memcache" else 1
    assert {event.count for event in site.events} == {count}
    assert {event.request.path for event in site.events} == {"/"}


def test_the_current_session_can_stay(redis: Store) -> None:
    site = Site(redis)
    other = site.visit()
    other.session.bind("ann")
    other.end()
    site.do(["set", "a", 1], ["bind", "ann"])
    assert site.do(["end_all", "ann", True]) == [(SessionEnded, "ended")]


def test_one_session_of_a_user_ends(redis: Store) -> None:
    site = Site(redis)
    site.do(["set", "a", 1], ["bind", "ann"])
    [[found]] = do(site.app, ["list", "ann"])
    assert site.do(["end_one", "ann", found["handle"]]) == [(SessionEnded, "ended")]
    assert site.do(["end_one", "ann", found["handle"]]) == []


def test_a_script_ends_the_sessions_of_a_user(site: Site) -> None:
    for _ in range(2):
        visit = site.visit()
        visit.session.bind("ann")
        visit.session["a"] = 1
        visit.end()
    site.events.clear()
    count = end_user_sessions(site.config.registry, "ann")
    assert count == (None if site.store.kvs == "memcache" else 2)
    assert site.seen() == [(SessionEnded, "ended")] * (count or 1)
    assert {event.request for event in site.events} == {None}
    assert end_user_sessions(site.config.registry, "ann") == (None if count is None else 0)


def test_a_conflict_is_a_change_of_the_same_value(site: Site) -> None:
    session_id = new_session(site.factory, a=1, b=1, items=[])
    first, second = site.visit(session_id), site.visit(session_id)
    for visit, value in ((first, 2), (second, 3)):
        visit.session["a"] = value
    site.events.clear()
    first.end()
    assert site.seen() == []
    second.end()
    assert site.seen() == [SessionConflict]
    assert site.events[0].is_saved
    assert site.events[0].request is second.request


def test_changes_that_are_merged_are_no_conflict(site: Site) -> None:
    session_id = new_session(site.factory, a=1, b=1, items=[])
    first, second = site.visit(session_id), site.visit(session_id)
    for visit, key in ((first, "a"), (second, "b")):
        visit.session[key] = 2
        visit.session["items"].append(key)
        visit.session.incr("count")
        visit.session.flash(key)
        visit.session["same"] = 1
        assert visit.end()
    assert SessionConflict not in site.seen()


@pytest.mark.parametrize("moves", [False, True])
@pytest.mark.parametrize("on_conflict", ["merge", "overwrite", "raise"])
def test_each_way_to_settle_a_conflict(memory: Store, on_conflict: str, moves: bool) -> None:
    """The later save may change the id at the same time."""
    site = Site(memory, on_conflict=on_conflict)
    session_id = new_session(site.factory, a=1)
    first, second = site.visit(session_id), site.visit(session_id)
    for visit, value in ((first, 2), (second, 3)):
        visit.session["a"] = value
    first.end()
    if moves:
        second.session.regenerate_id()
    site.events.clear()
    if on_conflict == "raise":
        with pytest.raises(SessionConflictError):
            second.session.save()
        assert site.seen() == [SessionConflict]
        assert not site.events[0].is_saved
    else:
        second.session.save()
        assert site.seen() == [SessionConflict, *[SessionIdRenewed] * moves]


def test_two_requests_that_begin_one_header_session(store: Store) -> None:
    site = Site(store, session_type="header", key_name="X-Token")
    visits = []
    for value in range(2):
        visit = Visit(site.factory, X_Token="token")
        visit.request.registry = site.config.registry
        visit.session[f"key{value}"] = value
        visits.append(visit)
    for visit in visits:
        visit.end()
    assert site.seen() == [SessionStarted]
    assert site.events[0].request is visits[0].request


def test_a_new_token_is_a_renewed_id(store: Store) -> None:
    site = Site(store, session_type="header", key_name="X-Token")
    site.do(["set", "a", 1], headers={"X-Token": "old"})
    found = site.do(["token", "X-Token", "new"], headers={"X-Token": "old"})
    assert found == [SessionIdRenewed]


def test_a_migration_to_hashed_keys_is_no_event(store: Store) -> None:
    session_id = new_session(store.factory(), a=1)
    site = Site(store, hash_keys="migrate")
    site.app.set_cookie(COOKIE, session_id)
    assert site.do(["get", "a"]) == []
    assert not store.has_session(session_id)
    assert site.do(["invalidate"]) == [(SessionEnded, "invalidated")]


# -- attempts, subrequests, and the time after the response ----------------------------------


def test_an_attempt_that_is_repeated_fires_nothing(store: Store) -> None:
    site = Site(store, "pyramid_retry")
    attempts: list[int] = []

    def log_out_and_in(request: Request) -> Response:
        attempts.append(1)
        request.session.invalidate()
        request.session["user"] = "ann"
        if len(attempts) < 3:
            raise RetryableException("again")
        return Response("done")

    site.config.add_route("again", "/again")
    site.config.add_view(log_out_and_in, route_name="again")
    site.config.commit()
    site.do(["set", "a", 1])
    site.events.clear()
    site.app.get("/again")
    assert len(attempts) == 3
    assert site.seen() == [(SessionEnded, "invalidated"), SessionStarted]


def test_a_subrequest_fires_its_own(memory: Store) -> None:
    site = Site(memory)

    def page(request: Request) -> Response:
        part = Request.blank("/", json=[["set", "a", 1]], method="POST")
        request.invoke_subrequest(part)
        return Response("done")

    site.config.add_route("page", "/page")
    site.config.add_view(page, route_name="page")
    site.config.commit()
    site.app.get("/page")
    assert site.seen() == [SessionStarted]
    assert site.events[0].request.path == "/"


def test_a_save_after_the_request_has_ended(memory: Store) -> None:
    """The session may outlive the request. Then the event has none."""
    site = Site(memory)
    site.do(["set", "a", 1])
    visit = site.visit(site.app.cookies[COOKIE])
    session = visit.session
    session["a"] = 2
    visit.end()
    request = visit.request
    session.regenerate_id()
    session.save()
    assert site.seen()[-1] is SessionIdRenewed
    assert site.events[-1].request is request
    site.events.clear()
    del request, visit
    gc.collect()
    session.invalidate()
    assert site.seen() == [(SessionEnded, "invalidated")]
    assert site.events[0].request is None


def test_a_factory_without_the_setting(memory: Store) -> None:
    seen: list[Event] = []
    config = Configurator(session_factory=SessionFactory(memory.options))
    config.include("pyramid_kvs")
    config.add_subscriber(seen.append, SessionStarted)

    def view(request: Request) -> Response:
        request.session["a"] = 1
        return Response("done")

    config.add_view(view)
    TestApp(config.make_wsgi_app()).get("/")
    assert [type(event) for event in seen] == [SessionStarted]


# -- subscribers -----------------------------------------------------------------------------


def test_interfaces_and_the_decorator(memory: Store) -> None:
    seen: list[Event] = []

    @subscriber(ISessionStarted)
    def note(event: Event) -> None:
        seen.append(event)

    module = sys.modules[__name__]
    module.note = note  # type: ignore[attr-defined]
    try:
        app = make_app(memory.options, lambda config: config.scan(module))
        do(app, ["set", "a", 1])
    finally:
        del module.note  # type: ignore[attr-defined]
    assert [type(event) for event in seen] == [SessionStarted]


@pytest.mark.parametrize("name", [name for name in events.__all__ if f"I{name}" in events.__all__])
def test_each_class_has_an_interface(name: str) -> None:
    interface = getattr(events, f"I{name}")
    kind = getattr(events, name)
    assert interface.implementedBy(kind)
    assert set(interface.names(all=True)) == set(kind.__dataclass_fields__)


def test_a_subscriber_may_use_the_session_and_the_cache(store: Store) -> None:
    """It reads what was saved, and its changes are saved too."""
    found: list[Any] = []

    def greet(event: SessionStarted) -> None:
        assert event.request
        found.append(event.request.session["name"])
        event.request.session["greeted"] = True
        event.request.cache.set("started", 1)

    app = make_app(
        store.options,
        lambda config: config.add_subscriber(greet, SessionStarted),
        **{"kvs.cache": {**store.options, "key_prefix": "cache-of-subscriber::"}},
    )
    do(app, ["set", "name", "ann"])
    assert found == ["ann"]
    assert do(app, ["get", "greeted"]) == [True]


def test_a_subscriber_of_an_expired_session_may_use_the_new_one(memory: Store) -> None:
    site = Site(memory, absolute_ttl=600)
    session_id = new_session(site.factory, a=1)
    record = memory.record(session_id)
    assert record
    memory.put(session_id, {**record, "__kvs_created": time.time() - 601})

    def explain(event: SessionEnded) -> None:
        assert event.request
        event.request.session.flash("Please log in again.")

    site.config.add_subscriber(explain, SessionEnded)
    site.config.commit()
    site.app.set_cookie(COOKIE, session_id)
    assert do(site.app, ["get", "a"]) == [None]
    assert do(site.app, ["pop_flash"]) == [["Please log in again."]]


def test_a_subscriber_that_raises_breaks_nothing(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(event: Event) -> None:
        raise ValueError("a bug of the application")

    for kind in CLASSES:
        site.config.add_subscriber(fail, kind)
    site.config.commit()
    do(site.app, ["set", "a", 1])
    for _ in range(2):
        do(site.app, ["regenerate"])
    assert do(site.app, ["get", "a"]) == [1]
    do(site.app, ["invalidate"])
    assert do(site.app, ["get", "a"]) == [None]
    lines = [record for record in caplog.records if record.name == "pyramid_kvs.events"]
    assert [line.getMessage() for line in lines] == [
        "a subscriber of SessionStarted raised ValueError",
        "a subscriber of SessionIdRenewed raised ValueError",
        "a subscriber of SessionEnded raised ValueError",
    ]
    assert lines[0].exc_info


def test_a_subscriber_that_renews_the_id_comes_to_an_end(memory: Store) -> None:
    site = Site(memory)

    def renew(event: SessionIdRenewed) -> None:
        assert event.request
        event.request.session.regenerate_id()

    site.config.add_subscriber(renew, SessionIdRenewed)
    site.config.commit()
    site.do(["set", "a", 1])
    assert site.do(["regenerate"]) == [SessionIdRenewed]
    assert do(site.app, ["get", "a"]) == [1]


def test_subscribers_that_cause_each_other_come_to_an_end(
    memory: Store, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(memory)

    def begin(event: SessionEnded) -> None:
        assert event.request
        event.request.session["a"] = 1
        event.request.session.save()

    def end(event: SessionStarted) -> None:
        assert event.request
        event.request.session.invalidate()

    site.config.add_subscriber(begin, SessionEnded)
    site.config.add_subscriber(end, SessionStarted)
    site.config.commit()
    assert len(site.do(["set", "a", 1])) < 20
    assert "subscribers cause events in a circle" in caplog.text


def test_events_show_no_secret(site: Site) -> None:
    secrets: set[str] = {"a-value", "a-key"}
    for operations in (
        [["set", "a-key", "a-value"], ["bind", "ann"]],
        [["regenerate"]],
        [["end_all", "ann"]],
        [["set", "a-key", "a-value"]],
        [["invalidate"]],
    ):
        site.do(*operations)
        secrets.add(site.app.cookies.get(COOKIE, "none"))
        for event in site.events:
            facts = {name: vars(event)[name] for name in vars(event) if name != "request"}
            shown = repr(event) + json.dumps(facts)
            assert not [secret for secret in secrets if secret in shown]


# -- without subscribers ---------------------------------------------------------------------


@pytest.fixture
def called() -> Iterator[list[str]]:
    """The functions of the module of events that this thread has called."""
    found: list[str] = []

    def profile(frame: Any, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_filename == events.__file__:
            found.append(frame.f_code.co_name)

    sys.setprofile(profile)
    try:
        yield found
    finally:
        sys.setprofile(None)


def test_without_a_subscriber_nothing_is_called(memory: Store, called: list[str]) -> None:
    app = make_app(memory.options)
    called.clear()
    for operations in (
        [["set", "a", 1], ["bind", "ann"]],
        [["regenerate"]],
        [["end_all", "ann"]],
        [["set", "a", 1]],
        [["invalidate"]],
    ):
        do(app, *operations)
    assert called == []


def test_threads_that_end_one_session_fire_once(redis: Store) -> None:
    site = Site(redis)
    session_id = new_session(site.factory, a=1)
    visits = [site.visit(session_id) for _ in range(8)]
    site.events.clear()
    threads = [threading.Thread(target=visit.session.invalidate) for visit in visits]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert site.seen() == [(SessionEnded, "invalidated")]
    assert cookie_of(visits[0].end()) == ""

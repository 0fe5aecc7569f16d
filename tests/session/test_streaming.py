"""A session that is used after the response has begun, or after the end of its request."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.events import NewResponse
from pyramid.request import Request
from pyramid.response import Response
from webtest import TestApp

from pyramid_kvs.exceptions import KVSUnavailable
from tests.servers import RedisServer
from tests.session.apps import COOKIE, Store, make_app, new_session

LINE = "call session.save() after a change"

Change = Callable[[Any], Any]


class Site:
    """An application whose view uses the session, and changes it again at a later place.

    :param first: what the view does with the session.
    :param change: what happens later.
    """

    def __init__(self, store: Store, place: str, first: Change, change: Change) -> None:
        self.store, self._place, self._first, self._change = store, place, first, change
        config = Configurator(settings={"kvs.session": store.options})
        config.include("pyramid_kvs")
        config.add_view(self._view)
        if place == "NewResponse":
            config.add_subscriber(lambda event: change(event.request.session), NewResponse)
        self.app = TestApp(config.make_wsgi_app())
        self.session_id = new_session(store.factory(), name="ann", items=[0])
        self.app.set_cookie(COOKIE, self.session_id)

    def _view(self, request: Request) -> Response:
        session = request.session
        self._first(session)
        if self._place == "generator":
            return Response(app_iter=self._body(session))
        if self._place == "finished callback":
            request.add_finished_callback(lambda request: self._change(request.session))
        if self._place == "thread":
            self.thread = threading.Thread(target=self._wait_and_change, args=(session,))
            self.is_sent = threading.Event()
            self.thread.start()
        return Response("done")

    def _body(self, session: Any) -> Iterator[bytes]:
        yield b"begin "
        self._change(session)
        yield b"end"

    def _wait_and_change(self, session: Any) -> None:
        self.is_sent.wait(30)
        self._change(session)

    def ask(self) -> dict[str, Any]:
        """Ask for the page; return what the session is afterwards."""
        self.app.get("/", status=200)
        if self._place == "thread":
            self.is_sent.set()
            self.thread.join(30)
            del self.thread
        gc.collect()
        record = self.store.record(self.session_id)
        assert record is not None
        return {key: value for key, value in record.items() if not key.startswith("__")}


PLACES = ["generator", "NewResponse", "finished callback", "thread"]
FIRST: dict[str, Change] = {
    "nothing": lambda session: None,
    "read": lambda session: session["items"],
    "change": lambda session: session["items"].append(1),
    "save": lambda session: (session["items"].append(1), session.save()),
}


def add_item(session: Any) -> None:
    session["items"].append(2)


def add_key(session: Any) -> None:
    session["late"] = True


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=FIRST)
def first(request: pytest.FixtureRequest) -> Change:
    return FIRST[request.param]


def lines(caplog: pytest.LogCaptureFixture) -> int:
    return sum(LINE in message for message in caplog.messages)


@pytest.mark.parametrize("change", [add_item, add_key])
def test_a_change_is_saved_by_save(
    memory: Store, place: str, first: Change, change: Change, caplog: pytest.LogCaptureFixture
) -> None:
    results = []

    def change_and_save(session: Any) -> None:
        change(session)
        results.append(session.save())
        results.append(session.save())

    site = Site(memory, place, first, change_and_save)
    before = [0] if first in (FIRST["nothing"], FIRST["read"]) else [0, 1]
    late = {"items": [*before, 2]} if change is add_item else {"items": before, "late": True}
    assert site.ask() == {"name": "ann", **late}
    assert results == [True, False]
    assert lines(caplog) == 0


def test_every_store_has_the_change(store: Store) -> None:
    def change_and_save(session: Any) -> None:
        add_item(session)
        session.save()

    assert Site(store, "generator", FIRST["change"], change_and_save).ask()["items"] == [0, 1, 2]


@pytest.mark.parametrize("change", [add_item, add_key])
def test_a_forgotten_change_is_logged(
    memory: Store, place: str, first: Change, change: Change, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(memory, place, first, change)
    site.ask()
    site.ask()
    assert lines(caplog) == 1  # of the first request; the next one follows after a minute


@pytest.mark.parametrize("forgotten", [True, False])
def test_a_value_that_the_view_has_got_before(
    memory: Store, first: Change, forgotten: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The session itself is not used again, only the list."""
    held: list[Any] = []

    def hold(session: Any) -> None:
        first(session)
        held.append(session["items"])

    def change(session: Any) -> None:
        held[0].append(2)
        if not forgotten:
            session.save()

    site = Site(memory, "generator", hold, change)
    found = site.ask()
    assert lines(caplog) == forgotten
    assert (2 in found["items"]) is not forgotten


def test_a_change_after_a_save_is_logged(
    memory: Store, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    def change(session: Any) -> None:
        session["saved"] = 1
        session.save()
        session["forgotten"] = 1

    assert Site(memory, place, FIRST["read"], change).ask()["saved"] == 1
    assert lines(caplog) == 1


@pytest.mark.parametrize(
    "later",
    [
        lambda session: None,
        lambda session: session["items"],
        lambda session: session.update(name="ann"),
        lambda session: session.save(),
        lambda session: dict(session),
    ],
)
def test_no_change_is_not_logged(
    memory: Store, place: str, first: Change, later: Change, caplog: pytest.LogCaptureFixture
) -> None:
    Site(memory, place, first, later).ask()
    assert caplog.messages == []


def test_a_save_that_fails_raises_and_is_not_logged(
    own_redis: Callable[..., RedisServer], place: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = own_redis()
    store = Store("redis", {"url": server.url})
    raised = []

    def change(session: Any) -> None:
        session["late"] = True
        server.kill()
        try:
            session.save()
        except KVSUnavailable as error:
            raised.append(error)
        server.start()

    site = Site(store, place, FIRST["read"], change)
    site.app.get("/")
    if place == "thread":
        site.is_sent.set()
        site.thread.join(30)
        del site.thread
    gc.collect()
    assert len(raised) == 1
    assert lines(caplog) == 0


def test_an_error_without_a_response_is_not_logged(
    memory: Store, caplog: pytest.LogCaptureFixture
) -> None:
    def view(request: Request) -> Response:
        request.session["lost"] = True
        raise ZeroDivisionError

    def configure(config: Configurator) -> None:
        config.add_route("error", "/error")
        config.add_view(view, route_name="error")

    app = make_app(memory.options, configure)
    with pytest.raises(ZeroDivisionError):
        app.get("/error")
    gc.collect()
    assert lines(caplog) == 0


def test_a_change_in_the_last_response_callback_is_not_logged(
    memory: Store, caplog: pytest.LogCaptureFixture
) -> None:
    def view(request: Request) -> Response:
        request.add_response_callback(lambda request, _: request.session.update(late=True))
        return Response("done")

    def configure(config: Configurator) -> None:
        config.add_route("late", "/late")
        config.add_view(view, route_name="late")

    make_app(memory.options, configure).get("/late")
    gc.collect()
    assert len(memory.driver.get_keys()) == 1
    assert lines(caplog) == 0


def test_save_says_whether_there_was_anything_to_save(memory: Store) -> None:
    results = []

    def first(session: Any) -> None:
        results.append(session.save())
        results.append(session.get("name") and session.save())
        session["name"] = "bob"
        results.append(session.save())
        results.append(session.save())

    Site(memory, "generator", first, FIRST["nothing"]).ask()
    assert results == [False, False, True, False]


def test_is_read_for_the_first_time_after_the_request(store: Store) -> None:
    kept: list[Any] = []

    def configure(config: Configurator) -> None:
        config.add_route("keep", "/keep")
        config.add_view(keep, route_name="keep")

    def keep(request: Request) -> Response:
        kept.append(request.session)
        return Response("kept")

    app = make_app(store.options, configure)
    app.set_cookie(COOKIE, new_session(store.factory(), name="ann"))
    app.get("/keep")
    gc.collect()  # nothing but the list has the session now
    assert kept[0]["name"] == "ann"

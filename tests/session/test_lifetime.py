"""The lifetimes of sessions and requests."""

from __future__ import annotations

import gc
import sys
import time
import weakref
from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response

from tests.session.apps import Store, do, make_app

SET_1, GET = '[["set", "a", 1]]', '[["get", "a"]]'


def test_an_idle_session_ends_after_its_ttl(store: Store) -> None:
    """The browser still sends the cookie, and gets a new id."""
    app = store.app(ttl=1, cookie_max_age=600)
    do(app, ["set", "a", 1])
    session_id = app.cookies["session_id"]
    time.sleep(2.1)  # the clock of memcached ticks once a second
    assert do(app, ["get", "a"], ["new"], ["set", "b", 1]) == [None, True, None]
    assert app.cookies["session_id"] != session_id
    assert store.data(session_id) is None


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="only CPython counts references")
@pytest.mark.parametrize("limit", [None, {"limit": 9, "by": "session"}])
def test_a_request_is_freed_once_it_is_answered(store: Store, limit: Any) -> None:
    """Request and session do not refer to each other, and so need no garbage collector."""
    seen: list[weakref.ref[Request]] = []

    def note(config: Configurator) -> None:
        config.add_subscriber(
            lambda event: seen.append(weakref.ref(event.request)), "pyramid.events.NewRequest"
        )

    app = make_app(store.options, note, **{"kvs.ratelimit": limit})
    # The first connection of redis-py 5.0 makes a reference cycle. So does the error of a server
    # that does not know a script yet: the second request runs the one for a known session.
    for _ in range(2):
        app.post("/", SET_1)
    seen.clear()
    gc.collect()
    gc.disable()
    try:
        assert [app.post("/", body).json for body in (SET_1, GET)] == [[None], [1]]
        assert [request() for request in seen] == [None, None]
    finally:
        gc.enable()


def test_a_session_outlives_its_request(store: Store) -> None:
    kept: list[Any] = []

    def add(config: Configurator) -> None:
        def view(request: Request) -> Response:
            request.session["a"] = 1
            kept.append(request.session)
            return Response("kept")

        config.add_route("keep", "/keep")
        config.add_view(view, route_name="keep")

    make_app(store.options, add).get("/keep")
    session = kept.pop()
    session["a"] += 1
    assert session["a"] == 2


def test_a_session_is_saved_again_when_a_later_callback_changes_it(store: Store) -> None:
    def change_again(request: Request, response: Response) -> None:
        request.session["a"] = 2

    def add(config: Configurator) -> None:
        def view(request: Request) -> Response:
            request.session["a"] = 1
            # It runs after the session's callback, which waits for other callbacks only once.
            request.add_response_callback(
                lambda request, response: request.add_response_callback(
                    lambda request, response: request.add_response_callback(change_again)
                )
            )
            return Response("changed")

        config.add_route("change", "/change")
        config.add_view(view, route_name="change")

    app = make_app(store.options, add)
    app.get("/change")
    assert app.post("/", GET).json == [2]


def test_a_save_waits_for_other_callbacks_only_once(store: Store) -> None:
    """Otherwise it would never run beside a callback that waits in the same way."""
    waits = []

    def wait(request: Request, response: Response) -> None:
        if "Set-Cookie" not in response.headers and len(waits) < 9:
            waits.append(response)
            request.add_response_callback(wait)

    def add(config: Configurator) -> None:
        def view(request: Request) -> Response:
            request.session["a"] = 1
            request.add_response_callback(wait)
            return Response("changed")

        config.add_route("change", "/change")
        config.add_view(view, route_name="change")

    make_app(store.options, add).get("/change")
    assert len(waits) == 1

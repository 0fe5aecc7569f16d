"""The event of a request over a limit."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response
from pyramid_retry import RetryableException

from pyramid_kvs import events
from pyramid_kvs.events import RateLimitExceeded
from pyramid_kvs.ratelimit import RateLimitError
from tests.ratelimit.stores import Settings, hello, make_app, statuses

LIMIT = {"limit": 2, "window": 600, "name": "all"}


class Site:
    """An application with limits, and the events that it fires."""

    def __init__(self, limits: Any, option: Any = None, view: Any = hello, **settings: Any) -> None:
        self.events: list[RateLimitExceeded] = []
        self.config: Configurator

        def configure(config: Configurator) -> None:
            self.config = config
            if settings:
                config.include("pyramid_retry")
            config.add_subscriber(self.events.append, RateLimitExceeded)
            config.add_route("view", "/view")
            config.add_view(view, route_name="view", ratelimit=option)

        self.app = make_app(limits, configure=configure, **settings)

    def names(self) -> list[tuple[str, bool]]:
        """Return the name of each event's limit, and whether it is in shadow mode."""
        return [(event.name, event.is_shadow) for event in self.events]


def test_each_refused_request_fires_one(store: Settings) -> None:
    """Also one that this process refuses without asking the store."""
    site = Site({**LIMIT, **store, "by": "address"})
    assert statuses(site.app, 5) == [200, 200, 429, 429, 429]
    assert site.names() == [("all", False)] * 3
    event = site.events[0]
    assert (event.limit, event.window, event.by) == (2, 600, "address")
    assert 0 < event.retry_after <= 600
    assert event.request
    assert event.request.path == "/"


def test_shadow_mode(store: Settings) -> None:
    site = Site({**LIMIT, **store, "mode": "shadow"})
    assert statuses(site.app, 5) == [200] * 5
    assert site.names() == [("all", True)] * 3


def test_each_limit_that_refuses_fires_one(store: Settings) -> None:
    limits = [{**LIMIT, **store}, {**LIMIT, **store, "name": "more"}]
    shadow = {**LIMIT, **store, "name": "new", "mode": "shadow", "limit": 1}
    site = Site([*limits, shadow])
    assert statuses(site.app, 3) == [200, 200, 429]
    assert site.names() == [("new", True), ("new", True), ("all", False), ("more", False)]


def test_the_limit_of_a_view(store: Settings) -> None:
    site = Site([], {**LIMIT, **store, "limit": 1})
    assert statuses(site.app, 2, "/view") == [200, 429]
    assert statuses(site.app, 2) == [200, 200]
    assert site.names() == [("all", False)]


def test_a_limit_that_counts_failures(store: Settings) -> None:
    def fail(request: Request) -> Response:
        return Response(status=403)

    site = Site({**LIMIT, **store, "count": "failures"}, view=fail)
    assert statuses(site.app, 4, "/view") == [403, 403, 429, 429]
    assert site.names() == [("all", False)] * 2


def test_a_charge(store: Settings) -> None:
    """A charge that refuses nothing fires nothing."""

    def charge(request: Request) -> Response:
        request.ratelimit.charge(1, refuse=False)
        with pytest.raises(RateLimitError):
            request.ratelimit.charge(5)
        return Response("done")

    site = Site({**LIMIT, **store}, view=charge)
    assert site.app.get("/view").text == "done"
    assert site.names() == [("all", False)]
    assert site.events[0].request is not None


def test_a_subscriber_may_not_cause_itself_without_end(store: Settings) -> None:
    def charge(event: RateLimitExceeded) -> None:
        assert event.request
        event.request.ratelimit.charge(9)

    site = Site({**LIMIT, **store})
    site.config.add_subscriber(charge, RateLimitExceeded)
    site.config.commit()
    assert statuses(site.app, 3) == [200, 200, 429]
    assert 1 <= len(site.events) < 10


def test_a_subscriber_that_raises_changes_no_response(
    store: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(event: RateLimitExceeded) -> None:
        raise ValueError("a bug of the application")

    site = Site([{**LIMIT, **store}, {**LIMIT, **store, "name": "new", "mode": "shadow"}])
    site.config.add_subscriber(fail, RateLimitExceeded)
    site.config.commit()
    assert statuses(site.app, 4) == [200, 200, 429, 429]
    assert "a subscriber of RateLimitExceeded raised ValueError" in caplog.text


def test_a_request_that_is_repeated_fires_once(store: Settings) -> None:
    attempts: list[int] = []

    def again(request: Request) -> Response:
        attempts.append(1)
        if len(attempts) < 3:
            raise RetryableException("again")
        return Response("done")

    shadow = {**LIMIT, **store, "limit": 1, "mode": "shadow"}
    site = Site(shadow, view=again, **{"retry.attempts": "3"})
    site.app.get("/")
    site.app.get("/view")
    assert len(attempts) == 3
    assert site.names() == [("all", True)]


def test_an_event_shows_no_identity(store: Settings) -> None:
    site = Site({**LIMIT, **store, "by": "address", "limit": 1})
    statuses(site.app, 2)
    assert "192.0.2.1" not in repr(site.events)
    assert [type(value) for value in vars(site.events[0]).values()][1:] == [
        *(str, int, int, str, float, bool),
    ]


def test_without_a_subscriber_nothing_is_called(store: Settings) -> None:
    called: list[str] = []

    def profile(frame: Any, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_filename == events.__file__:
            called.append(frame.f_code.co_name)

    app = make_app([{**LIMIT, **store}, {**LIMIT, **store, "name": "new", "mode": "shadow"}])
    sys.setprofile(profile)
    try:
        assert statuses(app, 3) == [200, 200, 429]
    finally:
        sys.setprofile(None)
    assert called == []

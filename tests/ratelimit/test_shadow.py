"""Limits in shadow mode: they count and log, and change no response."""

from __future__ import annotations

from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response
from webtest import TestApp

from tests.ratelimit.stores import Settings, hello, make_app, mock_keys, policies, statuses
from tests.servers import free_port

SHADOW = {"limit": 2, "window": 600, "kvs": "memory", "mode": "shadow", "name": "new"}
ENFORCED = {"limit": 4, "window": 600, "kvs": "memory", "name": "old"}


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    messages = [record.getMessage() for record in caplog.records]
    return [message for message in messages if "shadow mode" in message]


def app_with(limits: Any, option: Any = None, view: Any = hello, **settings: Any) -> TestApp:
    def configure(config: Configurator) -> None:
        config.add_route("view", "/view")
        config.add_view(view, route_name="view", ratelimit=option)

    return make_app(limits, configure=configure, **settings)


def test_it_counts_and_logs_once_a_minute(
    store: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    app = app_with({**SHADOW, **store})
    plain = app_with([])
    for path in ("/", "/view", "/none", "/", "/", "/"):
        expected, found = (one.get(path, status="*") for one in (plain, app))
        assert (found.status, found.text) == (expected.status, expected.text)
        assert found.headers == expected.headers
    assert logged(caplog) == [
        "rate limit new is in shadow mode and would have refused a request: 2 in 600 s by session"
    ]
    assert "192.0.2.1" not in caplog.text


def test_within_the_limit_nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert statuses(app_with(SHADOW), 2) == [200, 200]
    assert logged(caplog) == []


def test_it_does_not_disturb_limits_that_are_enforced(
    store: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    app = app_with([{**SHADOW, **store, "limit": 1}, {**ENFORCED, **store}])
    response = app.get("/")
    assert policies(response) == ["old"]
    assert response.headers["X-RateLimit-Remaining"] == "3"
    assert statuses(app, 4) == [200, 200, 200, 429]
    response = app.get("/", status=429, headers={"Accept": "application/json"})
    assert response.json["violated-policies"] == ["old"]
    assert len(logged(caplog)) == 1


def test_a_request_that_another_limit_refuses_is_not_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As if the limit were enforced already."""
    app = app_with([{**ENFORCED, "limit": 1}, {**SHADOW, "by": "user"}])
    assert statuses(app, 9) == [200] + [429] * 8
    assert logged(caplog) == []


@pytest.mark.parametrize("add", [True, False])
def test_limits_of_views_have_the_mode(add: bool, caplog: pytest.LogCaptureFixture) -> None:
    app = app_with(ENFORCED, {**SHADOW, "add": add})
    found = statuses(app, 5, "/view")
    assert found == ([200] * 4 + [429] if add else [200] * 5)
    assert len(logged(caplog)) == 1
    assert policies(app.get("/view", status="*")) == (["old"] if add else [])


def test_a_view_sees_nothing_of_it() -> None:
    def view(request: Request) -> Response:
        found = request.ratelimit
        return Response(str((found.limit, found.remaining, found.reset, found.results)))

    app = app_with(SHADOW, view=view)
    assert [app.get("/view").text for _ in range(3)] == ["(None, None, None, [])"] * 3


def test_a_charge_is_counted_and_never_refused(
    store: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    def view(request: Request) -> Response:
        request.ratelimit.charge(int(request.params["cost"]))
        return Response("done")

    limits = [{**SHADOW, **store, "limit": 5}, {**ENFORCED, **store, "limit": 20}]
    app = app_with(limits, view=view)
    assert app.get("/view?cost=3").text == "done"
    assert logged(caplog) == []
    response = app.get("/view?cost=9")
    assert response.text == "done"
    assert response.headers["X-RateLimit-Remaining"] == "6"
    assert "Retry-After" not in response.headers
    assert len(logged(caplog)) == 1
    assert app.get("/view?cost=9", status=429)


@pytest.mark.parametrize("on_error", ["allow", "deny", "memory"])
@pytest.mark.parametrize("count", ["all", "failures"])
def test_an_outage_changes_nothing(on_error: str, count: str) -> None:
    store = {"kvs": "redis", "kvs_kwargs": {"url": f"redis://127.0.0.1:{free_port()}/0"}}
    app = app_with({**SHADOW, **store, "on_error": on_error, "count": count})
    response = app.get("/")
    assert response.text == "hello"
    assert "X-RateLimit-Limit" not in response.headers
    assert statuses(app, 5, "/none") == [404] * 5


@pytest.mark.parametrize("by", [f"{__name__}.broken", f"{__name__}.number"])
def test_a_mistake_in_a_callable_changes_nothing(by: str, caplog: pytest.LogCaptureFixture) -> None:
    app = app_with({**SHADOW, "by": by})
    assert statuses(app, 5) == [200] * 5
    assert "rate limit new: who is counted cannot be found" in caplog.text


def broken(request: Request) -> str:
    raise ZeroDivisionError


def number(request: Request) -> int:
    return 5


def test_header_fields_of_the_application_are_left_alone() -> None:
    def view(request: Request) -> Response:
        return Response(headers={"X-RateLimit-Limit": "of the application"})

    response = app_with(SHADOW, view=view).get("/view")
    assert response.headers["X-RateLimit-Limit"] == "of the application"


def test_it_counts_failures(caplog: pytest.LogCaptureFixture) -> None:
    app = app_with({**SHADOW, "count": "failures"})
    assert statuses(app, 9) == [200] * 9
    assert logged(caplog) == []
    assert statuses(app, 3, "/none") == [404] * 3
    assert len(logged(caplog)) == 1


def test_its_counters_are_those_of_the_enforced_limit(mock_store: Settings) -> None:
    """So that a limit that is switched on knows its clients."""
    statuses(app_with({**SHADOW, **mock_store}), 2)
    app = app_with({**SHADOW, **mock_store, "mode": "enforce"})
    assert statuses(app, 1) == [429]
    assert len(mock_keys()) == 1


def test_a_limit_in_shadow_mode_does_not_hide_a_limit_that_counts_by_the_response(
    store: Settings,
) -> None:
    """The limit only looks before the view: what it has seen holds for this request alone."""
    login = {"name": "login", "limit": 3, "window": 600, "count": [404]}
    shadow = {"name": "strict", "limit": 1, "window": 600, "mode": "shadow", "by": "address"}
    app = make_app([login, shadow], store)
    found = [app.get("/none", status="*").status_int for _ in range(8)]
    assert found == [404] * 3 + [429] * 5

"""Requests that pyramid_retry repeats: they count once, and pay for one attempt."""

from __future__ import annotations

from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response
from pyramid_retry import RetryableException
from webtest import TestApp

from pyramid_kvs.ratelimit import RateLimitError
from tests.ratelimit.stores import make_app

LIMIT = {"limit": 20, "window": 600, "kvs": "memory"}


def app_with(limits: Any, view: Any, option: Any = None, **views: Any) -> TestApp:
    def configure(config: Configurator) -> None:
        config.include("pyramid_retry")
        config.add_route("view", "/view")
        config.add_view(view, route_name="view", ratelimit=option)
        for view_of_errors in views.values():
            config.add_exception_view(view_of_errors, context=Exception)

    return make_app(limits, configure=configure)


def flaky(request: Request) -> Response:
    """Succeed in the third attempt."""
    if request.environ["retry.attempt"] < 2:
        raise RetryableException
    return Response("done")


def on_error(error: Exception, request: Request) -> Response:
    return Response("an error", status=500)


def charging(*costs: int) -> Any:
    """Return a view that charges another cost in each attempt."""

    def view(request: Request) -> Response:
        request.ratelimit.charge(costs[request.environ["retry.attempt"]])
        return flaky(request)

    return view


@pytest.mark.parametrize(
    "limits",
    [
        LIMIT,
        {**LIMIT, "by": "user"},
        {**LIMIT, "by": f"{__name__}.everybody"},
        [LIMIT, {**LIMIT, "by": "user"}],
        [LIMIT, {**LIMIT, "kvs_kwargs": {"max_bytes": 1_000_000}, "name": "other"}],
    ],
)
@pytest.mark.parametrize("views", [{}, {"on_error": on_error}])
def test_a_repeated_request_counts_once(limits: Any, views: dict[str, Any]) -> None:
    app = app_with(limits, flaky, **views)
    for remaining in ("19", "18"):
        response = app.get("/view")
        assert response.text == "done"
        assert response.headers["X-RateLimit-Remaining"] == remaining
    assert app.get("/").headers["X-RateLimit-Remaining"] == "17"


def everybody(request: Request) -> str:
    return "everybody"


def test_the_limit_of_a_view_counts_once() -> None:
    app = app_with([], flaky, option=LIMIT)
    assert app.get("/view").headers["X-RateLimit-Remaining"] == "19"
    assert app.get("/view").headers["X-RateLimit-Remaining"] == "18"


def test_a_request_at_the_limit_is_repeated() -> None:
    app = app_with({**LIMIT, "limit": 1}, flaky)
    assert app.get("/view").text == "done"
    assert app.get("/view", status=429)


@pytest.mark.parametrize(
    ("costs", "remaining"), [((5, 5, 5), "14"), ((5, 9, 2), "17"), ((5, 0, 0), "19")]
)
def test_a_repeated_request_pays_for_its_last_attempt(
    costs: tuple[int, ...], remaining: str
) -> None:
    app = app_with(LIMIT, charging(*costs))
    assert app.get("/view").headers["X-RateLimit-Remaining"] == remaining


def test_a_charge_that_an_earlier_attempt_could_not_pay_does_not_refuse_later_ones() -> None:
    def view(request: Request) -> Response:
        try:
            request.ratelimit.charge(100)
        except RateLimitError:
            return flaky(request)
        raise AssertionError

    response = app_with([LIMIT, {**LIMIT, "by": "user"}], view).get("/view")
    assert response.text == "done"
    assert response.headers["X-RateLimit-Remaining"] == "19"


def test_a_request_that_fails_each_time_counts_once() -> None:
    def view(request: Request) -> Response:
        raise RetryableException

    app = app_with(LIMIT, view, on_error=on_error)
    assert app.get("/view", status=500).headers["X-RateLimit-Remaining"] == "19"

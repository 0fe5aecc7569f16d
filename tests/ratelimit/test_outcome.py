"""Limits with ``count``: they count requests by the status of their responses."""

from __future__ import annotations

from typing import Any

import pytest
import transaction
from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPForbidden
from pyramid.request import Request
from pyramid.response import Response
from pyramid_retry import RetryableException
from webtest import TestApp

from pyramid_kvs.events import RateLimitExceeded
from pyramid_kvs.exceptions import KVSUnavailable
from tests.ratelimit.stores import STRATEGY_NAMES, Settings, make_app, mock_keys, policies
from tests.servers import RedisServer

FAILURES = {"limit": 2, "window": 600, "kvs": "memory", "count": "failures", "name": "failures"}
LOGINS = {**FAILURES, "count": [401, 403]}
ALL = {"limit": 9, "window": 600, "kvs": "memory", "name": "all"}

called: list[str] = []


def answer(request: Request) -> Response:
    """Answer with the status in the query, or raise."""
    called.append(request.path_qs)
    if "raise" in request.params:
        raise {"forbidden": HTTPForbidden, "bug": ValueError, "store": KVSUnavailable}[
            request.params["raise"]
        ]
    return Response("answer", status=int(request.params.get("status", 200)))


def app_with(limits: Any, option: Any = None, views: bool = True, **settings: Any) -> TestApp:
    called.clear()

    def configure(config: Configurator) -> None:
        config.add_route("answer", "/answer")
        config.add_view(answer, route_name="answer", ratelimit=option)
        if views:
            config.add_exception_view(
                lambda error, request: Response("a bug", status=500), context=ValueError
            )

    return make_app(limits, configure=configure, **settings)


def found(app: TestApp, *queries: str) -> list[int]:
    return [app.get(f"/answer?{query}", status="*").status_int for query in queries]


def test_failures_are_counted_and_successes_are_not(store: Settings) -> None:
    app = app_with({**FAILURES, **store})
    assert found(app, "", "status=302", "status=429", "", "status=404") == [200, 302, 429, 200, 404]
    assert app.get("/answer").headers["RateLimit"].startswith('"failures";r=1;')
    response = app.get("/answer?status=500", status=500)
    assert response.headers["X-RateLimit-Remaining"] == "0"
    assert "Retry-After" not in response.headers
    called.clear()
    assert found(app, "", "status=500") == [429, 429]
    assert called == []


def test_a_list_counts_its_statuses_only() -> None:
    app = app_with(LOGINS)
    assert found(app, "", "status=404", "status=500", "status=401", "raise=forbidden") == [
        *(200, 404, 500, 401, 403)
    ]
    response = app.get("/answer", status=429)
    assert 590 < int(response.headers["Retry-After"]) <= 600


@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
def test_every_strategy_counts_by_outcome(store: Settings, strategy: str) -> None:
    app = app_with({**FAILURES, **store, "strategy": strategy})
    assert found(app, "", "", "", "status=500", "status=404", "") == [200, 200, 200, 500, 404, 429]


@pytest.mark.parametrize("limit", [FAILURES, {**FAILURES, "count": [500]}])
@pytest.mark.parametrize("views", [True, False])
def test_an_error_that_no_view_answers_is_a_500(limit: Any, views: bool) -> None:
    app = app_with(limit, views=views)
    for _ in range(2):
        if views:
            assert found(app, "raise=bug") == [500]
        else:
            with pytest.raises(ValueError, match=r"^$"):
                app.get("/answer?raise=bug")
    assert found(app, "") == [429]


def test_requests_without_a_view_are_failures() -> None:
    app = app_with(FAILURES)
    assert [app.get("/none", status="*").status_int for _ in range(3)] == [404, 404, 429]


@pytest.mark.parametrize("by", ["user", f"{__name__}.everybody"])
def test_a_limit_that_is_asked_late_counts_by_outcome(by: str) -> None:
    app = app_with({**FAILURES, "by": by})
    assert found(app, "", "status=500", "status=500", "") == [200, 500, 500, 429]
    assert app.get("/none", status="*").status_int in (404, 429)


def everybody(request: Request) -> str:
    return "everybody"


def test_refusals_of_another_limit_do_not_count() -> None:
    """Otherwise a client that waits as it is told would be locked out."""
    app = app_with([{**ALL, "limit": 1, "status": 503}, FAILURES])
    assert found(app, "", "", "", "") == [200, 503, 503, 503]
    assert app.get("/answer", status=503).headers["RateLimit"].count('"failures";r=2') == 1


def test_refusals_of_a_late_limit_do_not_count() -> None:
    app = app_with([FAILURES, {**ALL, "limit": 1, "status": 503, "by": "user"}])
    assert found(app, "", "", "", "") == [200, 503, 503, 503]
    assert app.get("/answer", status=503).headers["RateLimit"].count('"failures";r=2') == 1


def test_limits_of_both_kinds_count_together() -> None:
    app = app_with([ALL, FAILURES])
    response = app.get("/answer?status=500", status=500)
    assert policies(response) == ["all", "failures"]
    assert response.headers["RateLimit"] == '"all";r=8;t=600, "failures";r=1;t=600'
    assert app.get("/answer").headers["RateLimit"] == '"all";r=7;t=600, "failures";r=1;t=600'
    assert found(app, "status=500", "") == [500, 429]
    assert app.get("/answer", status=429).headers["RateLimit"].startswith('"all";r=6;')


def test_a_limit_of_a_view_counts_by_outcome() -> None:
    app = app_with([ALL], option={**LOGINS, "add": True})
    assert found(app, "status=401", "", "status=401", "") == [401, 200, 401, 429]
    assert app.get("/").headers["X-RateLimit-Limit"] == "9"


def test_cost_is_what_a_counted_response_costs() -> None:
    app = app_with({**FAILURES, "limit": 5, "cost": 2})
    assert found(app, "status=500", "", "status=500", "") == [500, 200, 500, 429]


def test_requests_under_way_can_count_past_the_limit(redis_server: RedisServer) -> None:
    """Both have passed before the first of them has failed."""

    def outer(request: Request) -> Response:
        inner = Request.blank("/answer?status=500", environ={"REMOTE_ADDR": "192.0.2.1"})
        request.invoke_subrequest(inner, use_tweens=True)
        return Response(status=500)

    def configure(config: Configurator) -> None:
        config.add_route("answer", "/answer")
        config.add_view(answer, route_name="answer")
        config.add_route("outer", "/outer")
        config.add_view(outer, route_name="outer")

    store = {"kvs": "redis", "kvs_kwargs": {"url": redis_server.url}}
    app = make_app({**FAILURES, **store, "limit": 1}, configure=configure)
    response = app.get("/outer", status=500)
    assert response.headers["X-RateLimit-Remaining"] == "0"
    assert redis_server.client.get("ratelimit::@address::192.0.2.1::ratelimit") == b"2"
    assert app.get("/outer", status=429)


def test_a_charge_is_not_a_failure() -> None:
    def charge(request: Request) -> Response:
        request.ratelimit.charge(5)
        return Response()

    def configure(config: Configurator) -> None:
        config.add_route("charge", "/charge")
        config.add_view(charge, route_name="charge")

    app = make_app([ALL, FAILURES], configure=configure)
    assert app.get("/charge").headers["RateLimit"].startswith('"all";r=3;t=600, "failures";r=2;')


def test_a_session_that_cannot_be_saved_is_a_failure(own_redis: Any) -> None:
    """The response is a 503 only after the view, in a response callback."""
    server = own_redis()
    session = {"kvs": "redis", "kvs_kwargs": {"url": server.url}}

    def change(request: Request) -> Response:
        request.session["key"] = "value"
        server.kill()
        return Response()

    def configure(config: Configurator) -> None:
        config.add_route("change", "/change")
        config.add_view(change, route_name="change")

    app = make_app({**FAILURES, "limit": 1}, session, configure)
    assert app.get("/change", status=503).headers["X-RateLimit-Remaining"] == "0"
    assert app.get("/change", status=429)


def test_a_request_takes_one_trip_before_and_one_after(redis_server: RedisServer) -> None:
    store = {"kvs": "redis", "kvs_kwargs": {"url": redis_server.url}}
    app = app_with([{**ALL, **store}, {**FAILURES, **store}])
    app.get("/answer"), app.get("/answer?status=500", status=500)
    redis_server.reset_calls()
    app.get("/answer")
    assert redis_server.calls()["evalsha"] == 1
    redis_server.reset_calls()
    app.get("/answer?status=500", status=500)
    assert redis_server.calls()["evalsha"] == 2


@pytest.mark.parametrize("on_error", ["allow", "deny", "memory"])
def test_a_store_that_fails_after_the_view_does_not_change_the_response(
    own_redis: Any, on_error: str
) -> None:
    server = own_redis()

    def kill(request: Request) -> Response:
        server.kill()
        return Response("answer", status=404)

    def configure(config: Configurator) -> None:
        config.add_route("kill", "/kill")
        config.add_view(kill, route_name="kill")

    store = {"kvs": "redis", "kvs_kwargs": {"url": server.url}}
    app = make_app({**FAILURES, **store, "on_error": on_error}, configure=configure)
    response = app.get("/kill", status=404)
    assert response.text == "answer"
    assert response.headers["X-RateLimit-Limit"] == "2"


def test_callbacks_of_subscribers_come_before_the_count() -> None:
    """A subscriber of an event of another limit adds one, which sets the status."""

    def fail(event: RateLimitExceeded) -> None:
        turns = iter(range(4))

        def set_status(request: Request, response: Response) -> None:
            response.status_int = 500
            if next(turns) < 3:  # it gives way to others as often as they do
                response.status_int = 200
                request.add_response_callback(set_status)

        event.request.add_response_callback(set_status)

    def configure(config: Configurator) -> None:
        config.add_route("answer", "/answer")
        config.add_view(answer, route_name="answer")
        config.add_subscriber(fail, RateLimitExceeded)

    shadow = {**ALL, "limit": 1, "mode": "shadow", "name": "shadow"}
    app = make_app([shadow, {**FAILURES, "limit": 50}], configure=configure)
    assert found(app, "") == [200]
    assert found(app, "", "") == [500, 500]
    assert app.get("/answer", status=500).headers["X-RateLimit-Remaining"] == "47"


# -- attempts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("views", [True, False])
@pytest.mark.parametrize("by", ["session", "user"])
def test_only_the_last_attempt_counts(views: bool, by: str) -> None:
    def flaky(request: Request) -> Response:
        if request.environ["retry.attempt"] < 2:
            raise RetryableException
        return Response(status=int(request.params["status"]))

    def configure(config: Configurator) -> None:
        config.include("pyramid_retry")
        config.add_route("flaky", "/flaky")
        config.add_view(flaky, route_name="flaky")
        if views:
            config.add_exception_view(
                lambda error, request: Response(status=500), context=Exception
            )

    app = make_app({**FAILURES, "by": by}, configure=configure)
    statuses = [app.get(f"/flaky?status={n}", status="*").status_int for n in (200, 500, 200)]
    assert statuses == [200, 500, 200]
    assert app.get("/flaky?status=500", status=500).headers["X-RateLimit-Remaining"] == "0"
    assert app.get("/flaky?status=200", status=429)


class Conflict:
    """A data manager of the transaction that fails at the commit, in the first attempts."""

    def __init__(self, failures: int) -> None:
        self.failures = failures

    transaction_manager = transaction.manager

    def sortKey(self) -> str:
        return "conflict"

    def tpc_vote(self, _: Any) -> None:
        if self.failures > 0:
            raise RetryableException

    def ignore(self, _: Any) -> None:
        """Do nothing."""

    tpc_begin = commit = tpc_finish = tpc_abort = abort = ignore


@pytest.mark.parametrize(("attempts", "remaining"), [(2, "2"), (3, "1")])
def test_a_conflict_at_the_commit_counts_if_the_client_sees_it(
    attempts: int, remaining: str
) -> None:
    """The view has answered 200, and pyramid_tm raises after it."""

    def view(request: Request) -> Response:
        request.tm.get().join(Conflict(attempts - request.environ["retry.attempt"]))
        return Response()

    def configure(config: Configurator) -> None:
        config.include("pyramid_retry")
        config.include("pyramid_tm")
        config.add_route("view", "/view")
        config.add_view(view, route_name="view")
        config.add_exception_view(lambda error, request: Response(status=500), context=Exception)

    app = make_app(FAILURES, configure=configure)
    response = app.get("/view", status="*")
    assert response.status_int == (200 if attempts == 2 else 500)
    assert response.headers["X-RateLimit-Remaining"] == remaining


def test_nothing_is_stored_for_a_success(mock_store: Settings) -> None:
    app = app_with({**FAILURES, **mock_store})
    app.get("/answer")
    assert mock_keys() == []

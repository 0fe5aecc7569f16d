"""What clients are told: header fields, the response over the limit, and when to try again."""

from __future__ import annotations

import math
import time
from typing import Any

import http_sf
import pytest
from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPForbidden
from pyramid.request import Request
from pyramid.response import Response
from webtest import TestApp

from pyramid_kvs.ratelimit import RateLimitError
from tests.ratelimit.stores import STRATEGY_NAMES, Settings, charging_app, make_app, statuses

BURST = {"limit": 2, "window": 60, "name": "burst", "kvs": "memory"}
DAILY = {"limit": 1000, "window": 86400, "name": 'da"i\\l%y', "kvs": "memory"}


def parsed(response: Any, field: str) -> dict[str, dict[str, int]]:
    """Return the items and parameters of a field, by an independent parser of RFC 9651."""
    items = http_sf.parse(response.headers[field].encode("ascii"), tltype="list")
    assert all(type(name) is str for name, _ in items)
    return dict(items)


# -- fields ------------------------------------------------------------------------------------


def test_fields_of_a_single_limit() -> None:
    before = time.time()
    response = make_app(BURST).get("/")
    headers = response.headers
    assert headers["X-RateLimit-Limit"] == "2"
    assert headers["X-RateLimit-Remaining"] == "1"
    assert before + 59 < int(headers["X-RateLimit-Reset"]) <= time.time() + 61
    assert headers["RateLimit-Policy"] == '"burst";q=2;w=60'
    assert headers["RateLimit"] == '"burst";r=1;t=60'


def test_ietf_fields_parse_by_rfc_9651() -> None:
    response = make_app([BURST, DAILY]).get("/")
    assert parsed(response, "RateLimit-Policy") == {
        "burst": {"q": 2, "w": 60},
        'da"i\\l%y': {"q": 1000, "w": 86400},
    }
    assert parsed(response, "RateLimit") == {
        "burst": {"r": 1, "t": 60},
        'da"i\\l%y': {"r": 999, "t": 86400},
    }


def test_x_fields_are_those_of_the_most_restrictive_limit() -> None:
    app = make_app([DAILY, BURST])
    app.get("/")
    response = app.get("/")
    assert response.headers["X-RateLimit-Limit"] == "2"
    assert response.headers["X-RateLimit-Remaining"] == "0"


def test_a_window_with_a_fraction_is_rounded_up_to_seconds() -> None:
    response = make_app({**BURST, "window": 0.25}).get("/")
    assert parsed(response, "RateLimit-Policy")["burst"]["w"] == 1
    assert parsed(response, "RateLimit")["burst"]["t"] == 1


@pytest.mark.parametrize(
    ("chosen", "x", "ietf"),
    [
        (["x"], True, False),
        (["ietf"], False, True),
        ([], False, False),
        (["ietf", "x"], True, True),
    ],
)
def test_the_setting_chooses_the_fields(chosen: list[str], x: bool, ietf: bool) -> None:
    app = make_app({**BURST, "headers": chosen})
    app.get("/"), app.get("/")
    for response in (app.get("/", status=429), app.get("/", status="*")):
        names = set(response.headers)
        assert ("X-RateLimit-Limit" in names) is x
        assert ("RateLimit" in names) is ietf
        assert "Retry-After" in names


def test_each_limit_chooses_its_fields() -> None:
    app = make_app([{**BURST, "headers": ["x"]}, {**DAILY, "headers": ["ietf"]}])
    response = app.get("/")
    assert response.headers["X-RateLimit-Limit"] == "2"
    assert list(parsed(response, "RateLimit")) == ['da"i\\l%y']


def fail(request: Request) -> Response:
    raise ValueError("a bug")


def forbid(request: Request) -> Response:
    raise HTTPForbidden


def on_error(error: Exception, request: Request) -> Response:
    return Response("an error", status=500)


def with_failures(config: Configurator) -> None:
    for view in (fail, forbid):
        config.add_route(view.__name__, f"/{view.__name__}")
        config.add_view(view, route_name=view.__name__)
    config.add_exception_view(on_error, context=ValueError)


@pytest.mark.parametrize(("path", "status"), [("/fail", 500), ("/forbid", 403), ("/none", 404)])
def test_error_responses_carry_the_fields(path: str, status: int) -> None:
    response = make_app(DAILY, configure=with_failures).get(path, status=status)
    assert response.headers["X-RateLimit-Limit"] == "1000"
    assert response.headers["X-RateLimit-Remaining"] == "999"


REUSED = Response("reused")


def test_a_response_that_is_used_again_has_the_fields_once() -> None:
    def configure(config: Configurator) -> None:
        config.add_route("reused", "/reused")
        config.add_view(lambda request: REUSED, route_name="reused")

    app = make_app(BURST, configure=configure)
    app.get("/reused")
    response = app.get("/reused")
    assert response.headers.getall("X-RateLimit-Remaining") == ["0"]
    assert response.headers.getall("RateLimit") == ['"burst";r=0;t=60']


# -- over the limit ----------------------------------------------------------------------------


def refused(app: TestApp, **options: Any) -> Any:
    while (response := app.get("/", status="*", **options)).status_int == 200:
        pass
    return response


def test_over_the_limit_the_view_is_not_called() -> None:
    called: list[str] = []

    def view(request: Request) -> Response:
        called.append(request.path)
        return Response()

    def configure(config: Configurator) -> None:
        config.add_route("view", "/view")
        config.add_view(view, route_name="view")

    app = make_app(BURST, configure=configure)
    assert statuses(app, 4, "/view") == [200, 200, 429, 429]
    assert len(called) == 2


@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
@pytest.mark.parametrize("window", [0.7, 3, 61.3])
def test_retry_after_is_never_earlier_than_t(strategy: str, window: float) -> None:
    limits = [{**BURST, "strategy": strategy, "window": window}, DAILY]
    response = refused(make_app(limits))
    retry_after = int(response.headers["Retry-After"])
    assert retry_after >= parsed(response, "RateLimit")["burst"]["t"]
    assert 1 <= retry_after <= math.ceil(2 * window)
    assert response.headers["X-RateLimit-Remaining"] == "0"


@pytest.mark.parametrize(
    "accept",
    [
        *("application/json", "application/problem+json", "text/html;q=0.1, application/json"),
        "application/json, text/plain, */*",  # axios and Angular
        *("*/*, application/json;q=0.1", "APPLICATION/JSON;charset=utf-8", "application/*"),
        *("application/vnd.api+json", "text/html, application/json", "text/*, application/json"),
    ],
)
def test_json_clients_get_problem_details(accept: str) -> None:
    response = refused(make_app([DAILY, BURST]), headers={"Accept": accept})
    assert response.status == "429 Too Many Requests"
    assert response.content_type == "application/problem+json"
    assert response.json == {
        "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "title": "Request cannot be satisfied as assigned quota has been exceeded",
        "status": 429,
        "detail": f"Retry after {response.headers['Retry-After']} seconds.",
        "violated-policies": ["burst"],
    }


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        *(("text/html", "text/html"), ("text/plain", "text/plain"), (None, "text/plain")),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/html"),
        *(("*/*", "text/html"), ("text/html, application/json;q=0.9", "text/html")),
        *(
            ("text/*, application/json;q=0.5", "text/html"),
            ("*/*, application/json;q=0", "text/html"),
        ),
        ("not a / header;;", "text/html"),
    ],
)
def test_other_clients_get_html_or_text(accept: str | None, kind: str) -> None:
    headers = {} if accept is None else {"Accept": accept}
    response = refused(make_app(BURST), headers=headers)
    assert response.content_type == kind
    assert "Too many requests. Please wait 60 seconds" in response.text


def test_the_setting_chooses_the_status() -> None:
    response = refused(make_app({**BURST, "status": 503}), headers={"Accept": "application/json"})
    assert response.status == "503 Service Unavailable"
    assert response.json["status"] == 503
    assert response.headers["Retry-After"] == "60"


def test_an_exception_view_changes_the_body_and_keeps_the_fields() -> None:
    def view(error: RateLimitError, request: Request) -> Response:
        assert (error.limit, error.remaining, error.violated) == (2, 0, ["burst"])
        return Response(f"try again in {error.retry_after} s", status=error.status_int)

    def configure(config: Configurator) -> None:
        config.add_exception_view(view, context=RateLimitError)

    response = refused(make_app(BURST, configure=configure))
    assert response.status_int == 429
    assert response.text == "try again in 60 s"
    assert response.headers["Retry-After"] == "60"
    assert response.headers["X-RateLimit-Limit"] == "2"
    assert parsed(response, "RateLimit") == {"burst": {"r": 0, "t": 60}}


def test_all_violated_limits_are_named() -> None:
    limits = [{**BURST, "limit": 1, "name": name, "window": w} for name, w in (("a", 9), ("b", 90))]
    response = refused(make_app(limits), headers={"Accept": "application/json"})
    assert response.json["violated-policies"] == ["a", "b"]
    assert response.headers["Retry-After"] == "90"


def test_a_refused_request_never_says_that_it_may_come_back_at_once() -> None:
    response = refused(make_app({**BURST, "limit": 1, "window": 0.001, "strategy": "gcra"}))
    assert parsed(response, "RateLimit")["burst"]["t"] == 1
    assert response.headers["Retry-After"] == "1"


# -- preflights --------------------------------------------------------------------------------

PREFLIGHT = {"Origin": "https://example.org", "Access-Control-Request-Method": "PUT"}


def preflight_app(limits: Any) -> TestApp:
    def configure(config: Configurator) -> None:
        config.add_route("limited", "/limited")
        config.add_view(lambda request: Response(), route_name="limited", ratelimit=limits)

    return make_app(limits, configure=configure)


@pytest.mark.parametrize("path", ["/", "/limited"])
def test_preflights_are_neither_counted_nor_refused(path: str) -> None:
    app = preflight_app(BURST)
    for _ in range(4):
        response = app.options(path, headers=PREFLIGHT, status=200)
        assert "X-RateLimit-Limit" not in response.headers
    assert statuses(app, 3, path) == [200, 200, 429]
    assert app.options(path, headers=PREFLIGHT, status=200)


@pytest.mark.parametrize("missing", PREFLIGHT)
def test_other_options_requests_are_counted(missing: str) -> None:
    app = make_app(BURST)
    headers = {name: value for name, value in PREFLIGHT.items() if name != missing}
    found = [app.options("/", headers=headers, status="*").status_int for _ in range(3)]
    assert found == [200, 200, 429]


def test_a_limit_whose_methods_name_options_counts_preflights() -> None:
    app = make_app([{**BURST, "methods": ["OPTIONS", "GET"]}, DAILY])
    found = [app.options("/", headers=PREFLIGHT, status="*") for _ in range(3)]
    assert [response.status_int for response in found] == [200, 200, 429]
    assert list(parsed(found[0], "RateLimit")) == ["burst"]


# -- the next window ---------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
def test_a_client_is_admitted_again_later(store: Settings, strategy: str) -> None:
    """By the clock of the store. That of memcached counts seconds, but the limit does not."""
    app = make_app({"limit": 3, "window": 0.6, "strategy": strategy, **store})
    refused(app)
    deadline = time.monotonic() + 30
    while app.get("/", status="*").status_int != 200:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_new_window_has_the_whole_limit(store: Settings) -> None:
    app = make_app({"limit": 3, "window": 0.5, **store})
    for _ in range(2):
        response = refused(app)
        assert response.headers["Retry-After"] == "1"
        time.sleep(0.55)
    response = app.get("/")
    assert response.headers["X-RateLimit-Remaining"] == "2"


# -- request.ratelimit -------------------------------------------------------------------------


def test_a_view_sees_what_was_decided() -> None:
    def configure(config: Configurator) -> None:
        config.add_route("told", "/told")
        config.add_view(told, route_name="told", renderer="json")

    def told(request: Request) -> dict[str, Any]:
        found = request.ratelimit
        return {
            "limit": found.limit,
            "remaining": found.remaining,
            "reset": found.reset,
            "results": [
                [one.name, one.limit, one.remaining, one.window, one.allowed]
                for one in found.results
            ],
        }

    answer = make_app([BURST, DAILY], configure=configure).get("/told").json
    assert 59 < answer.pop("reset") <= 60
    assert answer == {
        "limit": 2,
        "remaining": 1,
        "results": [["burst", 2, 1, 60, True], ['da"i\\l%y', 1000, 999, 86400, True]],
    }


@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
def test_a_view_can_charge_more(store: Settings, strategy: str) -> None:
    app = charging_app({"limit": 10, "window": 3600, "strategy": strategy, **store})
    response = app.get("/charge?cost=5")
    assert response.text == response.headers["X-RateLimit-Remaining"] == "4"
    assert app.get("/charge?cost=5", status=429).headers["X-RateLimit-Remaining"] == "3"
    assert app.get("/charge?cost=-2").headers["X-RateLimit-Remaining"] == "4"
    assert app.get("/charge?cost=3").headers["X-RateLimit-Remaining"] == "0"
    assert app.get("/", status=429)


def test_a_charge_counts_on_all_limits_or_on_none() -> None:
    separate = {"kvs_kwargs": {"max_bytes": 1_000_000}}
    limits = [{**BURST, "limit": 20}, {**DAILY, **separate, "limit": 8, "name": "daily"}]
    app = charging_app(limits)
    app.get("/charge?cost=4")
    response = app.get("/charge?cost=9", status=429)
    assert parsed(response, "RateLimit")["daily"]["r"] == 2
    response = app.get("/charge?cost=1")
    remaining = {name: found["r"] for name, found in parsed(response, "RateLimit").items()}
    assert remaining == {"burst": 12, "daily": 0}


@pytest.mark.parametrize("cost", [1.5, "5", True])
def test_a_charge_is_an_integer(cost: Any) -> None:
    def configure(config: Configurator) -> None:
        config.add_route("charge", "/charge")
        config.add_view(lambda request: request.ratelimit.charge(cost), route_name="charge")

    with pytest.raises(TypeError, match="a cost is an integer"):
        make_app(BURST, configure=configure).get("/charge")


def test_cost_counts_more_than_one() -> None:
    app = make_app({**BURST, "limit": 7, "cost": 3})
    assert [app.get("/").headers["X-RateLimit-Remaining"] for _ in range(2)] == ["4", "1"]
    assert app.get("/", status=429).headers["X-RateLimit-Remaining"] == "1"


def test_limits_of_two_stores_count_together() -> None:
    """The first store gets its unit back if the second one refuses the request.

    While the client is known to be refused, the first store is not asked.
    """
    other = {"kvs_kwargs": {"max_bytes": 1_000_000}}
    app = make_app([{**BURST, "limit": 100}, {**DAILY, **other, "limit": 1, "name": "one"}])
    app.get("/")
    seen = []
    for _ in range(3):
        remaining = parsed(app.get("/", status=429), "RateLimit")
        seen.append({name: found["r"] for name, found in remaining.items()})
    assert seen == [{"burst": 99, "one": 0}, {"one": 0}, {"one": 0}]


def test_a_view_that_does_without_a_refused_charge_sends_no_retry_after() -> None:
    def view(request: Request) -> Response:
        try:
            request.ratelimit.charge(100)
        except RateLimitError:
            return Response("less", status=int(request.params["status"]))
        raise AssertionError

    def configure(config: Configurator) -> None:
        config.add_route("view", "/view")
        config.add_view(view, route_name="view")

    app = make_app(BURST, configure=configure)
    assert "Retry-After" not in app.get("/view?status=200").headers
    assert app.get("/view?status=429", status=429).headers["Retry-After"] == "60"

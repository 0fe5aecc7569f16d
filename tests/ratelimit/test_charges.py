"""Charging a request more, past the limit, and returning units."""

from __future__ import annotations

import re
import time

import pytest
from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response

from pyramid_kvs.ratelimit import limiter_of
from pyramid_kvs.ratelimit.counting import MOST, Rule, returning
from tests.ratelimit.stores import STRATEGY_NAMES, Settings, charging_app, make_app, statuses


@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
def test_a_charge_can_pass_the_limit_and_refuse_nothing_now(store: Settings, strategy: str) -> None:
    app = charging_app({"limit": 5, "window": 600, "strategy": strategy, **store}, refuse=False)
    response = app.get("/charge?cost=9")
    assert response.headers["X-RateLimit-Remaining"] == "0"
    assert "Retry-After" not in response.headers
    refused = app.get("/", status=429)
    # The bucket has five units too many, and the request needs one more.
    expected = {"fixed-window": 600, "sliding-window": 960, "gcra": 720}[strategy]
    assert expected - 30 <= int(refused.headers["Retry-After"]) <= expected


@pytest.mark.parametrize("cost", [10**15, -(10**15), 10**400])
def test_a_charge_has_at_most_fifteen_digits(cost: int) -> None:
    app = charging_app({"limit": 5, "window": 600, "kvs": "memory"})
    with pytest.raises(ValueError, match="cost: expected a number from -999999999999999 to"):
        app.get(f"/charge?cost={cost}")


@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
def test_the_largest_charges_are_refused_or_counted(store: Settings, strategy: str) -> None:
    limit = {"limit": 5, "window": 600, "strategy": strategy, **store}
    charging_app(limit).get(f"/charge?cost={MOST}", status=429)
    app = charging_app(limit, refuse=False)
    for _ in range(2):
        app.get(f"/charge?cost={MOST}", status="*")
    time.sleep(1)  # a process refuses for this long without asking the store
    response = app.get("/", status=429)
    assert max(map(len, re.findall(r"\d+", response.headers["RateLimit"]))) <= 15


def test_units_of_an_earlier_window_are_not_taken_from_a_later_one(store: Settings) -> None:
    def slow(request: Request) -> Response:
        time.sleep(1.05)
        started = time.monotonic()
        found = [app.get("/").headers["X-RateLimit-Remaining"] for _ in range(2)]
        request.ratelimit.charge(-1)
        found.append(app.get("/").headers["X-RateLimit-Remaining"])
        is_quick = time.monotonic() - started < 0.9
        return Response("/".join(found) if is_quick else "too slow")

    def configure(config: Configurator) -> None:
        config.add_route("slow", "/slow")
        config.add_view(slow, route_name="slow")

    app = make_app({"limit": 9, "window": 1, **store}, configure=configure)
    found = app.get("/slow").text
    while found == "too slow":
        found = app.get("/slow").text
    assert found == "8/7/6"


@pytest.mark.parametrize(
    ("units", "age_ms", "left", "returned"),
    [
        (4, 0, 90, 4),  # 10 units in the bucket, of which none has drained
        (4, 60, 90, 4),
        (4, 70, 90, 3),  # 7 have drained: the other 6 first
        (4, 100, 90, 0),
        (4, 5000, 90, 0),
        (10**9, 0, 0, 100),
        (10**9, 0, None, 10**9),
        (10**17, 0, None, MOST),
    ],
)
def test_units_that_have_drained_are_not_returned(
    units: int, age_ms: int, left: int | None, returned: int
) -> None:
    """Otherwise they would be taken from requests that came later."""
    rule = Rule("gcra", 100, 1000, 100)
    assert returning(rule, units, age_ms, left) == rule._replace(cost=-returned, age_ms=age_ms)


def test_a_limit_in_shadow_mode_gets_no_units_back_that_it_has_not_counted() -> None:
    """The first store would have refused the request, and the second one refuses it."""
    app = make_app(
        [
            {"name": "a", "limit": 1, "window": 600, "mode": "shadow", "kvs": "memory"},
            {"name": "b", "limit": 1, "window": 600, "kvs": "memory", "key_prefix": "other::"},
        ]
    )
    assert statuses(app, 3) == [200, 429, 429]
    limiter = limiter_of(app.app.registry)
    assert limiter is not None
    shadow = limiter.registry.limits[0]
    state = shadow.store.driver.raw_get(f"@address::192.0.2.1{shadow.suffix}")
    assert state.startswith("f:1:")

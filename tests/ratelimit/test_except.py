"""Networks that a limit does not count (``except``)."""

from __future__ import annotations

from typing import Any

import pytest
from pyramid.config import Configurator
from webtest import TestApp

from tests.ratelimit.stores import hello, make_app, mock_keys, policies, statuses

NETWORKS = ["10.0.0.0/8", "2001:db8::/32", "192.0.2.7"]
LIMIT = {"limit": 2, "window": 600, "kvs": "memory", "except": NETWORKS, "name": "public"}
SITE = {"limit": 9, "window": 600, "kvs": "memory", "name": "site"}


def app_with(limits: Any, option: Any = None) -> TestApp:
    def configure(config: Configurator) -> None:
        config.add_route("view", "/view")
        config.add_view(hello, route_name="view", ratelimit=option)

    return make_app(limits, configure=configure)


def from_address(app: TestApp, address: str, path: str = "/") -> list[int]:
    return statuses(app, 4, path, extra_environ={"REMOTE_ADDR": address})


@pytest.mark.parametrize("address", ["10.255.0.1", "2001:db8:9::1", "192.0.2.7", "::ffff:10.0.0.1"])
def test_an_address_in_a_network_is_exempt(address: str) -> None:
    app = app_with(LIMIT)
    assert from_address(app, address) == [200] * 4
    response = app.get("/", extra_environ={"REMOTE_ADDR": address})
    assert "X-RateLimit-Limit" not in response.headers
    assert "RateLimit" not in response.headers


@pytest.mark.parametrize("address", ["11.0.0.1", "192.0.2.8", "2001:db9::1", "unix:", "", "::1"])
def test_other_addresses_are_counted(address: str) -> None:
    assert from_address(app_with(LIMIT), address) == [200, 200, 429, 429]


def test_a_header_is_not_believed() -> None:
    app = app_with(LIMIT)
    found = statuses(app, 3, headers={"X-Forwarded-For": "10.0.0.1"})
    assert found == [200, 200, 429]


def test_other_limits_count_an_exempt_address() -> None:
    app = app_with([LIMIT, SITE])
    assert policies(app.get("/", extra_environ={"REMOTE_ADDR": "10.0.0.1"})) == ["site"]
    assert policies(app.get("/")) == ["public", "site"]


@pytest.mark.parametrize("by", ["user", "session", f"{__name__}.everybody"])
def test_limits_by_anything_have_exceptions(by: str) -> None:
    app = app_with({**LIMIT, "by": by})
    assert from_address(app, "10.0.0.1") == [200] * 4
    assert from_address(app, "11.0.0.1") == [200, 200, 429, 429]


def everybody(request: Any) -> str:
    return "everybody"


def test_limits_of_views_have_exceptions() -> None:
    app = app_with(SITE, LIMIT)
    assert from_address(app, "10.0.0.1", "/view") == [200] * 4
    assert from_address(app, "11.0.0.1", "/view") == [200, 200, 429, 429]


def test_nothing_is_stored_for_an_exempt_address(mock_store: Any) -> None:
    from_address(app_with({**LIMIT, **mock_store}), "10.0.0.1")
    assert mock_keys() == []

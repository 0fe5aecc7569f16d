"""Settings of the stores that limits count on, and applications for tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response
from webtest import TestApp

from pyramid_kvs.kvs import KVS
from pyramid_kvs.ratelimit.counting import STRATEGIES
from pyramid_kvs.testing import MockCache
from tests.stores import SHARED_STORES, STORES, settings_of

__all__ = ["SHARED_STORES", "STORES"]

Settings = dict[str, Any]

STRATEGY_NAMES = list(STRATEGIES)


def store_settings(name: str, request: pytest.FixtureRequest) -> Settings:
    """Return ``kvs`` and ``kvs_kwargs`` of a store whose server is running and empty."""
    settings = settings_of(name, request)
    if name == "postgresql":
        driver = KVS(**settings)
        driver.initialize_schema()
        driver.close()
    return settings


@pytest.fixture
def mock_store(monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings of the mock driver, whose store is empty."""
    monkeypatch.setattr(MockCache, "cached_data", {})
    return {"kvs": "mock"}


def mock_keys() -> list[str]:
    """Return the keys in the store of the mock driver."""
    return [key.decode() for key in MockCache.cached_data]


def hello(request: Request) -> Response:
    return Response("hello")


def visit(request: Request) -> Response:
    """Count visits in the session."""
    request.session["visits"] = request.session.get("visits", 0) + 1
    return Response(str(request.session["visits"]))


def make_app(
    ratelimit: Any,
    session: Settings | None = None,
    configure: Callable[[Configurator], None] | None = None,
    address: str | None = "192.0.2.1",
    **settings: Any,
) -> TestApp:
    """Return an application with a rate limit and the views ``/`` (hello) and ``/visit``."""
    settings["kvs.ratelimit"] = ratelimit
    if session is not None:
        settings["kvs.session"] = json.dumps(session)
    config = Configurator(settings=settings)
    config.include("pyramid_kvs")
    config.add_route("hello", "/")
    config.add_view(hello, route_name="hello")
    config.add_route("visit", "/visit")
    config.add_view(visit, route_name="visit")
    if configure is not None:
        configure(config)
    app = config.make_wsgi_app()
    return TestApp(app, extra_environ={} if address is None else {"REMOTE_ADDR": address})


def charging_app(limits: Any, refuse: bool = True) -> TestApp:
    """Return an application whose view ``/charge`` charges ``cost`` and answers what remains."""

    def charge(request: Request) -> Response:
        request.ratelimit.charge(int(request.params["cost"]), refuse=refuse)
        return Response(str(request.ratelimit.remaining))

    def configure(config: Configurator) -> None:
        config.add_route("charge", "/charge")
        config.add_view(charge, route_name="charge")

    return make_app(limits, configure=configure)


def policies(response: Any) -> list[str]:
    """Return the names of the limits in the header field ``RateLimit`` of a response."""
    listed = response.headers.get("RateLimit", "")
    return [item.split('"')[1] for item in listed.split(", ") if item]


def statuses(app: TestApp, count: int, path: str = "/", **options: Any) -> list[int]:
    """Send some requests; return the statuses of their responses."""
    return [app.get(path, status="*", **options).status_int for _ in range(count)]


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> Settings:
    """The settings of each store."""
    return store_settings(request.param, request)

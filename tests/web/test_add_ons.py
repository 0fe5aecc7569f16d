"""Add-ons of other authors beside sessions: they create no session, and responses carry Vary."""

from __future__ import annotations

from typing import Any

import pytest
from cornice import Service
from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response
from webtest import TestApp

from tests.session.apps import COOKIE, Store, memory_options, new_session

ORIGIN = {"Origin": "https://shop.example"}
PREFLIGHT = {**ORIGIN, "Access-Control-Request-Method": "POST"}
PAGE = "<html><body><h1>{}</h1></body></html>"


@pytest.fixture
def memory() -> Store:
    return Store("memory", memory_options())


def vary(response: Any) -> set[str]:
    found = ",".join(response.headers.getall("Vary"))
    return {name.strip().lower() for name in found.split(",") if name.strip()}


# -- pyramid_debugtoolbar --------------------------------------------------------------------


@pytest.fixture
def with_toolbar(memory: Store) -> TestApp:
    """An application with the toolbar, and with pages that use the session or do not."""
    config = Configurator(settings={"kvs.session": memory.options})
    config.include("pyramid_kvs")
    config.include("pyramid_debugtoolbar")
    config.add_route("plain", "/plain")
    config.add_view(lambda request: Response(PAGE.format("plain")), route_name="plain")
    config.add_route("greeting", "/greeting")
    config.add_view(
        lambda request: Response(PAGE.format(request.session.get("name"))), route_name="greeting"
    )
    return TestApp(config.make_wsgi_app(), extra_environ={"REMOTE_ADDR": "127.0.0.1"})


def test_the_toolbar_creates_no_session(memory: Store, with_toolbar: TestApp) -> None:
    response = with_toolbar.get("/plain")
    assert "pDebug" in response.text  # the toolbar is there
    assert COOKIE not in with_toolbar.cookies
    assert memory.driver.get_keys() == []
    assert "cookie" not in vary(response)
    with_toolbar.get("/_debug_toolbar/", status=200)
    assert memory.driver.get_keys() == []


def test_a_page_with_a_session_works_under_the_toolbar(
    memory: Store, with_toolbar: TestApp
) -> None:
    with_toolbar.set_cookie(COOKIE, new_session(memory.factory(), name="ann"))
    response = with_toolbar.get("/greeting")
    assert "<h1>ann</h1>" in response.text
    assert "pDebug" in response.text
    assert "cookie" in vary(response)
    assert len(memory.driver.get_keys()) == 1


# -- cornice ---------------------------------------------------------------------------------


@pytest.fixture
def with_cornice(memory: Store) -> TestApp:
    """An API with CORS, whose POST uses the session."""
    orders = Service(
        name="orders",
        path="/orders",
        cors_origins=(ORIGIN["Origin"],),
        cors_credentials=True,
    )

    def order(request: Request) -> dict[str, int]:
        request.session["orders"] = request.session.get("orders", 0) + 1
        return {"orders": request.session["orders"]}

    orders.add_view("GET", lambda request: {"orders": []})
    orders.add_view("POST", order)
    config = Configurator(settings={"kvs.session": memory.options})
    config.include("pyramid_kvs")
    config.include("cornice")
    config.add_cornice_service(orders)
    return TestApp(config.make_wsgi_app())


def test_a_preflight_creates_no_session(memory: Store, with_cornice: TestApp) -> None:
    response = with_cornice.options("/orders", headers=PREFLIGHT)
    assert response.headers["Access-Control-Allow-Origin"] == ORIGIN["Origin"]
    assert "Set-Cookie" not in response.headers
    assert memory.driver.get_keys() == []


def test_a_request_without_the_session_creates_none(memory: Store, with_cornice: TestApp) -> None:
    response = with_cornice.get("/orders", headers=ORIGIN)
    assert response.headers["Access-Control-Allow-Origin"] == ORIGIN["Origin"]
    assert memory.driver.get_keys() == []


def test_a_cross_origin_request_has_its_session(memory: Store, with_cornice: TestApp) -> None:
    counts = []
    for _ in range(2):
        response = with_cornice.post("/orders", headers=ORIGIN)
        counts.append(response.json["orders"])
        assert response.headers["Access-Control-Allow-Origin"] == ORIGIN["Origin"]
        assert response.headers["Access-Control-Allow-Credentials"] == "true"
        assert "cookie" in vary(response)
    assert counts == [1, 2]
    assert len(memory.driver.get_keys()) == 1

"""The ``mock`` driver of ``pyramid_kvs.testing``."""

from __future__ import annotations

import time
from typing import Any

import pytest
from pyramid.config import Configurator
from webtest import TestApp

from pyramid_kvs.testing import MockCache


@pytest.fixture
def mocked(monkeypatch: pytest.MonkeyPatch) -> Configurator:
    monkeypatch.setattr(MockCache, "cached_data", {b"cache::filled": '{"by": "hand"}'})
    config = Configurator(
        settings={"pyramid.includes": "pyramid_kvs.testing", "kvs.cache": '{"kvs": "mock"}'}
    )
    config.add_route("home", "/")
    return config


def test_a_test_may_read_and_fill_the_mock(mocked: Configurator) -> None:
    def view(request: Any) -> Any:
        request.cache.set("written", [1], 42)
        return request.cache["filled"]

    mocked.add_view(view, route_name="home", renderer="json")
    assert TestApp(mocked.make_wsgi_app()).get("/").json == {"by": "hand"}
    assert MockCache.cached_data[b"cache::written"] == "[1]"
    assert MockCache.last_ttl == 42


def test_a_test_may_replace_the_data(mocked: Configurator) -> None:
    mocked.add_view(lambda request: request.cache["key"], route_name="home", renderer="json")
    app = TestApp(mocked.make_wsgi_app())
    MockCache.cached_data = {b"cache::key": "7"}
    assert app.get("/").json == 7


def test_data_that_a_test_puts_there_never_expires(mocked: Configurator) -> None:
    kvs = MockCache("mock", {}, "cache::")
    kvs.set("key", 1, 0.05)
    MockCache.cached_data[b"cache::key"] = "2"
    time.sleep(0.1)
    assert kvs.get("key") == 2
    assert kvs.ttl_of("key") < 0

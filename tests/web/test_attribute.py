"""Attributes of requests, and what a request says about one whose setting is missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.request import Request
from webtest import TestApp

ATTRIBUTES = ["cache", "ratelimit", "perlsess"]


def build(view: Callable[[Any], Any], configure: Any = None, **settings: Any) -> TestApp:
    named = {f"kvs.{name}": value for name, value in settings.items()}
    config = Configurator(settings=named)
    if configure is not None:
        config.include(configure)
    config.include("pyramid_kvs")
    config.add_route("home", "/")
    config.add_view(view, route_name="home", renderer="json")
    return TestApp(config.make_wsgi_app())


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_a_missing_attribute_names_its_setting(name: str) -> None:
    def view(request: Any) -> Any:
        assert not hasattr(request, name)
        message = f"'Request' object has no attribute '{name}': the setting kvs.{name} is missing"
        with pytest.raises(AttributeError, match=message):
            getattr(request, name)
        return "seen"

    assert build(view).get("/").json == "seen"


@pytest.mark.parametrize("setting", [None, "", "null"])
def test_an_empty_setting_is_missing(setting: str | None) -> None:
    with pytest.raises(AttributeError, match=r"the setting kvs\.cache is missing"):
        build(lambda request: request.cache, cache=setting).get("/")


def test_an_attribute_whose_setting_is_there_needs_no_explanation() -> None:
    app = build(lambda request: request.cache.get("key", "miss"), cache={"kvs": "memory"})
    assert app.get("/").json == "miss"


def test_any_other_missing_attribute_is_left_to_python() -> None:
    with pytest.raises(AttributeError) as info:
        build(lambda request: request.cash).get("/")
    assert "kvs" not in str(info.value)


@pytest.mark.parametrize("options", [{}, {"property": True}, {"reify": True}])
def test_an_attribute_of_somebody_else_is_used(options: dict[str, bool]) -> None:
    def configure(config: Any) -> None:
        config.add_request_method(lambda request: "mine", "cache", **options)

    def view(request: Any) -> Any:
        return request.cache if options else request.cache()

    assert build(view, configure).get("/").json == "mine"


def test_an_attribute_that_a_view_sets_is_used() -> None:
    def view(request: Any) -> Any:
        request.cache = "mine"
        assert request.cache == "mine"
        del request.cache
        return hasattr(request, "cache")

    assert build(view).get("/").json is False


class OwnRequest(Request):
    cache = "mine"


def test_the_request_factory_of_the_application_is_used() -> None:
    def view(request: Any) -> Any:
        assert isinstance(request, OwnRequest)
        assert type(request).__name__ == "OwnRequest"
        return [request.cache, hasattr(request, "perlsess")]

    app = build(view, lambda config: config.set_request_factory(OwnRequest))
    assert app.get("/").json == ["mine", False]
    assert not hasattr(OwnRequest, "perlsess")
    assert not hasattr(Request, "cache")


def test_a_request_factory_may_be_a_function() -> None:
    def configure(config: Any) -> None:
        config.set_request_factory(lambda environ: Request(environ))

    assert build(lambda request: hasattr(request, "cache"), configure).get("/").json is False

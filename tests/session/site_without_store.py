"""An application that uses a store at each place of a request's life: ``/PLACE?use=FEATURE``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyramid.config import Configurator
from pyramid.events import BeforeRender, NewResponse
from pyramid.httpexceptions import HTTPForbidden, HTTPNotFound
from pyramid.request import Request
from pyramid.response import Response
from pyramid.tweens import EXCVIEW

from pyramid_kvs.exceptions import KVSUnavailable

USES: dict[str, Callable[[Request], Any]] = {
    "session": lambda request: request.session.get("name"),
    "flash": lambda request: request.session.pop_flash(),
    "csrf": lambda request: request.session.get_csrf_token(),
    "cache": lambda request: request.cache.get("key"),
    "perlsess": lambda request: request.perlsess.get("user"),
}

PLACES = [
    *("view", "not-found-view", "exception-view", "forbidden-view", "view-of-kvs-unavailable"),
    *("response-callback", "new-response", "finished-callback", "tween", "before-render"),
]


def settings_of(store: dict[str, Any]) -> dict[str, Any]:
    """Return settings whose features all use one store and raise if it is unavailable."""
    return {
        "kvs.session": store,
        "kvs.cache": {**store, "on_error": "raise"},
        "kvs.perlsess": {**store, "cookie_name": "perl"},
    }


def use(request: Request, *_: Any) -> Response:
    """Use the feature that the query string names."""
    USES[request.params["use"]](request)
    return Response("used", status=200 if request.exception is None else 500)


def view(request: Request) -> Any:
    """Lead the request to the place that its path names."""
    place = request.matchdict["place"]
    if place == "view":
        return use(request)
    if place == "not-found-view":
        raise HTTPNotFound
    if place == "exception-view":
        raise KeyError("a bug of the application")
    if place == "forbidden-view":
        raise HTTPForbidden
    if place == "response-callback":
        request.add_response_callback(use)
    if place == "finished-callback":
        request.add_finished_callback(use)
    return {"place": place}


def tween_factory(handler: Callable[[Request], Response], registry: Any) -> Any:
    def tween(request: Request) -> Response:
        if request.path == "/tween":
            use(request)
        return handler(request)

    return tween


def use_at(path: str) -> Callable[[Any], None]:
    """Return a subscriber that uses the feature in requests for a path."""

    def subscriber(event: Any) -> None:
        request = event["request"] if isinstance(event, BeforeRender) else event.request
        if request.path == path:
            use(request)

    return subscriber


def make_application(settings: dict[str, Any], *includes: str) -> Any:
    config = Configurator(settings=settings)
    config.include("pyramid_kvs")
    for include in includes:
        config.include(include)
    config.add_notfound_view(lambda error, request: use(request))
    config.add_forbidden_view(lambda error, request: use(request))
    config.add_exception_view(lambda error, request: use(request), context=KeyError)
    config.add_tween(f"{__name__}.tween_factory", over=EXCVIEW)
    config.add_subscriber(use_at("/new-response"), NewResponse)
    config.add_subscriber(use_at("/before-render"), BeforeRender)
    config.add_route("ready", "/ready")
    config.add_view(lambda request: Response("ready"), route_name="ready")
    config.add_route("own", "/view-of-kvs-unavailable")
    config.add_view(use, route_name="own")
    config.add_exception_view(
        lambda error, request: use(request), context=KVSUnavailable, route_name="own"
    )
    config.add_route("place", "/{place}")
    config.add_view(view, route_name="place", renderer="json")
    return config.make_wsgi_app()

"""A WSGI application that uses its store while it is loaded: each page shows its visitor's name."""

from __future__ import annotations

import json
import os

from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response

from pyramid_kvs.cache import cache_of


def who(request: Request) -> Response:
    """Return what the visitor's session and the cache say, and count the page."""
    name = request.session["name"]
    request.session["pages"] = request.session.get("pages", 0) + 1
    cached = request.cache.get_or_create(f"name-{name}", lambda: name)
    return Response(f"{name} {cached}")


def make_application() -> object:
    store = json.loads(os.environ["STORE"])
    config = Configurator(
        settings={
            "pyramid.includes": "pyramid_kvs",
            "kvs.session": store,
            "kvs.cache": store,
            "kvs.ratelimit": {"limit": 1_000_000, "window": 60},
        }
    )
    config.add_route("who", "/who")
    config.add_view(who, route_name="who")
    config.add_route("ready", "/ready")
    config.add_view(lambda request: Response("ready"), route_name="ready", ratelimit=False)
    application = config.make_wsgi_app()
    cache = cache_of(config.registry)
    assert cache is not None
    cache.set("loaded", os.getpid())  # the master has an open connection from now on
    return application


application = make_application()

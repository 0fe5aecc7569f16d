"""An application whose page uses the cache, the session and a rate limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyramid.config import Configurator
from pyramid.request import Request
from webtest import TestApp


def page(request: Request) -> str:
    """Look three values up, as a page does that shows three things."""
    return " ".join(request.cache.get_or_create(f"part{n}", lambda n=n: f"{n}") for n in range(3))


def visited(request: Request) -> str:
    """Count the visits in the session."""
    request.session["visits"] = request.session.get("visits", 0) + 1
    return str(request.session["visits"])


def build(add: Callable[[Configurator], None] = lambda config: None, **settings: Any) -> TestApp:
    """Build an application with pages at ``/`` and ``/visited``; settings without ``kvs.``.

    :param add: adds more to the configuration.
    """
    config = Configurator(settings={f"kvs.{name}": value for name, value in settings.items()})
    config.include("pyramid_kvs")
    for path, view in (("", page), ("visited", visited)):
        config.add_route(path or "home", f"/{path}")
        config.add_view(view, route_name=path or "home", renderer="string")
    add(config)
    return TestApp(config.make_wsgi_app())

"""A WSGI application with a health view, whose store the environment names."""

from __future__ import annotations

import json
import os

from pyramid.config import Configurator
from pyramid.response import Response


def make_application() -> object:
    store = json.loads(os.environ["STORE"])
    settings = {"kvs.cache": store, "kvs.health": {"path": "/health"}}
    config = Configurator(settings={"pyramid.includes": "pyramid_kvs", **settings})
    config.add_route("ready", "/ready")
    config.add_view(lambda request: Response("ready"), route_name="ready")
    return config.make_wsgi_app()


application = make_application()

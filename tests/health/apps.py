"""An application with a health view."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyramid.config import Configurator
from webtest import TestApp, TestResponse

PATH = "/health"


def build(
    configure: Callable[[Configurator], None] = lambda config: None, **settings: Any
) -> TestApp:
    """Build an application; settings without ``kvs.``."""
    found = {"health": {"path": PATH}, **settings}
    config = Configurator(settings={f"kvs.{name}": value for name, value in found.items()})
    config.include("pyramid_kvs")
    configure(config)
    return TestApp(config.make_wsgi_app(), extra_environ={"REMOTE_ADDR": "192.0.2.1"})


def ask(app: TestApp, status: int) -> list[dict[str, Any]]:
    """Ask for the health; return what it says of each store."""
    response: TestResponse = app.get(PATH, status=status)
    stores: list[dict[str, Any]] = response.json["stores"]
    return stores

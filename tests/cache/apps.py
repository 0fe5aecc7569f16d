"""Applications with a cache, and the cache of a store."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from pyramid.config import Configurator
from webtest import TestApp

from pyramid_kvs.application import Application
from pyramid_kvs.cache import ApplicationCache
from pyramid_kvs.kvs import KVS

Options = dict[str, Any]


def build(view: Callable[[Any], Any], options: Options) -> TestApp:
    """Build an application of one view at ``/``, with a cache."""
    config = Configurator(settings={"kvs.cache": options})
    config.include("pyramid_kvs")
    config.add_route("home", "/")
    config.add_view(view, route_name="home", renderer="json")
    app = config.make_wsgi_app()
    for store in Application.of(config.registry).stores:
        store.driver.initialize_schema()
    return TestApp(app)


def cache_of(options: Options, on_error: str = "miss") -> ApplicationCache:
    """Return a cache on a store, without an application."""
    kvs = KVS(options["kvs"], options.get("kvs_kwargs"), "cache::")
    kvs.initialize_schema()
    return ApplicationCache(kvs, on_error)


def run(count: int, work: Callable[[], Any]) -> None:
    """Run ``work`` in several threads, and wait for them."""
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

"""Observed applications, and what their listeners were told."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from pyramid.config import Configurator
from pyramid.registry import Registry
from webtest import TestApp

from pyramid_kvs.application import Application
from pyramid_kvs.cache import ApplicationCache, cache_of
from pyramid_kvs.kvs import KVS, Listener, Operation
from tests.servers import missing

Options = dict[str, Any]


def imported(name: str) -> Any:
    """Return a module that only some tests need."""
    try:
        return importlib.import_module(name)
    except ImportError:
        missing(f"{name} is not installed")


class Told(list[Operation]):
    """A listener that keeps what it was told."""

    def __call__(self, operation: Operation) -> None:
        self.append(operation)

    def taken(self) -> list[Operation]:
        """Return what was told since the last time."""
        found = list(self)
        self.clear()
        return found

    def figures(self) -> list[dict[str, Any]]:
        """Return what was told since the last time, without what is zero, and without names."""
        hidden = ("setting", "driver", "server", "seconds", "round_trips")
        return [
            {name: value for name, value in told._asdict().items() if value and name not in hidden}
            for told in self.taken()
        ]


def configured(
    settings: dict[str, Any],
    *listeners: Listener,
    configure: Callable[[Configurator], object] = lambda config: None,
) -> Registry:
    """Return the registry of an application with listeners, whose stores are ready."""
    return started(settings, *listeners, configure=configure).app.registry


def started(
    settings: dict[str, Any],
    *listeners: Listener,
    configure: Callable[[Configurator], object] = lambda config: None,
) -> TestApp:
    """Return an application with listeners, whose stores are ready."""
    config = Configurator(settings=settings)
    config.include("pyramid_kvs")
    for listener in listeners:
        config.add_kvs_listener(listener)
    configure(config)
    app = TestApp(config.make_wsgi_app())
    for store in Application.of(config.registry).stores:
        store.driver.initialize_schema()
    return app


def with_view(view: Callable[[Any], Any]) -> Callable[[Configurator], None]:
    """Return what adds a view at ``/``."""

    def configure(config: Configurator) -> None:
        config.add_route("home", "/")
        config.add_view(view, route_name="home", renderer="string")

    return configure


def cache(registry: Registry) -> ApplicationCache:
    found = cache_of(registry)
    assert found is not None
    return found


def driver_of(registry: Registry, setting: str = "kvs.cache") -> KVS:
    (found,) = [store for store in Application.of(registry).stores if store.setting == setting]
    return found.driver


def observed_cache(told: Listener, options: Options) -> ApplicationCache:
    """Return the cache of an application with one listener, which has been told nothing yet."""
    registry = configured({"kvs.cache": {"key_prefix": "cache::", **options}}, told)
    if isinstance(told, Told):
        told.clear()
    return cache(registry)

"""``kvs.cache``: ``request.cache``, shared by all requests of the application."""

from __future__ import annotations

from typing import Any

from pyramid.config import Configurator
from pyramid.registry import Registry

from ..application import Application, add_feature
from ..settings import is_set, parse
from ..stores import build_driver, read_options
from ..web.attribute import RequestAttribute
from .application_cache import ApplicationCache
from .settings import OPTIONS, SETTING

__all__ = ["ApplicationCache", "cache_of", "includeme", "subscribe"]


def cache_of(registry: Registry) -> ApplicationCache | None:
    """Return the cache of an application, or ``None`` if ``kvs.cache`` is not set."""
    return Application.of(registry).features.get(SETTING)


def includeme(config: Configurator) -> None:
    """Add ``request.cache``."""
    features = Application.of(config.registry).features
    add_feature(config, SETTING, lambda: _build(config.registry))
    config.add_request_method(RequestAttribute(lambda _: features.get(SETTING)), "cache")


def _build(registry: Registry) -> dict[str, object]:
    application = Application.of(registry)
    options = read_options(SETTING, parse(SETTING, registry.settings[SETTING]), OPTIONS)
    driver = build_driver(SETTING, options, application)
    application.features[SETTING] = ApplicationCache(driver, options["on_error"])
    return {"driver": options["kvs"], "key_prefix": options["key_prefix"]}


def subscribe(event: Any) -> None:
    """Put ``cache`` on the request of an event; see :func:`pyramid_kvs.subscribe_cache`.

    If the application does not include ``pyramid_kvs``, the first event creates the cache.
    """
    registry = event.request.registry
    if cache_of(registry) is None and is_set(registry.settings or {}, SETTING):
        _build(registry)
    cache = cache_of(registry)
    if cache is not None:
        event.request.cache = cache

"""``kvs.cache``: ``request.cache``, shared by all requests of the application."""

from __future__ import annotations

from typing import Any

from pyramid.config import Configurator
from pyramid.registry import Registry

from ..application import Application, RequestFeature
from ..stores import build_driver, parse, read_options, warn_of_unsigned_pickle
from .application_cache import ApplicationCache
from .prefixes import check_prefixes
from .settings import OPTIONS, SETTING

__all__ = ["ApplicationCache", "cache_of", "includeme", "subscribe"]


def cache_of(registry: Registry) -> ApplicationCache | None:
    """Return the cache of an application, or ``None`` if ``kvs.cache`` is not set."""
    return Application.of(registry).features.get(SETTING)


def _build(registry: Registry) -> tuple[ApplicationCache, dict[str, object]]:
    options = read_options(SETTING, parse(SETTING, registry.settings[SETTING]), OPTIONS)
    driver = build_driver(SETTING, options, Application.of(registry))
    if driver.is_shared:
        warn_of_unsigned_pickle(SETTING, options)
    shown = {"driver": options["kvs"], "key_prefix": options["key_prefix"]}
    return ApplicationCache(driver, options["on_error"]), shown


FEATURE = RequestFeature(SETTING, _build, lambda cache: lambda request: cache)


def includeme(config: Configurator) -> None:
    """Add ``request.cache``."""
    FEATURE.add_to(config)
    registry = config.registry
    Application.of(registry).start_checks.append(lambda: check_prefixes(registry))


def subscribe(event: Any) -> None:
    """Put ``cache`` on the request of an event; see :func:`pyramid_kvs.subscribe_cache`."""
    FEATURE.subscribe(event)

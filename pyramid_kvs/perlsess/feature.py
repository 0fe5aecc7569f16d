"""What the setting ``kvs.perlsess`` adds to an application."""

from __future__ import annotations

from typing import Any

from pyramid.config import Configurator
from pyramid.registry import Registry

from ..application import Application, RequestFeature
from ..stores import build_driver, parse, read_options, warn_of_unsigned_pickle
from .factory import PerlSessionFactory
from .settings import OPTIONS, SETTING


def perlsess_of(registry: Registry) -> PerlSessionFactory | None:
    """Return the factory of an application, or ``None`` if ``kvs.perlsess`` is not set."""
    return Application.of(registry).features.get(SETTING)


def _build(registry: Registry) -> tuple[PerlSessionFactory, dict[str, object]]:
    value = parse(SETTING, registry.settings[SETTING])
    options = read_options(SETTING, value, OPTIONS)
    driver = build_driver(SETTING, options, Application.of(registry))
    warn_of_unsigned_pickle(SETTING, options)
    factory = PerlSessionFactory(options, driver, renews="ttl" in value)
    return factory, {name: options[name] for name in ("kvs", "key_prefix", "format", "writable")}


FEATURE = RequestFeature(SETTING, _build, lambda factory: factory)


def includeme(config: Configurator) -> None:
    """Add ``request.perlsess``."""
    FEATURE.add_to(config)


def subscribe_perlsess(event: Any) -> None:
    """Put ``perlsess`` on the request of an event; see :func:`pyramid_kvs.subscribe_perlsess`."""
    FEATURE.subscribe(event)

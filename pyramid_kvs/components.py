"""What one application configured: its drivers, codecs and features, kept on its registry."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError
from pyramid.interfaces import PHASE0_CONFIG, PHASE1_CONFIG
from pyramid.registry import Registry

from . import serializer
from .kvs import (
    KVS,
    DriverNotInstalled,
    UnknownDriver,
    closest,
    driver_class,
    unknown_name,
)
from .serializer import Codec
from .settings import show, without_credentials

if TYPE_CHECKING:
    from .cache import ApplicationCache
    from .perlsess import PerlSessionFactory
    from .ratelimit import Ratelimit
    from .session import SessionFactory

log = logging.getLogger(__name__)

_REGISTRY_KEY = "pyramid_kvs"

#: More arguments of a client than these are too many for a message.
LISTED = 20

#: Drivers, codecs and options of features are made before views, which need some of them.
ORDER_NAMES = PHASE0_CONFIG
ORDER_FEATURES = PHASE1_CONFIG


@dataclass
class Components:
    """The library's state in one application; what is ``None`` or empty was not configured."""

    driver_classes: dict[str, type[KVS] | str] = field(default_factory=dict)
    codecs: dict[str, Codec] = field(default_factory=dict)
    #: setting name -> the driver built for it, in the order of configuration.
    drivers: dict[str, KVS] = field(default_factory=dict)
    cache: ApplicationCache | None = None
    session: SessionFactory | None = None
    ratelimit: Ratelimit | None = None
    perlsess: PerlSessionFactory | None = None


def components(registry: Registry) -> Components:
    """Return the components of an application, which are made on first use."""
    found = registry.get(_REGISTRY_KEY)
    if found is None:
        found = registry[_REGISTRY_KEY] = Components()
    return found  # type: ignore[no-any-return]


def add_kvs_driver(config: Configurator, name: str, driver_class: type[KVS] | str) -> None:
    """Make a driver known to this application: a subclass of ``KVS``, or its dotted name."""
    introspectable = config.introspectable("kvs drivers", name, name, "kvs driver")
    introspectable["class"] = driver_class

    def register() -> None:
        components(config.registry).driver_classes[name] = driver_class

    config.action(
        ("kvs driver", name), register, introspectables=(introspectable,), order=ORDER_NAMES
    )


def add_kvs_codec(config: Configurator, name: str, codec: Codec) -> None:
    """Make a codec known to this application: an object with ``dumps`` and ``loads``."""
    introspectable = config.introspectable("kvs codecs", name, name, "kvs codec")
    introspectable["codec"] = codec

    def register() -> None:
        components(config.registry).codecs[name] = serializer.checked(codec)

    config.action(
        ("kvs codec", name), register, introspectables=(introspectable,), order=ORDER_NAMES
    )


def build_driver(setting: str, options: Mapping[str, Any], parts: Components) -> KVS:
    """Return the driver that a setting's checked options describe, and remember it.

    :param setting: the setting's name, for messages.
    :raises ConfigurationError: unknown driver or codec, a missing library, refused arguments.
    """
    found = _driver_class(setting, options["kvs"], parts)
    codec = _codec(setting, options, parts)
    try:
        driver = found(
            options["kvs"], options["kvs_kwargs"], options["key_prefix"], options["ttl"], codec
        )
    except Exception as error:
        raise ConfigurationError(
            f"{setting}: kvs_kwargs: the {options['kvs']} client refuses "
            f"{show(options['kvs_kwargs'])}: {without_credentials(str(error))}"
            f"{_allowed(error, found)}"
        ) from error
    parts.drivers[setting] = driver
    return driver


def _allowed(error: Exception, found: type[KVS]) -> str:
    """Return what may stand instead of an argument that the client does not know."""
    unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    known = sorted(found.client_arguments())
    if unknown is None or not known:
        return ""
    listed = f" (known: {', '.join(known)})" if len(known) <= LISTED else ""
    return f"{listed}{closest(unknown[1], known)}"


def _driver_class(setting: str, name: str | None, parts: Components) -> type[KVS]:
    if name is None:
        raise ConfigurationError(
            f'{setting}: \'kvs\' is missing: name the driver, for example {{"kvs": "redis"}}'
        )
    try:
        return driver_class(name, parts.driver_classes)
    except UnknownDriver as error:
        raise ConfigurationError(f"{setting}: kvs: {error}") from None
    except (DriverNotInstalled, TypeError, ValueError, ImportError, AttributeError) as error:
        raise ConfigurationError(f"{setting}: kvs: {error}") from error


def _codec(setting: str, options: Mapping[str, Any], parts: Components) -> Codec:
    known = serializer.names(parts.codecs)
    for key in ("codec", "fallback_codec"):
        name = options.get(key)
        if name is not None and name not in known:
            raise ConfigurationError(f"{setting}: {key}: {unknown_name('codec', name, known)}")
    codec, fallback = options.get("codec", "json"), options.get("fallback_codec")
    secrets = options.get("secret") or ()
    if secrets and "pickle" not in (codec, fallback):
        log.warning("%s: secret signs pickled values, and no codec here is pickle", setting)
    return serializer.build(
        codec,
        fallback=fallback,
        secrets=secrets,
        encoding=options.get("encoding", "utf-8"),
        extra=parts.codecs,
    )

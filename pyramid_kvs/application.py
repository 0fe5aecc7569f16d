"""What one application configured: its drivers, codecs and features, kept on its registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pyramid.config import Configurator
from pyramid.interfaces import PHASE0_CONFIG, PHASE1_CONFIG
from pyramid.registry import Registry

from . import serializer
from .kvs import KVS
from .serializer import Codec

_REGISTRY_KEY = "pyramid_kvs"

#: Features are made before views, which need some of them, and after the drivers and codecs.
ORDER_NAMES = PHASE0_CONFIG
ORDER_FEATURES = PHASE1_CONFIG


class Store(NamedTuple):
    """A driver that the application uses."""

    #: The name of the setting, for example ``kvs.cache``.
    setting: str
    #: Where the driver is configured, for messages: the setting, one of its items, or a view.
    place: str
    driver: KVS
    #: Host and port, path or URL, without credentials.
    server: str


@dataclass
class Application:
    """The library's state in one application."""

    driver_classes: dict[str, type | str] = field(default_factory=dict)
    codecs: dict[str, Codec] = field(default_factory=dict)
    #: In the order of configuration.
    stores: list[Store] = field(default_factory=list)
    #: By the name of the feature's setting. Each feature's package has a typed accessor.
    features: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(registry: Registry) -> Application:
        """Return the state of an application, which is created on first use."""
        found = registry.get(_REGISTRY_KEY)
        if found is None:
            found = registry[_REGISTRY_KEY] = Application()
        return found  # type: ignore[no-any-return]


def add_feature(
    config: Configurator, setting: str, build: Callable[[], Mapping[str, object]]
) -> None:
    """Have a feature built when the configuration is committed.

    :param build: returns what introspection shows of the feature.
    """
    introspectable = config.introspectable("kvs features", setting, setting, "kvs feature")

    def register() -> None:
        introspectable.update(build())

    config.action(
        ("kvs", setting), register, introspectables=(introspectable,), order=ORDER_FEATURES
    )


def add_kvs_driver(config: Configurator, name: str, driver_class: type[KVS] | str) -> None:
    """Register a driver in this application: a subclass of ``KVS``, or its dotted name."""
    introspectable = config.introspectable("kvs drivers", name, name, "kvs driver")
    introspectable["class"] = driver_class

    def register() -> None:
        Application.of(config.registry).driver_classes[name] = driver_class

    config.action(
        ("kvs driver", name), register, introspectables=(introspectable,), order=ORDER_NAMES
    )


def add_kvs_codec(config: Configurator, name: str, codec: Codec) -> None:
    """Register a codec in this application: an object with ``dumps`` and ``loads``."""
    introspectable = config.introspectable("kvs codecs", name, name, "kvs codec")
    introspectable["codec"] = codec

    def register() -> None:
        Application.of(config.registry).codecs[name] = serializer.checked(codec)

    config.action(
        ("kvs codec", name), register, introspectables=(introspectable,), order=ORDER_NAMES
    )

"""What one application configured: its drivers, codecs and features, kept on its registry."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pyramid.config import Configurator
from pyramid.config.actions import ActionInfo
from pyramid.exceptions import ConfigurationError
from pyramid.interfaces import PHASE0_CONFIG, PHASE1_CONFIG
from pyramid.registry import Registry

from . import serializer
from .events import outage_teller
from .kvs import KVS, Breakers, Listener, observe
from .messages import show
from .serializer import Codec
from .settings import is_set
from .web.attribute import RequestAttribute

_REGISTRY_KEY = "pyramid_kvs"

#: A URL, of which the group is the host and port.
_URL_PARTS = re.compile(r"\A[\w+.-]+://(?:[^/]*@)?([^/?#]*).*", re.DOTALL)

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

    @property
    def address(self) -> str:
        """``host:port`` or the path of a socket, of several servers with commas between them."""
        return ",".join(self.driver.addresses()) or _address(self.server)


def _address(server: str) -> str:
    """Return the servers of a URL or a list, for a driver that does not tell its addresses."""
    if server == "default":
        return ""
    return ",".join(_URL_PARTS.sub(r"\1", part) for part in server.split(","))


@dataclass
class Application:
    """The library's state in one application."""

    #: ``None`` if the features are used without an application.
    registry: Registry | None = field(default=None, repr=False)
    driver_classes: dict[str, type | str] = field(default_factory=dict)
    codecs: dict[str, Codec] = field(default_factory=dict)
    #: One for each server, whichever settings name it.
    breakers: Breakers = field(default_factory=Breakers)
    #: In the order of configuration.
    stores: list[Store] = field(default_factory=list)
    #: Told about each operation of the stores.
    listeners: list[Listener] = field(default_factory=list)
    #: By the name of the feature's setting. Each feature's package has a typed accessor.
    features: dict[str, Any] = field(default_factory=dict)
    #: Called when the application has been created. They raise ``ConfigurationError`` to stop it.
    start_checks: list[Callable[[], None]] = field(default_factory=list)

    @staticmethod
    def of(registry: Registry) -> Application:
        """Return the state of an application, which is created on first use."""
        found = registry.get(_REGISTRY_KEY)
        if found is None:
            found = registry[_REGISTRY_KEY] = Application(registry)
            found.breakers.listeners.append(outage_teller(registry))
        return found  # type: ignore[no-any-return]

    def add_store(self, store: Store) -> None:
        """Note a store. If there are listeners, they are told about its operations."""
        self.stores.append(store)
        if self.listeners:
            observe(store.driver, store.setting, store.address, self.listeners)

    def add_listener(self, listener: Listener) -> None:
        """Tell a listener about each operation of all stores from now on, once."""
        if identity_of(listener) in map(identity_of, self.listeners):
            return
        self.listeners.append(listener)
        for store in self.stores:
            observe(store.driver, store.setting, store.address, self.listeners)


def identity_of(listener: Listener) -> tuple[int, str | None]:
    """Return what is the same for the same listener; a method is a new object in each access."""
    return id(getattr(listener, "__self__", listener)), getattr(listener, "__name__", None)


# -- features --------------------------------------------------------------------------------


class SettingInfo(ActionInfo):  # type: ignore[misc]
    """The origin of a configuration action: a setting, instead of a line of code."""

    def __init__(self, setting: str) -> None:
        super().__init__(None, 0, "", setting)

    def __str__(self) -> str:
        return f"the setting {self.src}"


def add_feature(
    config: Configurator,
    setting: str,
    build: Callable[[], Mapping[str, object]],
    order: int = ORDER_FEATURES,
) -> None:
    """Have a feature built when the configuration is committed.

    An error in ``build``, or a conflict with another action of the calling ``includeme``, is
    reported with the name of the setting.

    :param build: returns what introspection shows of the feature.
    """
    config.info = SettingInfo(setting)
    introspectable = config.introspectable("kvs features", setting, setting, "kvs feature")

    def register() -> None:
        introspectable.update(build())

    config.action(("kvs", setting), register, introspectables=(introspectable,), order=order)


class RequestFeature(NamedTuple):
    """A feature that requests have as an attribute, for example ``request.cache``."""

    setting: str
    #: Builds the feature, and returns it with what introspection shows of it.
    build: Callable[[Registry], tuple[Any, Mapping[str, object]]]
    #: Returns, for the feature, the function from a request to its attribute.
    attribute_of: Callable[[Any], Callable[[Any], Any]]

    @property
    def name(self) -> str:
        """The name of the attribute."""
        return self.setting.removeprefix("kvs.")

    def add_to(self, config: Configurator) -> None:
        """Give the feature to all requests of an application."""
        attribute = RequestAttribute()

        def build() -> Mapping[str, object]:
            feature, shown = self._register(config.registry)
            attribute.make = self.attribute_of(feature)
            return shown

        add_feature(config, self.setting, build)
        config.add_request_method(attribute, self.name)

    def subscribe(self, event: Any) -> None:
        """Give the feature to the request of an event.

        If the application does not include ``pyramid_kvs``, the first event builds the feature.
        """
        request = event.request
        features = Application.of(request.registry).features
        if self.setting not in features and is_set(request.registry.settings or {}, self.setting):
            self._register(request.registry)
        if self.setting in features:
            setattr(request, self.name, self.attribute_of(features[self.setting])(request))

    def _register(self, registry: Registry) -> tuple[Any, Mapping[str, object]]:
        feature, shown = self.build(registry)
        Application.of(registry).features[self.setting] = feature
        return feature, shown


# -- directives ------------------------------------------------------------------------------


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


def add_kvs_listener(config: Configurator, listener: Listener) -> None:
    """Call a listener after each operation of the application's stores.

    It may be added at any time, also after the drivers were made. It is called in the thread of
    the operation, with an :class:`~pyramid_kvs.kvs.Operation`. See :doc:`monitoring`.

    :param listener: any callable with one argument. If it raises, the operation is not affected,
        and an ERROR line is logged at most once a minute.
    """
    if not callable(listener):
        raise ConfigurationError(
            f"config.add_kvs_listener: found {show(listener)}, expected a callable with one "
            "argument, the operation"
        )
    name = getattr(listener, "__qualname__", type(listener).__qualname__)
    identity = identity_of(listener)
    introspectable = config.introspectable("kvs listeners", identity, name, "kvs listener")
    introspectable["listener"] = listener
    config.action(
        ("kvs listener", identity),
        lambda: Application.of(config.registry).add_listener(listener),
        introspectables=(introspectable,),
        order=ORDER_NAMES,
    )

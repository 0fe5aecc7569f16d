"""Drivers of others whose classes or methods are unusual work the same, and are seen as well."""

from __future__ import annotations

from typing import Any

import pytest

from pyramid_kvs.cache import ApplicationCache
from pyramid_kvs.kvs import KVS, Listener
from tests.kvs.old_drivers import DictClient
from tests.observe.apps import Told, cache, configured


class Plain(KVS):
    """Keeps its data in a dictionary."""

    data: dict[str, Any]

    def _create_client(self, **kwargs: Any) -> Any:
        type(self).data = {}
        return DictClient()

    def raw_get(self, key: str, default: Any = None) -> Any:
        return self.data.get(key, default)

    def raw_set(self, key: str, value: Any, ttl: float | None) -> None:
        self.data[key] = value

    def _remove(self, key: str) -> None:
        self.data.pop(key, None)


class WithClassMethods(Plain):
    @classmethod
    def raw_get(cls, key: str, default: Any = None) -> Any:
        return cls.data.get(key, default)

    @classmethod
    def raw_set(cls, key: str, value: Any, ttl: float | None) -> None:
        cls.data[key] = value


class WithStaticMethods(Plain):
    @staticmethod
    def raw_get(key: str, default: Any = None) -> Any:
        return Plain.data.get(key, default)

    @staticmethod
    def raw_set(key: str, value: Any, ttl: float | None) -> None:
        Plain.data[key] = value

    def _create_client(self, **kwargs: Any) -> Any:
        Plain.data = {}
        return DictClient()


class WithProperty(Plain):
    @property
    def raw_get(self) -> Any:  # type: ignore[override]
        return self.data.get


class WithAttributes(Plain):
    """Has methods that it makes itself."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.raw_get = self.data.get  # type: ignore[method-assign]
        self.raw_set = self._keep  # type: ignore[method-assign]

    def _keep(self, key: str, value: Any, ttl: float | None) -> None:
        self.data[key] = value


class WithPositionalParameters(Plain):
    def raw_get(self, key: str, /, default: Any = None) -> Any:
        return self.data.get(key, default)

    def raw_set(self, key: str, /, value: Any, ttl: float | None) -> None:
        self.data[key] = value


class WithSlots(Plain):
    __slots__ = ("another",)


class WithoutSubclasses(Plain):
    def __init_subclass__(cls, **kwargs: Any) -> None:
        raise TypeError("this class has no subclasses")


class Refusing(type):
    """The class of classes that do not change."""

    def __setattr__(cls, name: str, value: Any) -> None:
        if name != "data":
            raise AttributeError(name)
        super().__setattr__(name, value)


class WithMetaclass(Plain, metaclass=Refusing):
    pass


class Frozen(Plain):
    """Refuses attributes, and says that its class is another one."""

    _is_made = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._is_made = True

    def __setattr__(self, name: str, value: Any) -> None:
        if self._is_made:
            raise AttributeError(name)
        super().__setattr__(name, value)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return Plain


def cache_on(driver_class: type[KVS], *listeners: Listener) -> ApplicationCache:
    registry = configured(
        {"kvs.cache": {"kvs": "other"}},
        *listeners,
        configure=lambda config: config.add_kvs_driver("other", driver_class),
    )
    return cache(registry)


def results(found: ApplicationCache) -> list[object]:
    """Return what calls return that need each hook of a driver."""
    found.set("a", "four")
    client = found.client
    return [
        *(found.get("a"), found.get("b"), found.get_many(["a", "b"]), client.raw_get("a")),
        *(found.get_or_create("c", lambda: 1), found.incr("n"), found.pop("a")),
        client.raw_get("b", "another"),
    ]


@pytest.mark.parametrize(
    "driver_class",
    [
        *(Plain, WithClassMethods, WithStaticMethods, WithProperty, WithAttributes),
        *(WithPositionalParameters, WithSlots, WithoutSubclasses, WithMetaclass, Frozen),
    ],
)
def test_unusual_drivers_work_as_without_a_listener_and_each_call_is_told(
    driver_class: type[KVS],
) -> None:
    told = Told()
    observed = cache_on(driver_class, told)
    told.clear()
    found = results(observed)
    assert [(one.operation, one.hits, one.misses) for one in told] == [
        *(("set", 0, 0), ("get", 1, 0), ("get", 0, 1), ("get_many", 1, 1), ("get", 1, 0)),
        *(("get", 0, 1), ("claim", 0, 1), ("set_claimed", 0, 0)),
        *(("incr", 0, 0), ("delete", 0, 0), ("get", 0, 1)),
    ]
    assert found == results(cache_on(driver_class))


def test_arguments_by_name_reach_a_method_with_positional_ones() -> None:
    told = Told()
    client = cache_on(WithPositionalParameters, told).client
    told.clear()
    client.raw_set("a", ttl=60, value="four")
    assert client.raw_get("a", default="five") == "four"
    assert told.figures() == [
        {"operation": "set", "keys": 1, "bytes_sent": 4},
        {"operation": "get", "keys": 1, "hits": 1, "bytes_received": 4},
    ]

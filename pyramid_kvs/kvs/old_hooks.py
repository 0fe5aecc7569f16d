"""Drivers written for 1.0: their ``delete``, ``incr`` and ``get_keys`` as hooks of 2.0."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ..exceptions import CodecError

T = TypeVar("T")


def adapt(cls: type[Any], base: type[Any]) -> None:
    """Give the methods that a driver wrote for 1.0 the arguments and results of 2.0.

    :param cls: a new subclass of ``base``.
    :param base: :class:`pyramid_kvs.kvs.KVS`, whose own methods are the defaults.
    """
    defined = vars(cls)
    adapted: dict[str, Any] = {}
    if "delete" in defined and cls.raw_delete is base.raw_delete:
        adapted.update(_remove=_old_remove(defined["delete"], cls._remove), delete=base.delete)
    if "incr" in defined and "ttl" not in _parameters(defined["incr"]):
        adapted.update(raw_incr=_old_incr(defined["incr"], cls.raw_incr), incr=base.incr)
    if "add" in defined and cls.raw_add is base.raw_add:
        adapted.update(raw_add=_old_add(defined["add"], cls.raw_add), add=base.add)
    pattern = _parameters(defined["get_keys"]).get("pattern") if "get_keys" in defined else None
    if pattern and pattern.default is pattern.empty:
        adapted.update(get_keys=_old_get_keys(defined["get_keys"]))
    for name, value in adapted.items():
        setattr(cls, name, value)


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(function).parameters


def _old_remove(
    delete: Callable[..., Any], default: Callable[[Any, str], None]
) -> Callable[[Any, str], None]:
    @functools.wraps(delete)
    def remove(self: Any, key: str) -> None:
        delete(self, key)

    return _unless_inside(remove, default)


def _old_incr(
    incr: Callable[..., Any], default: Callable[..., int]
) -> Callable[[Any, str, int, float | None], int]:
    @functools.wraps(incr)
    def raw_incr(self: Any, key: str, delta: int, ttl: float | None) -> int:
        if delta == 1 and ttl == self.ttl:
            return int(incr(self, key))
        return default(self, key, delta, ttl)

    return _unless_inside(raw_incr, default)


def _old_add(
    add: Callable[..., Any], default: Callable[..., bool]
) -> Callable[[Any, str, Any, float | None], bool]:
    @functools.wraps(add)
    def raw_add(self: Any, key: str, data: Any, ttl: float | None) -> bool:
        try:
            value = self.decode(data)
        except CodecError:  # a claim
            value = data
        return bool(add(self, key, value, ttl))

    return _unless_inside(raw_add, default)


def _old_get_keys(get_keys: Callable[[Any, str], list[str]]) -> Callable[..., list[str]]:
    @functools.wraps(get_keys)
    def with_default(self: Any, pattern: str = "*") -> list[str]:
        return get_keys(self, pattern)

    return with_default


def _unless_inside(hook: Callable[..., T], default: Callable[..., T]) -> Callable[..., T]:
    """Return the hook; a call from inside the hook runs ``default`` instead.

    ``super().incr(key)`` in a 1.0 hook comes back to the hook through the public method.
    """
    running = threading.local()

    @functools.wraps(hook)
    def call(self: Any, *args: Any) -> T:
        drivers = running.__dict__.setdefault("drivers", set())
        if id(self) in drivers:
            return default(self, *args)
        drivers.add(id(self))
        try:
            return hook(self, *args)
        finally:
            drivers.discard(id(self))

    return call

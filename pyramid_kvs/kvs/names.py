"""Drivers by name: built in, registered in the process, or from an entry point."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..messages import unknown_name

if TYPE_CHECKING:
    from importlib.metadata import EntryPoints

ENTRY_POINTS = "pyramid_kvs.drivers"

_BUILT_IN: dict[str, type | str] = {
    "memcache": "pyramid_kvs.drivers.memcache:MemcacheKVS",
    "memory": "pyramid_kvs.drivers.memory:MemoryKVS",
    "postgresql": "pyramid_kvs.drivers.postgresql:PostgresqlKVS",
    "redis": "pyramid_kvs.drivers.redis:RedisKVS",
}
_ALIASES = {"memcached": "memcache", "valkey": "redis"}
#: The driver for the scheme of a URL.
SCHEMES: dict[str, str] = {
    **{
        name + kind: "redis"
        for name in ("redis", "rediss", "valkey", "valkeys")
        for kind in ("", "+cluster", "+sentinel")
    },
    "unix": "redis",
    **dict.fromkeys(("postgresql", "postgres"), "postgresql"),
    **dict.fromkeys(("memcached", "memcache"), "memcache"),
}
_INSTALL = {
    "memcache": "python-memcached",
    "postgresql": "pyramid_kvs[postgresql]",
    "redis": "redis",
}
_registered: dict[str, type | str] = {}


class UnknownDriver(LookupError):
    """There is no driver with this name; the message lists the known ones."""


class DriverNotInstalled(ImportError):
    """The client library of a driver is missing; the message says which package to install."""


def register(name: str, driver_class: type | str) -> None:
    """Register a driver under a name, in this process.

    :param driver_class: a subclass of :class:`~pyramid_kvs.kvs.KVS`, or
        ``"package.module:Class"``, which is imported on first use.
    """
    _registered[name] = driver_class


def driver_names(extra: Mapping[str, object] | None = None) -> list[str]:
    """Return the names of all known drivers, sorted, without aliases."""
    return sorted({*_BUILT_IN, *_registered, *_entry_points().names, *(extra or ())})


def canonical_name(name: str) -> str:
    """Return the driver name for an alias."""
    return _ALIASES.get(name, name)


def load(name: str, extra: Mapping[str, type | str] | None = None) -> Any:
    """Return what is registered under a name, importing it on first use.

    :param extra: drivers that take precedence over those of the process, by name.
    :raises UnknownDriver: a ``LookupError`` that lists the known names.
    :raises DriverNotInstalled: an ``ImportError`` that says which package to install.
    """
    found = _find(name, extra or {})
    return _import(canonical_name(name), found) if isinstance(found, str) else found


def _find(name: str, extra: Mapping[str, type | str]) -> type | str:
    for known, wanted in ((extra, name), (_registered, name), (_BUILT_IN, canonical_name(name))):
        if wanted in known:
            return known[wanted]
    for point in _entry_points().select(name=name):
        return point.value
    hint = "; 'mock' comes with pyramid.includes = pyramid_kvs.testing" if name == "mock" else ""
    raise UnknownDriver(unknown_name("driver", name, driver_names(extra), hint))


def _entry_points() -> EntryPoints:
    from importlib.metadata import entry_points  # takes 2 ms, and few applications need it

    return entry_points(group=ENTRY_POINTS)


def _import(name: str, dotted: str) -> Any:
    module, _, attribute = dotted.replace(":", ".").rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("pyramid_kvs"):
            raise
        package = _INSTALL.get(name, error.name)
        raise DriverNotInstalled(
            f"the {name} driver needs {error.name!r}, which is not installed: pip install {package}"
        ) from error

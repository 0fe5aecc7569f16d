"""Settings that describe a store, and the one place where drivers are made from them."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

from pyramid.exceptions import ConfigurationError

from . import serializer
from .application import Application, Store
from .kvs import KVS, DriverNotInstalled, UnknownDriver, canonical_name, driver_class
from .messages import closest, show, unknown_name, without_credentials
from .serializer import Codec
from .settings import (
    Option,
    check_options,
    mapping,
    optional,
    seconds,
    string,
    strings,
)

log = logging.getLogger("pyramid_kvs.settings")

#: A client with more arguments than this has too many for a message.
_LISTED = 20


#: The keys that name a driver. ``type`` is an alias of ``kvs``.
DRIVER_OPTIONS: dict[str, Option] = {
    "kvs": Option(optional(string), None),
    "type": Option(optional(string), None),
    "kvs_kwargs": Option(mapping, {}, secret=True),
}

#: The keys of every setting that has a store.
STORE_OPTIONS: dict[str, Option] = {
    **DRIVER_OPTIONS,
    "codec": Option(string, "json"),
    "fallback_codec": Option(optional(string), None),
    "secret": Option(optional(strings), None, secret=True),
    "ttl": Option(optional(seconds), 300),
}


def read_options(name: str, value: Any, table: Mapping[str, Option]) -> dict[str, Any]:
    """Return the checked options of a setting that has a store, with defaults.

    :param name: the setting's name, for messages.
    :param value: an object.
    :raises ConfigurationError: see :mod:`pyramid_kvs.settings`.
    """
    options = check_options(name, value, table)
    kvs, alias = options["kvs"], options.pop("type")
    if None not in (kvs, alias) and canonical_name(kvs) != canonical_name(alias):
        raise ConfigurationError(
            f"{name}: 'kvs' is {kvs!r} and 'type' is {alias!r}; they mean the same: keep one"
        )
    options["kvs"] = kvs if kvs is not None else alias
    return options


def build_driver(
    setting: str, options: Mapping[str, Any], application: Application, place: str | None = None
) -> KVS:
    """Return the driver that checked options describe, and add it to the application's stores.

    :param place: for messages, where it differs from the setting's name.
    :raises ConfigurationError: unknown driver or codec, a missing library, refused arguments.
    """
    place = place or setting
    found = _driver_class(place, options["kvs"], application)
    codec = _codec(place, options, application)
    kwargs = options["kvs_kwargs"]
    try:
        driver = found(options["kvs"], kwargs, options["key_prefix"], options["ttl"], codec)
    except Exception as error:
        raise ConfigurationError(
            f"{place}: kvs_kwargs: the {options['kvs']} client refuses {show(kwargs)}: "
            f"{without_credentials(str(error))}{_allowed(error, found)}"
        ) from error
    application.stores.append(Store(setting, place, driver, server_of(kwargs)))
    return driver


def server_of(kwargs: Mapping[str, Any]) -> str:
    """Return the server that ``kvs_kwargs`` name, without credentials."""
    for key in ("url", "unix_socket_path", "servers"):
        if kwargs.get(key):
            found = kwargs[key] if isinstance(kwargs[key], list) else [kwargs[key]]
            return ",".join(without_credentials(str(item)) for item in found)
    if "host" in kwargs or "port" in kwargs:
        return ":".join(str(kwargs[key]) for key in ("host", "port") if key in kwargs)
    return "default"


def _allowed(error: Exception, found: type[KVS]) -> str:
    """Return what to write instead of an argument that the client does not know."""
    unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    known = sorted(found.client_arguments())
    if unknown is None or not known:
        return ""
    listed = f" (known: {', '.join(known)})" if len(known) <= _LISTED else ""
    return f"{listed}{closest(unknown[1], known)}"


def _driver_class(place: str, name: str | None, application: Application) -> type[KVS]:
    if name is None:
        raise ConfigurationError(
            f'{place}: \'kvs\' is missing: name the driver, for example {{"kvs": "redis"}}'
        )
    try:
        return driver_class(name, application.driver_classes)
    except UnknownDriver as error:
        raise ConfigurationError(f"{place}: kvs: {error}") from None
    except (DriverNotInstalled, TypeError, ValueError, ImportError, AttributeError) as error:
        raise ConfigurationError(f"{place}: kvs: {error}") from error


def _codec(place: str, options: Mapping[str, Any], application: Application) -> Codec:
    known = serializer.names(application.codecs)
    for key in ("codec", "fallback_codec"):
        name = options.get(key)
        if name is not None and name not in known:
            raise ConfigurationError(f"{place}: {key}: {unknown_name('codec', name, known)}")
    codec, fallback = options.get("codec", "json"), options.get("fallback_codec")
    secrets = options.get("secret") or ()
    if secrets and "pickle" not in (codec, fallback):
        log.warning("%s: secret signs pickled values, but neither codec here is pickle", place)
    return serializer.build(
        codec,
        fallback=fallback,
        secrets=secrets,
        encoding=options.get("encoding", "utf-8"),
        extra=application.codecs,
    )

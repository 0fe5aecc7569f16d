"""Settings that describe a store, and the one place where drivers are made from them."""

from __future__ import annotations

import difflib
import json
import logging
import re
from collections.abc import Mapping
from typing import Any

from pyramid.exceptions import ConfigurationError

from . import serializer, settings
from .application import Application, Store
from .kvs import (
    KVS,
    SCHEMES,
    DriverNotInstalled,
    UnknownDriver,
    canonical_name,
    driver_class,
    driver_names,
)
from .messages import closest, masked, quoted, reason, show, unknown_name, without_credentials
from .serializer import Codec
from .settings import (
    InvalidOption,
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


def _client_arguments(value: Any) -> dict[str, Any]:
    try:
        return mapping(value)
    except InvalidOption:
        raise InvalidOption('an object, for example {"url": "redis://localhost:6379/0"}') from None


#: The keys that name a driver. ``type`` is an alias of ``kvs``.
DRIVER_OPTIONS: dict[str, Option] = {
    "kvs": Option(optional(string), None, other_words=("driver", "backend", "store")),
    "type": Option(optional(string), None),
    "kvs_kwargs": Option(_client_arguments, {}, secret=True),
}

#: The keys of every setting that has a store.
STORE_OPTIONS: dict[str, Option] = {
    **DRIVER_OPTIONS,
    "codec": Option(string, "json", other_words=("serializer",)),
    "fallback_codec": Option(optional(string), None),
    "secret": Option(optional(strings), None, secret=True),
    "ttl": Option(
        optional(seconds),
        300,
        other_words=("timeout", "expires", "expire", "lifetime", "idle_ttl"),
    ),
}

#: Arguments of clients that are often written beside ``kvs_kwargs``, with an example of each.
_CLIENT_ARGUMENTS: dict[str, dict[str, Any]] = {
    "url": {"url": "redis://localhost:6379/0"},
    "host": {"host": "localhost"},
    "port": {"port": 6379},
    "password": {"password": "..."},
    "server": {"servers": ["127.0.0.1:11211"]},
    "servers": {"servers": ["127.0.0.1:11211"]},
}

#: The function in Python's error about an argument. The user of a setting does not know it.
_FUNCTION = re.compile(r"\A[\w.]+\(\) got an (?=unexpected keyword argument )")

_URL = re.compile(
    r"(?P<scheme>[a-z][a-z0-9.-]*(?P<kind>\+[a-z0-9]+)?)://(?P<place>.*)", re.IGNORECASE | re.DOTALL
)


# -- reading ---------------------------------------------------------------------------------


def parse(name: str, value: Any) -> Any:
    """Return the object that a setting describes; see :func:`pyramid_kvs.settings.parse`."""
    return settings.parse(name, value, example(value))


def read_options(name: str, value: Any, table: Mapping[str, Option]) -> dict[str, Any]:
    """Return the checked options of a setting that has a store, with defaults.

    :param name: the setting's name, for messages.
    :param value: an object.
    :raises ConfigurationError: see :mod:`pyramid_kvs.settings`.
    """
    _check_places(name, value, table)
    options = check_options(name, value, table, example(value))
    kvs, alias = options["kvs"], options.pop("type")
    if None not in (kvs, alias) and canonical_name(kvs) != canonical_name(alias):
        raise ConfigurationError(
            f"{name}: 'kvs' is {quoted(kvs)} and 'type' is {quoted(alias)}; they mean the same: "
            "keep one"
        )
    options["kvs"] = kvs if kvs is not None else alias
    return options


def _check_places(name: str, value: Any, table: Mapping[str, Option]) -> None:
    """Refuse an argument of the client that is not inside ``kvs_kwargs``."""
    for key, shown in _CLIENT_ARGUMENTS.items():
        if key not in table and isinstance(value, Mapping) and key in value:
            raise ConfigurationError(
                f"{name}: unknown key {key!r}, which belongs inside 'kvs_kwargs', for example "
                f'"kvs_kwargs": {json.dumps(shown)}'
            )


def example(written: Any) -> str:
    """Return an object that describes a store, as close as possible to what was written.

    :param written: the value of a setting, or of its key ``kvs``.
    """
    found = written.strip(' \n"') if isinstance(written, str) else ""
    url = _URL.match(found)
    scheme = _scheme(url) if url else None
    driver = SCHEMES[scheme] if scheme else canonical_name(found)
    if driver not in driver_names():
        return '{"kvs": "redis"}'
    if url is None:
        return show({"kvs": driver})
    if driver == "memcache":
        return show({"kvs": driver, "kvs_kwargs": {"servers": [url["place"].strip("/")]}})
    return show({"kvs": driver, "kvs_kwargs": {"url": f"{scheme}://{url['place']}"}})


def _scheme(url: re.Match[str]) -> str | None:
    """Return the known scheme that a URL has, or means: without a driver of SQLAlchemy."""
    scheme = url["scheme"].lower()
    if SCHEMES.get(scheme.split("+")[0]) == "postgresql":
        return scheme.split("+")[0]
    return next(iter(difflib.get_close_matches(scheme, SCHEMES, 1)), None)


# -- drivers ---------------------------------------------------------------------------------


def build_driver(
    setting: str, options: Mapping[str, Any], application: Application, place: str | None = None
) -> KVS:
    """Return the driver that checked options describe, and add it to the application's stores.

    :param place: for messages, where it differs from the setting's name.
    :raises ConfigurationError: unknown driver or codec, a missing library, refused arguments.
    """
    place = place or setting
    kwargs = options["kvs_kwargs"]
    found = _driver_class(place, options["kvs"], application).class_for(kwargs)
    codec = _codec(place, options, application)
    try:
        driver = found(options["kvs"], kwargs, options["key_prefix"], options["ttl"], codec)
    except Exception as error:
        said = _FUNCTION.sub("", reason(error, kwargs))
        raise ConfigurationError(
            f"{place}: kvs_kwargs: the {options['kvs']} client refuses {show(kwargs)}: "
            f"{said}{_hint(options['kvs'], kwargs, error, found)}"
        ) from error
    driver.share_breakers(application.breakers)
    application.add_store(Store(setting, place, driver, server_of(kwargs)))
    return driver


def warn_of_unsigned_pickle(place: str, options: Mapping[str, Any]) -> None:
    """Log that whoever can write to the store can run code, if checked options say so."""
    if options["codec"] == "pickle" and not options["secret"]:
        log.warning(
            "%s: codec pickle without a secret: anyone who can write to the store can run code in "
            "this process; add a secret, or use another codec",
            place,
        )


def server_of(kwargs: Mapping[str, Any]) -> str:
    """Return the server that ``kvs_kwargs`` name, without credentials."""
    for key in ("url", "unix_socket_path", "servers"):
        if kwargs.get(key):
            found = kwargs[key] if isinstance(kwargs[key], list) else [kwargs[key]]
            return ",".join(masked(str(item)) for item in found)
    if "host" in kwargs or "port" in kwargs:
        return ":".join(masked(str(kwargs[key])) for key in ("host", "port") if key in kwargs)
    return "default"


def _hint(name: str, kwargs: Mapping[str, Any], error: Exception, found: type[KVS]) -> str:
    """Return what to write instead of ``kvs_kwargs`` that a client refuses, if it is known."""
    hint = _url_hint(canonical_name(name), str(kwargs.get("url")))
    if hint:
        return hint
    if "(known: " in str(error):
        return ""
    known = sorted(found.client_arguments())
    unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    if unknown is None or not known:
        # What a driver says about one of its options is enough.
        keys = [key for key in kwargs if known and not str(error).startswith(f"{key}: ")]
        return "".join(closest(key, known) for key in keys if key not in known)
    listed = f" (known: {', '.join(known)})" if len(known) <= _LISTED else ""
    return f"{listed}{closest(unknown[1], known)}"


def _url_hint(name: str, url: str) -> str:
    """Return what to write instead of a URL of another driver, or with a driver of SQLAlchemy."""
    match = _URL.match(url)
    driver = SCHEMES.get(match["scheme"].lower().split("+")[0]) if match else None
    if match is None or driver is None or name not in SCHEMES.values():
        return ""
    if driver != name:
        return f"; write {example(url)}"
    if driver == "postgresql" and match["kind"]:
        return f"; write {without_credentials(f'{_scheme(match)}://' + match['place'])}"
    return ""


def _driver_class(place: str, name: str | None, application: Application) -> type[KVS]:
    if name is None:
        raise ConfigurationError(
            f"{place}: 'kvs' is missing: name the driver, for example {example(None)}"
        )
    try:
        return driver_class(name, application.driver_classes)
    except UnknownDriver as error:
        hint = f"; write {example(name)}" if _URL.match(name) else ""
        raise ConfigurationError(f"{place}: kvs: {error}{hint}") from None
    except (DriverNotInstalled, TypeError, ValueError, ImportError, AttributeError) as error:
        raise ConfigurationError(f"{place}: kvs: {reason(error)}") from error


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

"""Kinto's ``cache_*`` settings, checked, and the driver that they describe."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError

from ..kvs import KVS, DriverNotInstalled
from ..messages import show, without_credentials
from ..settings import InvalidOption, is_set

Check = Callable[[Any], Any]


# -- checks: a value is a string, or what Kinto parsed from it --------------------------------


def prefix(value: Any) -> str:
    """Return the prefix as the file has it, although Kinto parses digits to a number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise InvalidOption('a string; one that looks like JSON needs double quotes: "1e3"')
    return value


def url(value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidOption("a URL")
    return value.strip()


def hosts(value: Any) -> list[str]:
    listed = value.split() if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(host, str) for host in listed):
        raise InvalidOption(
            "servers separated by whitespace, such as 10.0.0.1:11211 10.0.0.2:11211"
        )
    return listed


def positive_integer(value: Any) -> int:
    number = _number(value)
    if number is None or number != int(number) or number < 1:
        raise InvalidOption("a positive integer")
    return int(number)


def count_or_any(value: Any) -> int:
    number = _number(value)
    if number is None or number != int(number) or number < -1:
        raise InvalidOption("0, a positive integer, or -1 for no limit")
    return int(number)


def seconds(value: Any) -> float:
    number = _number(value)
    if number is None or number <= 0:
        raise InvalidOption("a positive number of seconds")
    return number


def seconds_or_never(value: Any) -> float:
    number = _number(value)
    if number is None or not (number > 0 or number == -1):
        raise InvalidOption("a positive number of seconds, or -1 for never")
    return number


def _number(value: Any) -> float | None:
    """Return a finite number, an ``int`` if it is one, or ``None``."""
    if isinstance(value, str):
        value = _parsed(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if math.isfinite(value) else None


def _parsed(text: str) -> float | None:
    try:
        return int(text) if re.fullmatch(r"\s*[+-]?\d+\s*", text) else float(text)
    except ValueError:
        return None


CHECKS: dict[str, Check] = {
    "cache_url": url,
    "cache_hosts": hosts,
    "cache_prefix": prefix,
    "cache_max_size_bytes": positive_integer,
    "cache_pool_size": positive_integer,
    "cache_max_overflow": count_or_any,
    "cache_max_backlog": count_or_any,
    "cache_pool_timeout": seconds,
    "cache_pool_recycle": seconds_or_never,
}
SECRET = {"cache_url"}


#: The settings of the pool. Each store has other defaults.
POOL = ("cache_pool_size", "cache_max_overflow", "cache_max_backlog", "cache_pool_timeout")
#: More connections than a process has threads.
UNLIMITED = 10_000


# -- reading ----------------------------------------------------------------------------------


def read(config: Configurator, *names: str) -> dict[str, Any]:
    """Check the settings that are set, and return them by their names without ``cache_``.

    :raises ConfigurationError: a value that is not allowed.
    """
    settings = config.get_settings()
    return {
        name.removeprefix("cache_"): _checked(name, settings[name])
        for name in names
        if is_set(settings, name)
    }


def read_required(config: Configurator, name: str, example: str) -> Any:
    """Return the setting that names the store.

    :raises ConfigurationError: it is missing, or its value is not allowed.
    """
    for value in read(config, name).values():
        return value
    raise ConfigurationError(f"{name} is missing: name the store, for example {example}")


def read_pool(config: Configurator) -> dict[str, Any]:
    """Return ``kvs_kwargs`` for redis and memcached, whose pools keep all of their connections.

    :raises ConfigurationError: a value that is not allowed.
    """
    options = read(config, *POOL)
    size, overflow = options.pop("pool_size", 50), options.pop("max_overflow", 0)
    return {"max_connections": UNLIMITED if overflow < 0 else size + overflow, **options}


def _checked(name: str, value: Any) -> Any:
    try:
        return CHECKS[name](value)
    except InvalidOption as error:
        found = "a value that is not shown" if name in SECRET else show(value)
        raise ConfigurationError(f"{name}: found {found}, expected {error}") from None


def build(config: Configurator, name: str, setting: str, /, **kvs_kwargs: Any) -> KVS:
    """Return a driver with the prefix of Kinto's settings and without a default ttl.

    :param setting: the setting that errors of the driver are about.
    :raises ConfigurationError: the driver's library is missing, or it refuses ``kvs_kwargs``.
    """
    key_prefix = read(config, "cache_prefix").get("prefix", "")
    try:
        return KVS(name, kvs_kwargs, key_prefix, ttl=None, codec="json")
    except DriverNotInstalled as error:
        raise ConfigurationError(f"cache_backend: {error}") from error
    except (TypeError, ValueError, LookupError, AttributeError, OSError) as error:
        raise ConfigurationError(f"{setting}: {without_credentials(str(error))}") from error

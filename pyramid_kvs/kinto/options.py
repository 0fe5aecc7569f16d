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


# -- checks: values come as text, or as what Kinto made of it ---------------------------------


def prefix(value: Any) -> str:
    """Return the prefix as it stands in the file: Kinto makes a number of digits."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise InvalidOption('a text; what reads as JSON stands in double quotes, as "1e3"')
    return value


def url(value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidOption("a URL")
    return value.strip()


def hosts(value: Any) -> list[str]:
    listed = value.split() if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(host, str) for host in listed):
        raise InvalidOption(
            "servers with whitespace between them, as 10.0.0.1:11211 10.0.0.2:11211"
        )
    return listed


def whole_number(value: Any) -> int:
    number = _number(value)
    if number is None or number != int(number) or number < 1:
        raise InvalidOption("a whole number from 1")
    return int(number)


def whole_number_or_any(value: Any) -> int:
    number = _number(value)
    if number is None or number != int(number) or number < -1:
        raise InvalidOption("a whole number from 0, or -1: any number")
    return int(number)


def seconds(value: Any) -> float:
    number = _number(value)
    if number is None or number <= 0:
        raise InvalidOption("a number of seconds above 0")
    return number


def seconds_or_never(value: Any) -> float:
    number = _number(value)
    if number is None or not (number > 0 or number == -1):
        raise InvalidOption("a number of seconds above 0, or -1: never")
    return number


def _number(value: Any) -> float | None:
    """Return a finite number, an ``int`` where it is one, or ``None``."""
    if isinstance(value, str):
        value = _of_text(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if math.isfinite(value) else None


def _of_text(text: str) -> float | None:
    try:
        return int(text) if re.fullmatch(r"\s*[+-]?\d+\s*", text) else float(text)
    except ValueError:
        return None


CHECKS: dict[str, Check] = {
    "cache_url": url,
    "cache_hosts": hosts,
    "cache_prefix": prefix,
    "cache_max_size_bytes": whole_number,
    "cache_pool_size": whole_number,
    "cache_max_overflow": whole_number_or_any,
    "cache_max_backlog": whole_number_or_any,
    "cache_pool_timeout": seconds,
    "cache_pool_recycle": seconds_or_never,
}
SECRET = {"cache_url"}


# -- reading ----------------------------------------------------------------------------------


def read(config: Configurator, *names: str) -> dict[str, Any]:
    """Return those of the settings that are set, checked, by their names without ``cache_``.

    :raises ConfigurationError: a value that is not allowed.
    """
    settings = config.get_settings()
    return {
        name.removeprefix("cache_"): _checked(name, settings[name])
        for name in names
        if is_set(settings, name)
    }


def read_required(config: Configurator, name: str, example: str) -> Any:
    """Return a setting without which there is no store.

    :raises ConfigurationError: it is missing, or not allowed.
    """
    for value in read(config, name).values():
        return value
    raise ConfigurationError(f"{name} is missing: name the store, for example {example}")


def _checked(name: str, value: Any) -> Any:
    try:
        return CHECKS[name](value)
    except InvalidOption as error:
        found = "a value that is not shown" if name in SECRET else show(value)
        raise ConfigurationError(f"{name}: found {found}, expected {error}") from None


def build(config: Configurator, name: str, setting: str, /, **kvs_kwargs: Any) -> KVS:
    """Return the named driver, with the prefix that Kinto's settings say and no default ttl.

    :param setting: what the driver's complaints are about.
    :raises ConfigurationError: the driver's library is missing, or it refuses ``kvs_kwargs``.
    """
    key_prefix = read(config, "cache_prefix").get("prefix", "")
    try:
        return KVS(name, kvs_kwargs, key_prefix, ttl=None, codec="json")
    except DriverNotInstalled as error:
        raise ConfigurationError(f"cache_backend: {error}") from error
    except (TypeError, ValueError, LookupError, AttributeError, OSError) as error:
        raise ConfigurationError(f"{setting}: {without_credentials(str(error))}") from error

"""The options of ``kvs.ratelimit`` and of a view's ``ratelimit``."""

from __future__ import annotations

import re
from typing import Any

from ..messages import closest
from ..settings import (
    InvalidOption,
    Option,
    any_string,
    flag,
    is_number,
    list_of,
    names,
    one_of,
    optional,
    positive_integer,
    string,
)
from ..stores import DRIVER_OPTIONS

SETTING = "kvs.ratelimit"

_METHODS = (
    *("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"),
    *("PROPFIND", "PROPPATCH", "REPORT"),
)


def window(value: Any) -> float:
    if not is_number(value) or not 0.001 <= value <= 10**9:
        raise InvalidOption("a number of seconds from 0.001 to 1000000000")
    return value  # type: ignore[no-any-return]


def quota(value: Any) -> int:
    number = positive_integer(value)
    if number >= 10**15:  # RFC 9651 has integers of up to 15 digits
        raise InvalidOption("a positive integer up to 999999999999999")
    return number


def policy_name(value: Any) -> str:
    name = string(value)
    if len(name) > 64 or not (name.isascii() and name.isprintable()):
        raise InvalidOption("a string of at most 64 printable ASCII characters")
    return name


def error_status(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 400 <= value <= 599:
        raise InvalidOption("an HTTP status from 400 to 599")
    return value


def http_methods(value: Any) -> list[str]:
    found = names(value)
    methods = [name.upper() for name in ([found] if isinstance(found, str) else found)]
    for name in methods:
        meant = closest(name, _METHODS)
        if not re.fullmatch(r"[A-Z-]+", name) or (meant and name not in _METHODS):
            raise InvalidOption(
                f'the name of an HTTP method, such as "POST", or a list of them{meant}'
            )
    return methods


OPTIONS: dict[str, Option] = {
    "window": Option(window, 1),
    "limit": Option(quota, 15),
    "key_suffix": Option(string, "::ratelimit"),
    "strategy": Option(one_of("fixed-window", "sliding-window", "gcra"), "fixed-window"),
    "burst": Option(optional(quota), None),
    "by": Option(string, "session"),
    "unknown": Option(one_of("address", "session", "allow"), "address"),
    "name": Option(optional(policy_name), None),
    "cost": Option(quota, 1),
    "methods": Option(optional(http_methods), None),
    "on_error": Option(one_of("allow", "deny", "memory"), "allow"),
    "headers": Option(list_of("x", "ietf"), ["x", "ietf"]),
    "status": Option(error_status, 429),
    **DRIVER_OPTIONS,
    "key_prefix": Option(any_string, "ratelimit::"),
}

VIEW_OPTIONS: dict[str, Option] = {**OPTIONS, "add": Option(flag, False)}

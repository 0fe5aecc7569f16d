"""The setting ``kvs.ratelimit`` and a view's ``ratelimit``: their keys, and reading them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pyramid.exceptions import ConfigurationError

from ..messages import closest, quoted, show, unknown_name
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
    parse,
    positive_integer,
    string,
)
from ..stores import DRIVER_OPTIONS, read_options

SETTING = "kvs.ratelimit"

#: The checked options of one limit.
Options = Mapping[str, Any]

_IDENTITIES = ("session", "address", "user")
_OTHER_IDENTITIES = ("header:NAME", "dotted.name.of.a.callable")
_DOTTED_NAME = re.compile(r"[\w.]*[.:][\w.]+")
_EXAMPLE = '{"limit": 100, "window": 60}'

_NETWORKS = 'a list of addresses and networks such as ["10.0.0.0/8", "2001:db8::/32"]'

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
                'the name of an HTTP method, such as "POST", or a list of them', meant
            )
    return methods


def outcomes(value: Any) -> str | list[int]:
    """Return which responses count: ``"all"``, ``"failures"``, or their statuses."""
    allowed = '"all", "failures", or a list of HTTP statuses such as [401, 403]'
    if value in ("all", "failures"):
        return str(value)
    if isinstance(value, str) and not value.isdecimal():
        raise InvalidOption(allowed, closest(value, ("all", "failures")))
    listed = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    statuses = [int(one) for one in listed if re.fullmatch(r"[1-5]\d\d", str(one))]
    if not listed or len(statuses) < len(listed):
        raise InvalidOption(allowed)
    if value != statuses:
        raise InvalidOption(allowed, f"; did you mean {statuses}?")
    return statuses


def networks(value: Any) -> list[str]:
    """Return the networks of a list of networks and addresses."""
    if isinstance(value, str):
        raise InvalidOption(_NETWORKS, f"; did you mean {show([_network(value)])}?")
    if not isinstance(value, Sequence):
        raise InvalidOption(_NETWORKS)
    return [_network(one) for one in value]


def _network(value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidOption(_NETWORKS)
    try:
        found = ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise InvalidOption(f"{_NETWORKS}, but {quoted(value)} is neither") from None
    if found.network_address != ipaddress.ip_interface(value).ip:
        raise InvalidOption(
            f"{_NETWORKS}, but {quoted(value)} is an address in a network",
            f"; did you mean '{found}'?",
        )
    return str(found)


OPTIONS: dict[str, Option] = {
    "window": Option(window, 1, other_words=("per", "period", "interval", "seconds")),
    "limit": Option(quota, 15, other_words=("rate", "requests", "max_requests", "quota")),
    "key_suffix": Option(string, "::ratelimit"),
    "strategy": Option(one_of("fixed-window", "sliding-window", "gcra"), "fixed-window"),
    "burst": Option(optional(quota), None),
    "by": Option(string, "session"),
    "unknown": Option(one_of("address", "session", "allow"), "address"),
    "name": Option(optional(policy_name), None),
    "cost": Option(quota, 1),
    "methods": Option(optional(http_methods), None),
    "count": Option(outcomes, "all", other_words=("statuses", "status_codes")),
    "except": Option(networks, [], other_words=("allow", "allowlist", "whitelist")),
    "mode": Option(
        one_of("enforce", "shadow"), "enforce", other_words=("shadow", "dry_run", "enforce")
    ),
    "on_error": Option(one_of("allow", "deny", "memory"), "allow"),
    "headers": Option(list_of("x", "ietf"), ["x", "ietf"]),
    "status": Option(error_status, 429),
    **DRIVER_OPTIONS,
    "key_prefix": Option(any_string, "ratelimit::"),
}

VIEW_OPTIONS: dict[str, Option] = {**OPTIONS, "add": Option(flag, False)}


class ViewOption(NamedTuple):
    """The option ``ratelimit`` that a view has, or its route."""

    #: ``False`` if the view has no limit.
    value: Any
    #: The view, for messages and lists.
    label: str
    #: What the names of its limits begin with, if they are not given.
    scope: str
    #: The name of the view's route; ``None`` if it is found by traversal.
    route: str | None
    #: Whether the route has the option, and not the view. Its views then share the limits.
    is_of_route: bool = False

    @property
    def place(self) -> str:
        """For messages."""
        return f"ratelimit of {self.label}"


def read_setting(value: Any) -> list[Options]:
    """Return the options of each limit of ``kvs.ratelimit``, which is an object or a list.

    :raises ConfigurationError: see :mod:`pyramid_kvs.settings`.
    """
    return _read(SETTING, parse(SETTING, value, _EXAMPLE), OPTIONS)


def read_view_option(option: ViewOption) -> list[Options]:
    """Return the options of each limit of a view."""
    place, value = option.place, option.value
    if value is False:
        return []
    if isinstance(value, str) or not isinstance(value, (Mapping, Sequence)):
        raise ConfigurationError(
            f"{place}: found {show(value)}, expected false (no limit), an object such as "
            '{"limit": 5, "window": 60}, or a list of them'
        )
    return _read(place, parse(place, value), VIEW_OPTIONS)


def _read(place: str, parsed: Any, table: Mapping[str, Option]) -> list[Options]:
    if not isinstance(parsed, list):
        return [_checked(place, parsed, table)]
    return [_checked(f"{place}[{index}]", item, table) for index, item in enumerate(parsed)]


def _checked(place: str, value: Any, table: Mapping[str, Option]) -> Options:
    if not isinstance(value, Mapping):
        raise ConfigurationError(
            f"{place}: found {show(value)}, expected an object, for example {_EXAMPLE}"
        )
    options = read_options(place, value, table)
    _check_burst(place, options)
    _check_by(place, options["by"])
    return options


def _check_burst(place: str, options: Options) -> None:
    burst = options["burst"]
    if burst is not None and options["strategy"] != "gcra":
        raise ConfigurationError(
            f"{place}: burst: found {burst}, but strategy {show(options['strategy'])} has no "
            'burst: leave it out, or write "strategy": "gcra"'
        )
    most = burst or options["limit"]
    if options["cost"] > most:
        raise ConfigurationError(
            f"{place}: cost: found {options['cost']}, expected at most {most} (the "
            f"{'burst' if burst else 'limit'}), because otherwise no request ever passes"
        )


#: What other libraries call the identities.
_OTHER_WORDS = {
    **dict.fromkeys(("ip", "ip_address", "client", "host", "remote_addr"), "address"),
    **dict.fromkeys(("userid", "user_id", "login", "account", "principal"), "user"),
    **dict.fromkeys(("cookie", "session_id"), "session"),
    **dict.fromkeys(("api_key", "api-key", "apikey", "key", "token"), "header:X-API-Key"),
}


def _check_by(place: str, by: str) -> None:
    if by in _IDENTITIES or by.startswith("header:") or _DOTTED_NAME.fullmatch(by):
        return
    known = [*_IDENTITIES, *_OTHER_IDENTITIES]
    meant = _OTHER_WORDS.get(by.lower())
    hint = f"; did you mean {meant!r}?" if meant else ""
    raise ConfigurationError(f"{place}: by: {unknown_name('identity', by, known, hint)}")

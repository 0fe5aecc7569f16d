"""The ``kvs.ratelimit`` setting and the view option, from text or objects to limits."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from pyramid.exceptions import ConfigurationError
from pyramid.request import Request

from ..messages import show, unknown_name
from ..settings import Option, parse
from ..stores import read_options
from .counting import Rule
from .identity import Identify, identify_by
from .response import quoted
from .settings import OPTIONS, SETTING, VIEW_OPTIONS
from .store import LimitStore

_WORDS = ("session", "address", "user", "header:NAME", "dotted.name.of.a.callable")

Options = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Limit:
    """One limit, ready to count."""

    name: str
    rule: Rule
    window: float
    by: str
    identify: Identify
    suffix: str  # of the counter's key, after the identity
    store: LimitStore
    methods: frozenset[str] | None
    on_error: str
    tells_x: bool
    tells_ietf: bool
    error_status: int
    quoted: str
    field: str  # its part of RateLimit-Policy
    x_limit: tuple[str, str]  # a header
    options: Options

    def applies(self, request: Request) -> bool:
        return self.methods is None or request.method in self.methods


def read_setting(value: Any) -> list[dict[str, Any]]:
    """Return the checked options of each limit of ``kvs.ratelimit``: an object, or a list.

    :raises ConfigurationError: see :mod:`pyramid_kvs.settings`.
    """
    return _read(SETTING, parse(SETTING, value), OPTIONS)


def read_view_option(value: Any, place: str) -> list[dict[str, Any]]:
    """Return the checked options of each limit of a view's ``ratelimit``.

    :param place: the view, for messages.
    """
    if isinstance(value, str) or not isinstance(value, (Mapping, Sequence)):
        raise ConfigurationError(
            f"{place}: found {show(value)}, expected false (no limit), an object such as "
            '{"limit": 5, "window": 60}, or a list of them'
        )
    return _read(place, parse(place, value), VIEW_OPTIONS)


def _read(name: str, parsed: Any, table: Mapping[str, Option]) -> list[dict[str, Any]]:
    if not isinstance(parsed, list):
        return [_checked(name, parsed, table)]
    return [_checked(f"{name}[{at}]", item, table) for at, item in enumerate(parsed)]


def _checked(name: str, value: Any, table: Mapping[str, Option]) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigurationError(
            f"{name}: found {show(value)}, expected an object, for example "
            '{"limit": 100, "window": 60}'
        )
    options = read_options(name, value, table)
    _check_burst(name, options)
    _check_by(name, options["by"])
    return options


def _check_burst(name: str, options: Options) -> None:
    burst = options["burst"]
    if burst is not None and options["strategy"] != "gcra":
        raise ConfigurationError(
            f"{name}: burst: found {burst}, but strategy {show(options['strategy'])} has no "
            'burst: leave it out, or write "strategy": "gcra"'
        )
    most = burst or options["limit"]
    if options["cost"] > most:
        raise ConfigurationError(
            f"{name}: cost: found {options['cost']}, expected at most {most} (the "
            f"{'burst' if burst else 'limit'}), or no request ever passes"
        )


def _check_by(name: str, by: str) -> None:
    if by not in _WORDS[:3] and not by.startswith("header:") and not re.search(r"[.:]", by):
        raise ConfigurationError(f"{name}: by: {unknown_name('identity', by, list(_WORDS))}")


# -- limits ----------------------------------------------------------------------------------


def make_limit(
    options: Options,
    place: str,
    name: str,
    suffix: str,
    store: LimitStore,
    resolve: Callable[[str], Any],
) -> Limit:
    """Return the limit that checked options describe.

    :param place: where they stand, for messages.
    :param resolve: imports a dotted name.
    """
    window, limit = options["window"], options["limit"]
    rule = Rule(
        options["strategy"],
        limit,
        math.ceil(window * 1000),
        options["burst"] or limit,
        options["cost"],
    )
    return Limit(
        name=name,
        rule=rule,
        window=window,
        by=options["by"],
        identify=_identify(options, place, resolve),
        suffix=suffix,
        store=store,
        methods=_methods(options["methods"]),
        on_error=options["on_error"],
        tells_x="x" in options["headers"],
        tells_ietf="ietf" in options["headers"],
        error_status=options["status"],
        quoted=quoted(name),
        field=f"{quoted(name)};q={limit};w={math.ceil(window)}",
        x_limit=("X-RateLimit-Limit", str(limit)),
        options=options,
    )


def _identify(options: Options, place: str, resolve: Callable[[str], Any]) -> Identify:
    try:
        return identify_by(options["by"], options["unknown"], resolve)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(f"{place}: by: {error}") from error


def _methods(names: list[str] | None) -> frozenset[str] | None:
    if names is None:
        return None
    methods = set(names)
    # Pyramid answers HEAD with the views of GET.
    return frozenset(methods | {"HEAD"} if "GET" in methods else methods)


def derived_name(scope: str, options: Options) -> str:
    """Return a name for a limit without one: where it holds, and its window.

    It says nothing of the limit itself, so that raising it does not start the counters anew.
    """
    return quote(scope, safe=":._/ -")[:40] + f"-{options['window']:g}s"

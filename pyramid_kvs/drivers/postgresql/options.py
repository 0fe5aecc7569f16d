"""The postgresql driver's ``kvs_kwargs``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from ...kvs import breaker
from ...messages import unknown_name
from ..options import COUNT_OR_ANY, POSITIVE, SECONDS, Check


class Options(NamedTuple):
    """The keys that ``kvs_kwargs`` may have. Times are in seconds."""

    url: str = "postgresql://"
    pool_size: int = 10
    max_overflow: int = 10
    max_backlog: int = -1
    pool_timeout: float = 0.5
    pool_recycle: float = -1
    statement_timeout: float = 2.0
    table: str = "kvs"
    unlogged: bool = False
    prepare: bool | str = "auto"
    breaker: float = breaker.SECONDS


def read_options(kwargs: Mapping[str, Any]) -> Options:
    """Check ``kvs_kwargs`` and return them.

    :raises TypeError: an unknown key.
    :raises ValueError: a value that is not allowed.
    """
    for name, value in kwargs.items():
        if name == "breaker":
            breaker.check_seconds(value)
        else:
            _check(name, value)
    return Options(**kwargs)


def _check(name: str, value: Any) -> None:
    if name not in CHECKS:
        raise TypeError(unknown_name("key", name, sorted(Options._fields)))
    is_allowed, allowed = CHECKS[name]
    if not is_allowed(value):
        found = "a value that is not shown" if name == "url" else repr(value)
        raise ValueError(f"{name}: found {found}, expected {allowed}")


def _is_seconds_or_never(value: Any) -> bool:
    return value == -1 or (type(value) in (int, float) and 0 < value < float("inf"))


def _is_table(value: Any) -> bool:
    parts = value.split(".") if isinstance(value, str) else []
    return 1 <= len(parts) <= 2 and all(
        re.fullmatch(r"[^\W\d][\w$]*", part) and len(part.encode()) <= 55 for part in parts
    )


CHECKS: dict[str, Check] = {
    "url": (
        lambda value: isinstance(value, str),
        "a string, for example 'postgresql://localhost:5432/dbname'",
    ),
    "pool_size": POSITIVE,
    "max_overflow": COUNT_OR_ANY,
    "max_backlog": COUNT_OR_ANY,
    "pool_timeout": SECONDS,
    "pool_recycle": (_is_seconds_or_never, "a positive number of seconds, or -1 for never"),
    "statement_timeout": SECONDS,
    "table": (
        _is_table,
        "a name such as 'kvs' or 'myschema.kvs': letters, digits and underscores, "
        "at most 55 bytes each, no quotes",
    ),
    "unlogged": (lambda value: isinstance(value, bool), "true or false"),
    "prepare": (
        lambda value: value == "auto" or isinstance(value, bool),
        "'auto', true or false",
    ),
}

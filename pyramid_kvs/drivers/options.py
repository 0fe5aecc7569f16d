"""Checks of ``kvs_kwargs`` that several drivers have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from .pool import TIMEOUT

Check = tuple[Callable[[Any], bool], str]


def is_integer(least: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and value >= least


def is_seconds(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value <= 86400


def check(name: str, value: Any, check: Check) -> None:
    """Raise ``ValueError`` for a value that is not allowed."""
    is_allowed, allowed = check
    if not is_allowed(value):
        raise ValueError(f"{name}: found {value!r}, expected {allowed}")


SECONDS: Check = (is_seconds, "a positive number of seconds, at most 86400")
POSITIVE: Check = (is_integer(1), "a positive integer")
COUNT_OR_ANY: Check = (is_integer(-1), "0, a positive integer, or -1 for no limit")


class PoolOptions(NamedTuple):
    """How long a call waits for a connection, in seconds, and how many calls can wait."""

    pool_timeout: float = TIMEOUT
    max_backlog: int = -1


POOL_CHECKS = {"pool_timeout": SECONDS, "max_backlog": COUNT_OR_ANY}


def take_pool_options(kwargs: dict[str, Any]) -> PoolOptions:
    """Remove the options of the pool from ``kvs_kwargs`` and return them.

    :raises ValueError: a value that is not allowed.
    """
    found = {name: kwargs.pop(name) for name in POOL_CHECKS if name in kwargs}
    for name, value in found.items():
        check(name, value, POOL_CHECKS[name])
    return PoolOptions(**found)

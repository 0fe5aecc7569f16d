"""Durations that callers of the cache give: numbers of seconds, and ``timedelta``."""

from __future__ import annotations

from datetime import timedelta
from numbers import Real
from typing import Any

#: A hundred years.
LONGEST = 36525 * 86400.0


def ttl_seconds(ttl: Any) -> float | None:
    """Return a ttl in seconds, or ``None`` for the ttl of the setting.

    :raises TypeError: it is not a duration.
    :raises ValueError: it is NaN.
    """
    return None if ttl is None else _seconds("ttl", ttl, ", or None")


def duration(name: str, value: Any) -> float:
    """Return an argument in seconds.

    :raises TypeError: it is not a duration.
    :raises ValueError: it is NaN, negative or longer than a hundred years.
    """
    seconds = _seconds(name, value)
    if not 0 <= seconds <= LONGEST:
        raise ValueError(f"{name}: found {value!r}, expected seconds from 0 to a hundred years")
    return seconds


def _seconds(name: str, value: Any, others: str = "") -> float:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(
            f"{name}: found {value!r}, expected a number of seconds or a timedelta{others}"
        )
    if value != value:
        raise ValueError(f"{name}: found {value!r}, expected a number of seconds")
    return value  # type: ignore[return-value]

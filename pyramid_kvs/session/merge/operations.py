"""Changes that a function makes, and that can be made again on the value of another request."""

from __future__ import annotations

import copy
import numbers
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

from ..records import RecordCodec
from .values import PLAIN, REMOVED


class Operation(NamedTuple):
    """A change of a value by a function."""

    function: Callable[[Any], Any]
    #: The function's argument if there is no value.
    default: Any

    def apply(self, value: Any) -> Any:
        """Return the function's result for a value, which may be ``REMOVED``."""
        return self.function(self._fresh_default() if value is REMOVED else value)

    def _fresh_default(self) -> Any:
        # The function may change its argument, and may run again.
        return self.default if type(self.default) in PLAIN else copy.deepcopy(self.default)


def apply_all(operations: Iterable[Operation], value: Any) -> Any:
    for operation in operations:
        value = operation.apply(value)
    return value


def addition(key: str, delta: Any, codec: RecordCodec) -> Callable[[Any], Any]:
    """Return a function that adds to the number at a key.

    :raises TypeError: ``delta`` is not a number. The function raises it for a value.
    """
    if not _is_number(delta):
        raise TypeError(f"session.incr({key!r}): delta is a number, not {type(delta).__name__}")
    return partial(_add, key, delta, codec)


def _add(key: str, delta: Any, codec: RecordCodec, value: Any) -> Any:
    if isinstance(value, str):
        value = _number_in(value, codec)
    if not _is_number(value):
        raise TypeError(
            f"session.incr({key!r}): the value is not a number (int, float), "
            f"but {type(value).__name__}"
        )
    return value + delta


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Number) and not isinstance(value, bool)


def _number_in(text: str, codec: RecordCodec) -> Any:
    """Return the number that the codec wrote as a string; any other string as it is."""
    try:
        number = float(text)
    except ValueError:
        return text
    record = codec.decode(codec.dumps({"value": number}))
    return number if record is not None and record["value"] == text else text

"""JSON for values that JSON cannot represent: bytes, infinity, bytes as keys, shared data.

Other values are written as plain JSON. These are written as objects with a tag:

==================================  ==============================================================
``{"$bytes": "c3ff"}``              bytes, in hexadecimal
``{"$float": "inf"}``               a float: ``inf``, ``-inf`` or ``nan``
``{"$dict": [[key, value], ...]}``  a dict with a bytes key, or with a key that starts with ``$``
``{"$id": 1, "$value": ...}``       a list or dict that occurs at several places, as number 1
``{"$ref": 1}``                     list or dict number 1 again; it may be inside itself
==================================  ==============================================================

No function here is recursive, so only memory limits the depth.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import Any, Final

__all__ = ["dumps", "encode"]

SCALARS: Final = (str, int, float, type(None))

# A list or dict that is being encoded: the items still to come, as (key, item), and what stores
# an encoded item.
_Open = tuple[Iterator[tuple[Any, Any]], Callable[[Any, Any], None]]


def encode(value: Any) -> Any:
    """Convert a value to one that the module ``json`` can write.

    :param value: None, bool, int, float, str, bytes, list or dict with str or bytes keys.
    :raises TypeError: something in it has another type.
    """
    encoder = _Encoder(value)
    root, opened = encoder.begin(value)
    stack = [] if opened is None else [opened]
    while stack:
        items, store = stack[-1]
        for key, item in items:
            encoded, opened = encoder.begin(item)
            store(key, encoded)
            if opened is not None:
                stack.append(opened)
                break
        else:
            stack.pop()
    return root


def dumps(value: Any, *, indent: int | None = None, ensure_ascii: bool = True) -> str:
    """Write a value as tagged JSON.

    :param indent: number of spaces for each level, with each item on its own line. With None,
        everything is on one line.
    :param ensure_ascii: write characters that are not ASCII as escapes.
    """
    write_scalar = json.JSONEncoder(ensure_ascii=ensure_ascii).encode
    return "".join(_write(encode(value), indent, write_scalar))


class _Encoder:
    """Encodes each part of a value; the items of a list or dict are left to the caller."""

    def __init__(self, value: Any) -> None:
        self.shared = _find_shared(value)
        self.numbers: dict[int, int] = {}

    def begin(self, value: Any) -> tuple[Any, _Open | None]:
        """Return the encoded value without its items, and what fills them in, if it has any."""
        if not isinstance(value, (list, dict)):
            return _encode_scalar(value), None
        if id(value) in self.numbers:
            return {"$ref": self.numbers[id(value)]}, None
        encoded, opened = self._begin_container(value)
        if id(value) in self.shared:
            number = self.numbers[id(value)] = len(self.numbers) + 1
            encoded = {"$id": number, "$value": encoded}
        return encoded, opened

    def _begin_container(self, value: Any) -> tuple[Any, _Open]:
        if isinstance(value, list):
            items: list[Any] = []
            return items, (enumerate(value), lambda _, item: items.append(item))
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            body: dict[str, Any] = {}
            return body, (iter(value.items()), body.__setitem__)
        pairs: list[Any] = []
        return {"$dict": pairs}, (
            iter(value.items()),
            lambda key, item: pairs.append([_encode_scalar(key), item]),
        )


def _find_shared(value: Any) -> set[int]:
    """Return the ids of the lists and dicts that occur at more than one place."""
    seen: set[int] = set()
    shared: set[int] = set()
    todo = [value]
    while todo:
        part = todo.pop()
        if not isinstance(part, (list, dict)):
            continue
        if id(part) in seen:
            shared.add(id(part))
            continue
        seen.add(id(part))
        todo.extend(part if isinstance(part, list) else part.values())
    return shared


def _encode_scalar(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"$bytes": value.hex()}
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": repr(value)}
    if not isinstance(value, SCALARS):
        raise TypeError(f"tagged JSON cannot represent a value of type {type(value).__name__}")
    return value


def _write(encoded: Any, indent: int | None, write_scalar: Callable[[Any], str]) -> Iterator[str]:
    """Write JSON in pieces; ``json.dumps`` is recursive and fails at 1,000 levels."""
    comma = ", " if indent is None else ","
    stack: list[tuple[str, Iterator[tuple[Any, Any]]]] = []
    key, value, lead = None, encoded, ""
    while True:
        yield lead if key is None else f"{lead}{write_scalar(key)}: "
        if value and isinstance(value, (list, dict)):
            yield "[" if isinstance(value, list) else "{"
            stack.append(_iterate(value))
            lead = _break_line(indent, len(stack))
        else:
            yield write_scalar(value)
            lead = comma + _break_line(indent, len(stack))
        while stack:
            closing, items = stack[-1]
            following = next(items, None)
            if following is not None:
                key, value = following
                break
            stack.pop()
            yield _break_line(indent, len(stack)) + closing
            lead = comma + _break_line(indent, len(stack))
        else:
            return


def _iterate(value: Any) -> tuple[str, Iterator[tuple[Any, Any]]]:
    """Return the closing bracket and the items as (key, item); a list's items have no key."""
    if isinstance(value, list):
        return "]", ((None, item) for item in value)
    return "}", iter(value.items())


def _break_line(indent: int | None, depth: int) -> str:
    return "" if indent is None else "\n" + " " * (indent * depth)

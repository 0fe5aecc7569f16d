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

# A value to write: the text before it, the value, and its depth. The end of a list or dict is only
# text.
_Part = tuple[str, Any, int]
_END: Final = object()


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
    todo: list[_Part] = [("", encoded, 0)]
    while todo:
        lead, value, depth = todo.pop()
        yield lead
        if value and isinstance(value, (list, dict)):
            yield "[" if isinstance(value, list) else "{"
            todo += reversed([*_parts(value, indent, depth + 1, write_scalar)])
        elif value is not _END:
            yield write_scalar(value)


def _parts(
    value: Any, indent: int | None, depth: int, write_scalar: Callable[[Any], str]
) -> Iterator[_Part]:
    """Yield the items of a list or dict, and its end."""
    separator, is_list = _break_line(indent, depth), isinstance(value, list)
    following = ("," if indent is not None else ", ") + separator
    for item in value:
        if is_list:
            yield separator, item, depth
        else:
            yield f"{separator}{write_scalar(item)}: ", value[item], depth
        separator = following
    yield _break_line(indent, depth - 1) + ("]" if is_list else "}"), _END, depth


def _break_line(indent: int | None, depth: int) -> str:
    return "" if indent is None else "\n" + " " * (indent * depth)

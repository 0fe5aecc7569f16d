"""JSON for values that JSON has no form for: bytes, infinity, keys of bytes, shared data.

Plain values stand for themselves. For the rest there are objects with a tag:

==================================  ==============================================================
``{"$bytes": "c3ff"}``              bytes, in hexadecimal
``{"$float": "inf"}``               a float: ``inf``, ``-inf`` or ``nan``
``{"$dict": [[key, value], ...]}``  a dict that has a key of bytes, or one that begins with ``$``
``{"$id": 1, "$value": ...}``       a list or dict that occurs at more than one place, number 1
``{"$ref": 1}``                     that same list or dict again, which may be inside itself
==================================  ==============================================================

Nothing here calls itself for each level, so that depth has no limit but memory.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import Any, Final

__all__ = ["decode", "dumps", "encode"]

FLOATS: Final = ("inf", "-inf", "nan")
SCALARS: Final = (str, int, float, type(None))

# What _build() fills: the items still to come as (key, item), and where they go.
_Open = tuple[Iterator[tuple[Any, Any]], Callable[[Any, Any], None]]
_Begin = Callable[[Any], "tuple[Any, _Open | None]"]


def encode(value: Any) -> Any:
    """Turn a value into one that JSON can hold.

    :param value: None, bool, int, float, str, bytes, list or dict with keys of str or bytes.
    :raises TypeError: something in it is of another type.
    """
    return _build(value, _Encoder(value).begin)


def decode(encoded: Any) -> Any:
    """Turn what :func:`encode` gave back into the value.

    :raises ValueError: a tag has not the value that belongs to it.
    """
    return _build(encoded, _Decoder().begin)


def dumps(value: Any, *, indent: int | None = None, ensure_ascii: bool = True) -> str:
    """Write a value as the text of tagged JSON.

    :param indent: spaces for each level, each item on its own line; None: all on one line.
    :param ensure_ascii: write escapes for all that is not ASCII.
    """
    write_scalar = json.JSONEncoder(ensure_ascii=ensure_ascii).encode
    return "".join(_write(encode(value), indent, write_scalar))


def _build(value: Any, begin: _Begin) -> Any:
    """Transform a tree in the order of its text: ``begin`` makes each part, its items follow."""
    root, opened = begin(value)
    stack = [] if opened is None else [opened]
    while stack:
        items, put = stack[-1]
        for key, item in items:
            made, opened = begin(item)
            put(key, made)
            if opened is not None:
                stack.append(opened)
                break
        else:
            stack.pop()
    return root


def _append_to(target: list[Any]) -> Callable[[Any, Any], None]:
    return lambda _key, item: target.append(item)


class _Encoder:
    def __init__(self, value: Any) -> None:
        self.shared = _find_shared(value)
        self.numbers: dict[int, int] = {}

    def begin(self, value: Any) -> tuple[Any, _Open | None]:
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
            return items, (enumerate(value), _append_to(items))
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
        raise TypeError(f"a value of type {type(value).__name__} has no tagged JSON")
    return value


class _Decoder:
    def __init__(self) -> None:
        self.objects: dict[int, Any] = {}

    def begin(self, encoded: Any) -> tuple[Any, _Open | None]:
        if isinstance(encoded, dict) and encoded.keys() == {"$id", "$value"}:
            value, opened = self._begin_container(encoded["$value"])
            self.objects[encoded["$id"]] = value
            return value, opened
        if isinstance(encoded, (list, dict)):
            return self._begin_container(encoded)
        return encoded, None

    def _begin_container(self, encoded: Any) -> tuple[Any, _Open | None]:
        if isinstance(encoded, list):
            items: list[Any] = []
            return items, (enumerate(encoded), _append_to(items))
        if "$dict" in encoded:
            return self._begin_pairs(encoded["$dict"])
        tag = next(iter(encoded), "")
        if tag.startswith("$"):
            return self._decode_tag(tag, encoded[tag]), None
        body: dict[Any, Any] = {}
        return body, (iter(encoded.items()), body.__setitem__)

    def _begin_pairs(self, pairs: list[Any]) -> tuple[Any, _Open]:
        body: dict[Any, Any] = {}
        keys = ((self.begin(key)[0], item) for key, item in pairs)
        return body, (keys, body.__setitem__)

    def _decode_tag(self, tag: str, body: Any) -> Any:
        if tag == "$bytes":
            return bytes.fromhex(body)
        if tag == "$float" and body in FLOATS:
            return float(body)
        if tag == "$ref" and body in self.objects:
            return self.objects[body]
        raise ValueError(f"tagged JSON: {tag!r} stands before something else than its value")


def _write(encoded: Any, indent: int | None, write_scalar: Callable[[Any], str]) -> Iterator[str]:
    """Write JSON in pieces; ``json.dumps`` calls itself for each level and fails at 1,000."""
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
    if isinstance(value, list):
        return "]", ((None, item) for item in value)
    return "}", iter(value.items())


def _break_line(indent: int | None, depth: int) -> str:
    return "" if indent is None else "\n" + " " * (indent * depth)

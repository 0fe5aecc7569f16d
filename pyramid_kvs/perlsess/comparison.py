"""Finds out which values of a session a request changed in place."""

from __future__ import annotations

import marshal
from collections.abc import Iterator, Mapping
from typing import Any

from ..storable.editor import Key


def snapshot(value: Any) -> bytes | None:
    """Return bytes that are equal only for equal values, or ``None`` if that is impossible."""
    try:
        return marshal.dumps(value)
    except ValueError:
        return None


def changed_keys(values: Mapping[Key, Any], originals: Mapping[Key, Any]) -> set[Key]:
    """Return the keys whose values are not the same data as the originals.

    Same data have the same types, at any depth and in cycles. As in Perl, the order of a dict's
    keys does not count. NaN is the same as NaN.
    """
    return {key for key, value in values.items() if not _is_same(value, originals.get(key))}


def _is_same(one: Any, other: Any) -> bool:
    todo, seen = [(one, other)], set()
    while todo:
        left, right = todo.pop()
        if isinstance(left, (dict, list)) and type(left) is type(right):
            if (id(left), id(right)) in seen:
                continue
            seen.add((id(left), id(right)))
            if not _has_same_shape(left, right):
                return False
            todo.extend(_children(left, right))
        elif not is_same_scalar(left, right):
            return False
    return True


def _has_same_shape(left: Any, right: Any) -> bool:
    if isinstance(left, list):
        return len(left) == len(right)
    return bool(left.keys() == right.keys())


def _children(left: Any, right: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(left, list):
        return zip(left, right, strict=True)
    return ((left[key], right[key]) for key in left)


def is_same_scalar(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other or (one != one and other != other))

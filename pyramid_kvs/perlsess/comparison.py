"""Finds out which values of a session a request changed in place."""

from __future__ import annotations

import marshal
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from ..storable.editor import Key

_Pair: TypeAlias = "tuple[int, int]"
#: A pair, or a key alone.
_Owner: TypeAlias = "tuple[Any, ...]"

#: Longer strings are compared only once, also if they occur at many places.
SHORT_STRING = 64


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

    Values can share data, so each pair of lists, dicts or long strings is compared once, and knows
    its owners: the pairs that contain it, and the keys. What differs then makes its owners differ.
    """
    owners: dict[_Pair, list[_Owner]] = {}
    different: list[_Owner] = []
    todo: list[tuple[_Owner, Any, Any]] = [
        ((key,), value, originals.get(key)) for key, value in values.items()
    ]
    while todo:
        owner, left, right = todo.pop()
        if not _is_large(left):
            if not is_same_scalar(left, right):
                different.append(owner)
            continue
        pair = (id(left), id(right))
        if pair not in owners:
            owners[pair] = []
            if _has_same_shape(left, right):
                todo += [(pair, *items) for items in _items(left, right)]
            else:
                different.append(pair)
        owners[pair].append(owner)
    return _keys_of(different, owners)


def _keys_of(different: list[_Owner], owners: Mapping[_Pair, list[_Owner]]) -> set[Key]:
    """Return the keys among what differs and its owners, at any distance."""
    seen = set(different)
    while different:
        found = different.pop()
        for owner in owners[found] if len(found) == 2 else ():
            if owner not in seen:
                seen.add(owner)
                different.append(owner)
    return {owner[0] for owner in seen if len(owner) == 1}


def _is_large(value: Any) -> bool:
    """Return whether a value is worth remembering that it was compared."""
    return isinstance(value, (dict, list)) or (
        isinstance(value, (str, bytes)) and len(value) > SHORT_STRING
    )


def _has_same_shape(left: Any, right: Any) -> bool:
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return bool(left.keys() == right.keys())
    return len(left) == len(right) if isinstance(left, list) else bool(left == right)


def _items(left: Any, right: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(left, dict):
        return ((left[key], right[key]) for key in left)
    return zip(left, right, strict=True) if isinstance(left, list) else ()


def is_same_scalar(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other or (one != one and other != other))

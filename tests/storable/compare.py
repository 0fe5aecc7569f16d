"""Compares values strictly: by types, signs, sharing and cycles."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from pyramid_kvs.storable import thaw

MISSING = object()


def assert_value(image: bytes, want: Any, **options: Any) -> None:
    """Check what an image is read as."""
    assert differ(want, thaw(image, **options)) is None


def differ(want: Any, got: Any, *, by_perl: bool = False) -> str | None:
    """Say where two values differ, or return None if they do not.

    Lists and dicts must be one object in ``got`` exactly where they are one in ``want``.

    :param by_perl: ``got`` is from Perl, where numbers can be strings, True is 1, and tuples are
        lists.
    """
    partner: dict[int, int] = {}
    todo = [(want, got, "value")]
    while todo:
        wanted, found, path = todo.pop()
        if not isinstance(wanted, (list, tuple, dict)):
            if not (is_same_to_perl if by_perl else is_same)(wanted, found):
                return f"{path}: wanted {wanted!r:.80}, got {found!r:.80}"
            continue
        if problem := differ_in_kind(wanted, found):
            return f"{path}: {problem}"
        if id(wanted) in partner or id(found) in partner:
            if partner.get(id(wanted)) != id(found) or partner.get(id(found)) != id(wanted):
                return f"{path}: not shared as wanted"
            continue
        if wanted != ():
            partner[id(wanted)], partner[id(found)] = id(found), id(wanted)
        for key, item, counterpart in pair(wanted, found, by_perl):
            if counterpart is MISSING:
                return f"{path}: key {key!r:.80} is missing"
            todo.append((item, counterpart, f"{path}[{key!r:.30}]" if len(path) < 300 else path))
    return None


def pair(wanted: Any, found: Any, by_perl: bool) -> Iterator[tuple[Any, Any, Any]]:
    """Yield key, wanted item and found item of two lists or dicts."""
    if not isinstance(wanted, dict):
        yield from zip(range(len(wanted)), wanted, found, strict=True)
        return
    for key, item in wanted.items():
        name = find_key(key, found, by_perl)
        yield key, item, MISSING if name is None else found[name]


def differ_in_kind(wanted: Any, found: Any) -> str | None:
    if type(found) is not (dict if isinstance(wanted, dict) else list):
        return f"wanted a {type(wanted).__name__}, got a {type(found).__name__}"
    if len(wanted) != len(found):
        return f"wanted {len(wanted)} items, got {len(found)}"
    return None


def is_same(wanted: Any, found: Any) -> bool:
    if type(wanted) is not type(found):
        return False
    if isinstance(wanted, float):
        return repr(wanted) == repr(found)
    return bool(wanted == found)


def is_same_to_perl(wanted: Any, found: Any) -> bool:
    if wanted is None or found is None:
        return wanted is found
    if isinstance(wanted, (str, bytes)):
        return as_bytes(wanted) == as_bytes(found)
    if isinstance(wanted, int):
        return str(int(wanted)) == str(found)
    number = float(found)
    return number == wanted or (math.isnan(number) and math.isnan(wanted))


def find_key(key: Any, found: dict[Any, Any], by_perl: bool) -> Any:
    for candidate in found if by_perl and key not in found else (key,):
        if candidate in found and as_bytes(candidate) == as_bytes(key):
            return candidate
    return None


def as_bytes(text: Any) -> Any:
    return text.encode() if isinstance(text, str) else text

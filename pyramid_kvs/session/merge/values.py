"""How values of a session are compared, and copied."""

from __future__ import annotations

import marshal
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any, TypeAlias

from ...serializer import Codec, Data

Snapshot: TypeAlias = "Data | None"
Dumps: TypeAlias = "Callable[[Any], Data]"

#: Types whose values cannot change in place.
PLAIN = frozenset({str, int, float, bool, bytes, type(None)})

_CONTAINERS = frozenset({dict, list, tuple})

REMOVED: Any = type("Removed", (), {"__repr__": lambda _: "REMOVED", "__slots__": ()})()


def snapshot(value: Any, dumps: Dumps) -> Snapshot:
    """Return what :func:`is_changed` later compares a value with.

    :param dumps: of the codec, for values that ``marshal`` cannot write.
    """
    try:
        return marshal.dumps(value)
    except ValueError:
        return encoded(value, dumps)


def is_changed(value: Any, before: Snapshot, dumps: Dumps) -> bool:
    """Return whether a value differs from its snapshot, types and order included."""
    after = snapshot(value, dumps)
    if after == before:
        return False
    try:
        return _comparable(value) != _comparable(marshal.loads(before))  # type: ignore[arg-type]  # noqa: S302
    except (ValueError, TypeError, EOFError):
        return True


def _comparable(value: Any) -> bytes:
    # Later versions of the format depend on reference counts. They write a list differently while
    # other code has a reference to it. But they are twice as fast, so this version is used only
    # if they differ.
    return marshal.dumps(value, 2)


def encoded(value: Any, dumps: Dumps) -> Snapshot:
    """Return the data of a value; ``None`` if the codec refuses it."""
    try:
        return dumps({"value": value})
    except Exception:  # noqa: BLE001  # the codec refuses it, which the save reports
        return None


def identical(one: Any, other: Any, dumps: Dumps) -> bool:
    """Return whether two values have the same data; ``1``, ``1.0`` and ``True`` differ."""
    if one is REMOVED or other is REMOVED:
        return one is other
    return _are_same(one, other, dumps) or _have_same_data(one, other, dumps)


def _are_same(one: Any, other: Any, dumps: Dumps) -> bool:
    """Compare values without recursion, and objects that occur several times only once.

    Equal values can have different pickles, because a pickle refers to the objects in it.
    """
    todo, seen = [(one, other)], set()
    while todo:
        one, other = todo.pop()
        if type(one) is not type(other):
            return False
        if type(one) not in _CONTAINERS:
            if not _is_same_leaf(one, other, dumps):
                return False
        elif len(one) != len(other):
            return False
        elif (id(one), id(other)) not in seen:
            seen.add((id(one), id(other)))
            todo += zip(_parts(one), _parts(other), strict=True)
    return True


def _parts(container: Any) -> Iterable[Any]:
    return chain.from_iterable(container.items()) if type(container) is dict else container


def _is_same_leaf(one: Any, other: Any, dumps: Dumps) -> bool:
    if type(one) is float:
        return repr(one) == repr(other)  # -0.0 is 0.0, and NaN is not NaN
    return bool(one == other) if type(one) in PLAIN else _have_same_data(one, other, dumps)


def _have_same_data(one: Any, other: Any, dumps: Dumps) -> bool:
    data = encoded(one, dumps)
    return data is not None and data == encoded(other, dumps)


def decoded(value: Any, codec: Codec) -> Any:
    """Return a copy of a value, as the next request will read it."""
    if type(value) in PLAIN or value is REMOVED:
        return value
    try:
        return codec.loads(codec.dumps({"value": value}))["value"]
    except Exception:  # noqa: BLE001  # the codec refuses it, which the save reports
        return value


def update_in_place(held: Any, value: Any, dumps: Dumps) -> None:
    """Give a dict or list the content of another one, but keep the objects that have not changed.

    A dict or list in it that has changed is replaced by that of the other one.
    """
    if type(held) is type(value) is dict:
        new = {key: _kept(held.get(key, REMOVED), value[key], dumps) for key in value}
        held.clear()
        held.update(new)
    elif type(held) is type(value) is list:
        start = common_start(held, value, dumps)
        end = common_start(held[start:][::-1], value[start:][::-1], dumps)
        held[start : len(held) - end] = value[start : len(value) - end]


def _kept(held: Any, value: Any, dumps: Dumps) -> Any:
    return held if identical(held, value, dumps) else value


def common_start(one: list[Any], other: list[Any], dumps: Dumps) -> int:
    """Return how many items two lists have in common at their start."""
    pairs = enumerate(zip(one, other, strict=False))
    different = (n for n, (left, right) in pairs if not identical(left, right, dumps))
    return next(different, min(len(one), len(other)))

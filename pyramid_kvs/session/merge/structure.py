"""How the changes of two requests to one object or list are merged, at any depth.

The merge uses no recursion, so that the depth of a session cannot exceed the recursion limit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .values import REMOVED, Dumps, identical

#: What is called for a value that both requests changed, and of which only one can be kept.
Clash = Callable[[], None]


def merge_structures(
    base: Any, ours: Any, theirs: Any, dumps: Dumps, clash: Clash
) -> dict[Any, Any] | list[Any] | None:
    """Merge two changes of an object or list; return ``None`` if only one of them can be kept.

    Objects are merged key by key. Lists are merged if both requests only appended. Objects and
    lists that both requests created count as changes of empty ones. Values of other types are not
    merged, not even those of subclasses of ``dict`` and ``list``.

    :param base: the value before both changes, or ``REMOVED`` if there was none.
    :param ours: a tree. An object that occurs in it again counts as a single value there.
    :param clash: called for each value in an object that both requests changed. The later save,
        which is ours, wins.
    """
    if _are(dict, base, ours, theirs):
        return _ObjectMerge(dumps, clash).merge(_or_empty(base), ours, theirs)
    return appended(base, ours, theirs, dumps)


def appended(base: Any, ours: Any, theirs: Any, dumps: Dumps) -> list[Any] | None:
    """Return a list with what both requests appended; ``None`` if they did something else."""
    if not _are(list, base, ours, theirs):
        return None
    before = [] if base is REMOVED else base
    count = len(before)
    if identical(before, ours[:count], dumps) and identical(before, theirs[:count], dumps):
        return [*theirs, *ours[count:]]
    return None


def _are(kind: type, base: Any, ours: Any, theirs: Any) -> bool:
    return type(ours) is type(theirs) is kind and (base is REMOVED or type(base) is kind)


def _or_empty(base: Any) -> Any:
    return {} if base is REMOVED else base


class _ObjectMerge:
    """A merge of objects, with those that are not merged yet."""

    def __init__(self, dumps: Dumps, clash: Clash) -> None:
        self._dumps = dumps
        self._clash = clash
        self._todo: list[tuple[dict[Any, Any], Any, Any, Any]] = []
        #: Pickled objects can contain themselves, or another object many times.
        self._seen: set[int] = set()

    def merge(self, base: Any, ours: Any, theirs: Any) -> dict[Any, Any]:
        merged = self._later(base, ours, theirs)
        while self._todo:
            self._merge_keys(*self._todo.pop())
        return merged

    def _later(self, base: Any, ours: Any, theirs: Any) -> dict[Any, Any]:
        """Return an object that will be filled."""
        merged: dict[Any, Any] = {}
        self._seen.add(id(ours))
        self._todo.append((merged, base, ours, theirs))
        return merged

    def _merge_keys(self, merged: dict[Any, Any], base: Any, ours: Any, theirs: Any) -> None:
        for key in _ordered_keys(base, ours, theirs):
            before, mine = base.get(key, REMOVED), ours.get(key, REMOVED)
            value = self._value(before, mine, theirs.get(key, REMOVED))
            if value is not REMOVED:
                merged[key] = value

    def _value(self, base: Any, ours: Any, theirs: Any) -> Any:
        if _are(dict, base, ours, theirs) and id(ours) not in self._seen:
            return self._later(_or_empty(base), ours, theirs)
        both = appended(base, ours, theirs, self._dumps)
        if both is not None:
            return both
        if identical(ours, base, self._dumps):
            return theirs
        if not identical(theirs, base, self._dumps) and not identical(theirs, ours, self._dumps):
            self._clash()
        return ours


def _ordered_keys(base: Any, ours: Any, theirs: Any) -> list[Any]:
    """Return the keys of both objects, in the order of the one that has another order now."""
    first, second = (ours, theirs) if list(theirs) == list(base) else (theirs, ours)
    return [*first, *(key for key in second if key not in first)]

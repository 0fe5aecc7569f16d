"""What a request changed in a session, and how the changes of two requests become one.

A record is the flat dict that is stored: the application's keys, flash queues and metadata. The
changes of a request map a key to its new value, or to :data:`REMOVED`.
"""

from __future__ import annotations

import marshal
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ..exceptions import SessionConflict
from ..serializer import Data

Record: TypeAlias = "dict[str, Any]"
Snapshot: TypeAlias = "Data | None"
Dumps: TypeAlias = "Callable[[Any], Data]"

QUEUE = "_f_"
META = "__kvs_"
CREATED = META + "created"
USER = META + "user"

REMOVED: Any = type("Removed", (), {"__repr__": lambda _: "REMOVED", "__slots__": ()})()


def snapshot(value: Any, dumps: Dumps) -> Snapshot:
    """Return what tells later, in :func:`is_changed`, whether a value was changed in place.

    :param dumps: of the codec, for values that are no plain data.
    """
    try:
        return marshal.dumps(value)
    except ValueError:
        return _encoded(value, dumps)


def is_changed(value: Any, before: Snapshot, dumps: Dumps) -> bool:
    """Return whether a value differs from its snapshot, in type or order too."""
    after = snapshot(value, dumps)
    if after == before:
        return False
    try:
        return _comparable(value) != _comparable(marshal.loads(before))  # type: ignore[arg-type]  # noqa: S302
    except (ValueError, TypeError, EOFError):
        return True


def _comparable(value: Any) -> bytes:
    # Later versions of the format depend on reference counts: a list that somebody still holds
    # is written otherwise. They are twice as fast, so that this one only settles a difference.
    return marshal.dumps(value, 2)


def _encoded(value: Any, dumps: Dumps) -> Snapshot:
    try:
        return dumps({"value": value})
    except Exception:  # noqa: BLE001  # the codec refuses it: the save will say so
        return None


def identical(one: Any, other: Any, dumps: Dumps) -> bool:
    """Return whether two values are stored alike; ``1``, ``1.0`` and ``True`` are not."""
    if one is REMOVED or other is REMOVED:
        return one is other
    return dumps({"value": one}) == dumps({"value": other})


@dataclass
class Changes:
    """What one request changed against what it loaded."""

    #: key -> new value, or REMOVED.
    values: dict[str, Any] = field(default_factory=dict)
    #: flash queues that were popped, whatever was pushed afterwards.
    popped: Collection[str] = ()
    #: messages pushed with ``allow_duplicate=False``, by queue.
    unique: Mapping[str, list[Any]] = field(default_factory=dict)
    #: whether ``clear()`` removed all keys; a session emptied by it leaves the store.
    is_cleared: bool = False


def difference(old: Record, new: Record, dumps: Dumps) -> Changes:
    """Return the changes that make ``new`` of ``old``."""
    removed = {key: REMOVED for key in old if key not in new}
    changed = {
        key: value
        for key, value in new.items()
        if not identical(old.get(key, REMOVED), value, dumps)
    }
    return Changes({**removed, **changed})


def merge(base: Record, changes: Changes, theirs: Record, dumps: Dumps) -> Record:
    """Return the record of the other request with this request's changes put in.

    :param base: what this request loaded.
    :param theirs: what stands in the store now.
    """
    merged = dict(theirs)
    for key, value in changes.values.items():
        if key.startswith(QUEUE):
            value = _merged_queue(key, base, changes, theirs, dumps)
        elif key == CREATED and key in theirs:
            continue  # it tells one session from the next, and so never changes
        if value is REMOVED:
            merged.pop(key, None)
        else:
            merged[key] = value
    return merged


def refuse_conflict(base: Record, changes: Changes, theirs: Record, dumps: Dumps) -> None:
    """Raise ``SessionConflict`` if both requests changed one key, and not to the same value."""
    for key, value in changes.values.items():
        if key.startswith((QUEUE, META)):
            continue
        found = theirs.get(key, REMOVED)
        if identical(found, value, dumps) or identical(found, base.get(key, REMOVED), dumps):
            continue
        raise SessionConflict(f"another request changed the session key {key!r} meanwhile")


def _merged_queue(key: str, base: Record, changes: Changes, theirs: Record, dumps: Dumps) -> Any:
    """Return the messages of the other request, without those popped here, with those pushed."""
    mine, before, there = changes.values[key], base.get(key, []), theirs.get(key, [])
    mine = [] if mine is REMOVED else mine
    if not all(isinstance(queue, list) for queue in (mine, before, there)):
        return changes.values[key]
    kept = [] if key in changes.popped else _common_start(before, mine, dumps)
    left = Messages(before[len(kept) :], dumps)
    queue = [message for message in there if not left.take(message)]
    present = Messages(queue, dumps)
    once = Messages(changes.unique.get(key, ()), dumps)
    pushed = mine[len(kept) :]
    queue += [message for message in pushed if not (message in once and message in present)]
    return queue or REMOVED


def _common_start(before: list[Any], mine: list[Any], dumps: Dumps) -> list[Any]:
    for count, (old, new) in enumerate(zip(before, mine, strict=False)):
        if not identical(old, new, dumps):
            return before[:count]
    return before[: len(mine)]


class Messages:
    """A multiset of flash messages, which may be dicts or lists."""

    def __init__(self, messages: Collection[Any], dumps: Dumps) -> None:
        self._dumps = dumps
        self._counts = Counter(self._name(message) for message in messages)

    def _name(self, message: Any) -> Data:
        return self._dumps({"value": message})

    def __contains__(self, message: Any) -> bool:
        return self._counts[self._name(message)] > 0

    def take(self, message: Any) -> bool:
        """Remove one such message; return whether there was one."""
        if message not in self:
            return False
        self._counts[self._name(message)] -= 1
        return True

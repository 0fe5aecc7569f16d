"""What a request changed in a session, and how the changes of two requests are merged."""

from __future__ import annotations

import marshal
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ..exceptions import SessionConflict
from ..serializer import Data
from .records import CREATED, META, QUEUE, Record

Snapshot: TypeAlias = "Data | None"
Dumps: TypeAlias = "Callable[[Any], Data]"

REMOVED: Any = type("Removed", (), {"__repr__": lambda _: "REMOVED", "__slots__": ()})()


def snapshot(value: Any, dumps: Dumps) -> Snapshot:
    """Return what :func:`is_changed` later compares a value with.

    :param dumps: of the codec, for values that ``marshal`` cannot write.
    """
    try:
        return marshal.dumps(value)
    except ValueError:
        return _encoded(value, dumps)


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


def _encoded(value: Any, dumps: Dumps) -> Snapshot:
    try:
        return dumps({"value": value})
    except Exception:  # noqa: BLE001  # the codec refuses it, which the save reports
        return None


def identical(one: Any, other: Any, dumps: Dumps) -> bool:
    """Return whether two values have the same data; ``1``, ``1.0`` and ``True`` differ."""
    if one is REMOVED or other is REMOVED:
        return one is other
    return dumps({"value": one}) == dumps({"value": other})


@dataclass(slots=True)
class Changes:
    """What one request changed, relative to what it read."""

    #: The new value of each changed key, or ``REMOVED``.
    values: dict[str, Any] = field(default_factory=dict)
    #: Flash queues that were popped. New messages may have been pushed afterwards.
    popped: Collection[str] = ()
    #: Messages that were pushed with ``allow_duplicate=False``, by queue.
    unique: Mapping[str, list[Any]] = field(default_factory=dict)
    #: Whether ``clear()`` was called; the store then does not keep the session if it is empty.
    is_cleared: bool = False


def difference(old: Record, new: Record, dumps: Dumps) -> Changes:
    """Return the changes that turn one record into another."""
    removed = {key: REMOVED for key in old if key not in new}
    changed = {
        key: value
        for key, value in new.items()
        if not identical(old.get(key, REMOVED), value, dumps)
    }
    return Changes({**removed, **changed})


def merge(base: Record, changes: Changes, theirs: Record, dumps: Dumps) -> Record:
    """Return a record that has the changes of both requests.

    :param base: the record that this request read.
    :param theirs: the record that the store has now.
    """
    merged = dict(theirs)
    for key, value in changes.values.items():
        if key.startswith(QUEUE):
            value = _merged_queue(key, base, changes, theirs, dumps)
        elif key == CREATED and key in theirs:
            continue  # it identifies the session, so that it never changes
        if value is REMOVED:
            merged.pop(key, None)
        else:
            merged[key] = value
    return merged


def refuse_conflict(base: Record, changes: Changes, theirs: Record, dumps: Dumps) -> None:
    """Raise ``SessionConflict`` if both requests changed a key, and to different values."""
    for key, value in changes.values.items():
        if key.startswith((QUEUE, META)):
            continue
        found = theirs.get(key, REMOVED)
        if identical(found, value, dumps) or identical(found, base.get(key, REMOVED), dumps):
            continue
        raise SessionConflict(f"another request changed the session key {key!r} too")


def _merged_queue(key: str, base: Record, changes: Changes, theirs: Record, dumps: Dumps) -> Any:
    """Return the messages of the other request without popped ones, and with pushed ones."""
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
        """Remove one message of this kind; return whether there was one."""
        if message not in self:
            return False
        self._counts[self._name(message)] -= 1
        return True

"""How the flash messages of two requests are merged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any

from ...serializer import Data
from ..records import Record
from .changes import Changes
from .values import REMOVED, Dumps, identical


def merged_queue(key: str, base: Record, changes: Changes, theirs: Record, dumps: Dumps) -> Any:
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

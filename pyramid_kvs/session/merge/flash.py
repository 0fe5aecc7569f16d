"""How the flash messages of two requests are merged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any

from ...serializer import Data
from ..records import POPPED, QUEUE, Record
from .changes import Changes
from .values import REMOVED, Dumps, common_start, encoded, identical


def merged_queue(key: str, base: Record, changes: Changes, theirs: Record, dumps: Dumps) -> Any:
    """Return the messages of the other request without popped ones, and with pushed ones."""
    mine, before, there = changes.values[key], base.get(key, []), theirs.get(key, [])
    mine = [] if mine is REMOVED else mine
    if not all(isinstance(queue, list) for queue in (mine, before, there)):
        return changes.values[key]
    kept = 0 if key in changes.popped else common_start(before, mine, dumps)
    mark = POPPED + key.removeprefix(QUEUE)
    left = Messages([] if is_marked(mark, base, theirs, dumps) else before[kept:], dumps)
    queue = [message for message in there if not left.take(message)]
    present = Messages(queue, dumps)
    once = Messages(changes.unique.get(key, ()), dumps)
    pushed = mine[kept:]
    queue += [message for message in pushed if not (message in once and message in present)]
    return queue or REMOVED


def is_marked(mark: str, base: Record, theirs: Record, dumps: Dumps) -> bool:
    """Return whether the other request popped all messages that this request read."""
    return not identical(base.get(mark, REMOVED), theirs.get(mark, REMOVED), dumps)


class Messages:
    """A multiset of flash messages, which may be dicts or lists."""

    def __init__(self, messages: Collection[Any], dumps: Dumps) -> None:
        self._dumps = dumps
        self._counts = Counter(self._name(message) for message in messages)

    def _name(self, message: Any) -> Data | int:
        data = encoded(message, self._dumps)
        return id(message) if data is None else data

    def __contains__(self, message: Any) -> bool:
        return self._counts[self._name(message)] > 0

    def take(self, message: Any) -> bool:
        """Remove one message of this kind; return whether there was one."""
        if message not in self:
            return False
        self._counts[self._name(message)] -= 1
        return True

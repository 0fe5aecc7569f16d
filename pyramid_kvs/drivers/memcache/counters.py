"""Counters: memcached's own arithmetic where it can count, and compare-and-set elsewhere."""

from __future__ import annotations

import time
from time import monotonic

from . import items
from .base import ItemsByKey
from .items import Item


class Counters(ItemsByKey):
    """Counting. Memcached counts from 0 to 2**64 - 1 by itself, with a ttl of whole seconds."""

    def raw_incr(self, key: str, delta: int, ttl: float | None) -> int:
        began = monotonic()
        full_key = self._full_key(key)
        if 0 <= delta < 2**63 and not items.has_fraction(ttl):
            count = self._incr_digits(full_key, delta, ttl)
            if count is not None:
                if count >= delta:
                    return count
                delta = 2**64  # memcached started again at 0 after 2**64 - 1
        return self._servers.since(began, lambda: self._incr_items(full_key, delta, ttl))

    def _incr_items(self, full_key: bytes, delta: int, ttl: float | None) -> int:
        for _ in self._attempts():
            count = self._incr_item(full_key, self._item(full_key), delta, ttl)
            if count is not None:
                return count
        raise self._conflict()

    def _incr_digits(self, full_key: bytes, delta: int, ttl: float | None) -> int | None:
        """Count by memcached's own arithmetic, in one round trip; ``None`` if it cannot."""
        # 1.6.18 answers t-1 for a counter that it just made if N comes after t.
        command = b"ma %b N%d J%d D%d t v\r\n" % (full_key, items.exptime(ttl), delta, delta)
        reply = self._servers.ask(full_key, command)
        if not items.is_value(reply):
            return None
        count = int(reply.data)
        if ttl is not None and reply.words[2] == b"t-1":
            touch = b"mg %b T%d\r\n" % (full_key, items.exptime(ttl))
            self._servers.ask(full_key, touch, repeatable=True)
        return count

    def _incr_item(
        self, full_key: bytes, item: Item | None, delta: int, ttl: float | None
    ) -> int | None:
        """Count by one compare-and-set; ``None`` if another caller was first."""
        if item is None:
            return delta if self._add(full_key, str(delta), ttl, 0) else None
        if item.is_over():
            done = self._replace(full_key, str(delta), ttl, 0, item.token)
            return delta if done else None
        count = self._count(item.data.rstrip(b" ")) + delta  # memcached fills up with spaces
        if items.counts_in_place(item, count, ttl):
            sign, step = (b"D", -delta) if delta < 0 else (b"I", delta)
            still = items.if_still(item.token)
            command = b"ma %b%b M%b D%d\r\n" % (full_key, still, sign, step)
        else:
            command = self._set_counter(full_key, item, count, ttl)
        return count if self._swap(full_key, item.token, command) else None

    def _set_counter(self, full_key: bytes, item: Item, count: int, ttl: float | None) -> bytes:
        """Return the command that keeps the lifetime of the counter, as a deadline if it has one.

        Not as the seconds that memcached says are left: it counts in ticks, and each count
        just after a tick would add a second.
        """
        deadline = item.deadline
        still = items.if_still(item.token)
        if deadline is None and item.ttl >= 0:
            deadline = time.time() + item.ttl
        if deadline is None:
            return self._set_command(full_key, str(count), ttl, item.flags, still)
        data, exptime = items.wrapped(b"%d" % count, deadline)
        return items.set_command(full_key, data, exptime, item.flags, still)

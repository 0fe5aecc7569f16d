"""Claims: who may replace an item. Each claim is a separate item.

Memcached says for how long it keeps an item, and shows the flag ``W`` to one reader of an item
that will soon be over, and ``Z`` to all later ones (``R`` in a read). Only the reader with ``W``
asks for the claim, so that the others need one round trip each. But memcached does not know
whether that reader lives, so that now and then one of the others asks too.
"""

from __future__ import annotations

import time
from time import monotonic

from ...kvs import CLAIM_KEY, PAUSED, Claim, Data, new_owner
from . import items
from .counters import Counters
from .items import LATEST_DATE, MAGIC
from .protocol import Connection, Reply
from .servers import BATCH_DATA

#: How long a process waits before it asks for a claim after it saw the first ``Z`` of an item, in
#: seconds.
FIRST_ATTEMPT = 1.0


class Claims(Counters):
    """See :meth:`pyramid_kvs.kvs.hooks.Hooks.raw_claim`."""

    def raw_claim(self, key: str, stale: float, ttl: float, absent: bool = True) -> Claim:
        began = monotonic()
        found, reply = self._look(key, stale)
        if found.is_fresh or (found.data is None and not absent):
            return found
        if found.data is not None and not self._is_time(key, reply):
            return found
        return self._servers.since(began, lambda: self._claim(key, stale, ttl, found, reply))

    def _look(self, key: str, stale: float) -> tuple[Claim, Reply]:
        full_key = self._full_key(key)
        soon = b" R%d" % (stale + 1) if stale else b""
        reply = self._servers.ask(full_key, b"mg %b v f t c%b\r\n" % (full_key, soon), True)
        data = items.readable(reply) if items.is_value(reply) else None
        if data is None:
            return Claim(None), reply
        left = _left(reply)
        is_fresh = not stale or left < 0 or left > stale or _may_be_cut_off(reply)
        return Claim(data, is_fresh, None, left), reply

    def _is_time(self, key: str, reply: Reply) -> bool:
        """Return whether to ask for the claim of an item."""
        flag = reply.words[-1]
        if _has_deadline(reply) or flag not in (b"W", b"Z"):
            # The flags come later than the deadline, and never with a stale of more than 30 days.
            return self._is_time_to_claim(key)
        if flag == b"W":
            return True
        sighting = f"{reply.number(4)} {key}"
        if sighting in self._claims_asked_for:
            return self._is_time_to_claim(sighting)
        self._do_not_claim(sighting, FIRST_ATTEMPT)
        return False

    def _claim(self, key: str, stale: float, ttl: float, found: Claim, reply: Reply) -> Claim:
        owner = self._add_claim(self._full_key(CLAIM_KEY + key), ttl)
        if owner is None:
            return found
        if reply.words[-1] != b"W" or _has_deadline(reply):
            found, _ = self._look(key, stale)  # the one before may have stored since
            if found.is_fresh:
                self.raw_release(key, owner)
                return found
        return found._replace(owner=owner)

    def _add_claim(self, full_key: bytes, ttl: float) -> int | None:
        """Store a claim; return its number, or ``None`` if there is one already."""
        data = new_owner()
        reply = self._servers.ask(full_key, self._set_command(full_key, data, ttl, None, b" ME c"))
        if reply.words[0] != b"HD":
            item = self._item(full_key)
            if item is None or not item.is_over():
                return None
            mode = _if_owned(item.token.cas) + b" c"
            command = self._set_command(full_key, data, ttl, None, mode)
            reply = self._servers.swap(full_key, item.token.run_id, command)
        return reply.number(1) if reply.words[0] == b"HD" else None

    def raw_set_claimed(self, key: str, data: Data, ttl: float | None, owner: int) -> None:
        full_key, claim_key = self._full_key(key), self._full_key(CLAIM_KEY + key)
        commands = {
            full_key: self._set_command(full_key, data, ttl),
            claim_key: b"md %b%b\r\n" % (claim_key, _if_owned(owner)),
        }
        replies = dict(self._servers.ask_all(commands, BATCH_DATA, Connection.ask_all))
        items.check_stored(replies[full_key])

    def raw_release(self, key: str, owner: int, pause: float = 0) -> None:
        self._claims_asked_for.pop(key, None)
        claim_key = self._full_key(CLAIM_KEY + key)
        command = b"md %b%b\r\n" % (claim_key, _if_owned(owner))
        paused = new_owner() + PAUSED
        if pause:
            command = self._set_command(claim_key, paused, pause, None, _if_owned(owner))
        reply = self._servers.ask(claim_key, command, True)
        if pause and reply.words[0] == b"NF":  # the claim has ended
            self._add(claim_key, paused, pause)


def _left(reply: Reply) -> float:
    """Return how many seconds an item has left, and -1 if it never expires.

    Memcached cuts off fractions of its seconds.
    """
    if _has_deadline(reply):
        _, deadline = items.opened(reply.data, reply.number(2))
        if deadline is not None:
            return deadline - time.time()
    return float(reply.number(3))


def _has_deadline(reply: Reply) -> bool:
    """Return whether data may have a deadline, which is more exact than what memcached knows."""
    return reply.data.startswith(MAGIC)


def _may_be_cut_off(reply: Reply) -> bool:
    """Return whether an item ends with memcached's dates, but was perhaps meant to last longer."""
    return time.time() + reply.number(3) >= LATEST_DATE - 2


def _if_owned(owner: int) -> bytes:
    return b" C%d" % owner if owner else b""  # memcached -C has no numbers

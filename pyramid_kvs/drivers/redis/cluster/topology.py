"""Which node of a cluster has which slot."""

from __future__ import annotations

import copy
import math
import threading
from binascii import crc_hqx
from collections.abc import Iterable, Sequence
from contextlib import suppress
from os import getpid
from threading import TIMEOUT_MAX
from time import monotonic

from redis.crc import REDIS_CLUSTER_HASH_SLOTS as SLOTS
from redis.crc import key_slot
from redis.exceptions import MovedError

from ....exceptions import KVSError, KVSUnavailable, not_sent
from ....kvs import Breakers, told_later
from ..client import Connections
from ..options import Options
from ..urls import place_of
from .nodes import Address, Node, SlotRange

#: Seconds in which a process asks for the map once.
INTERVAL = 0.25


def slot_of(full_key: bytes) -> int:
    """Return the slot of a key."""
    if b"{" in full_key:
        return int(key_slot(full_key))
    return crc_hqx(full_key, 0) % SLOTS


class Topology:
    """The nodes of a cluster and the map from slots to primaries, which is asked when needed.

    One caller at a time asks, and others wait for its answer. Times are those of
    ``time.monotonic()``, and ``began`` is when a call began, which ends in time.

    :param connections: makes connections with the credentials and TLS of the setting.
    :param seeds: the nodes to ask first.
    """

    def __init__(self, connections: Connections, options: Options, seeds: list[Address]) -> None:
        self._connections = connections
        self._options = options
        self._seeds = seeds
        self._breakers = Breakers()
        self._nodes: dict[Address, Node] = {}
        #: The primary of each slot. It is replaced as a whole, or one slot at a time.
        self.slots: list[Node | None] = [None] * SLOTS
        # For each process, because another thread may have held the lock at the fork.
        self._locks: dict[int, threading.Lock] = {}
        self._asked_at = -math.inf
        self._pause = INTERVAL
        #: Why the nodes that were asked last did not answer.
        self._failure: KVSError | None = None

    @property
    def limit(self) -> float:
        """The seconds that a call may take."""
        return self._options.limit

    def share_breakers(self, breakers: Breakers) -> None:
        self._breakers = breakers
        for node in self.nodes():
            node.share_breakers(breakers)

    def close(self) -> None:
        for node in self.nodes():
            node.close()

    # -- nodes ----------------------------------------------------------------------------

    def node(self, host: str, port: int) -> Node:
        """Return the node at an address."""
        address = (host, port)
        known = self._nodes.get(address)
        if known is not None:
            return known
        node = Node(self._connections.at(host, port), self._options, address)
        node.share_breakers(self._breakers)
        return self._nodes.setdefault(address, node)

    def nodes(self) -> list[Node]:
        """Return all nodes that are known."""
        return list(self._nodes.values())

    def primaries(self) -> list[Node]:
        """Return the nodes that have slots, as far as the map is known."""
        return list(dict.fromkeys(node for node in self.slots if node is not None))

    def home(self, slot: int, began: float) -> Node:
        """Return the primary of a slot.

        :raises KVSError: no node told the map, or none has the slot.
        """
        node = self.slots[slot]
        if node is None:
            self.refresh(began)
            node = self.slots[slot]
        if node is None:
            raise self._unknown()
        return node

    def _unknown(self) -> KVSError:
        if self._failure is None:
            places = ", ".join(place_of(*seed) for seed in self._seeds)
            return not_sent(f"redis cluster at {places}: no node has the slot of the key")
        error = copy.copy(self._failure)
        if isinstance(error, KVSUnavailable):
            error.may_have_run = False
        return error

    # -- the map --------------------------------------------------------------------------

    def moved(self, slot: int, error: MovedError, asked: Node, began: float) -> Node:
        """Note that a slot has another primary than the node that was asked; return it."""
        node = self.node(error.host or asked.address[0], error.port)
        self.refresh(began, node)
        # The node that answered last knows best, also if it names another address than the map.
        self.slots[slot] = node = self._nodes.setdefault(node.address, node)
        return node

    @told_later()
    def refresh(self, began: float, first: Node | None = None, always: bool = False) -> None:
        """Ask for the map, unless it was asked for a moment ago. Without an answer it stays.

        After a time without any answer, other callers do not wait for the one who asks.

        :param first: the node to ask first.
        :param always: ask even if it was asked for a moment ago, but not if another caller began to
            ask after this one.
        """
        lock = self._locks.setdefault(getpid(), threading.Lock())
        now = monotonic()
        left = began + self.limit - now
        is_to_wait = always or self._failure is None
        wait = min(left, TIMEOUT_MAX) if is_to_wait else 0.0
        if left <= 0 or not lock.acquire(timeout=wait):
            return
        try:
            if now - self._asked_at > (0 if always else self._pause):
                self._asked_at = monotonic()
                self._ask(began, first)
        finally:
            lock.release()

    def _ask(self, began: float, first: Node | None) -> None:
        """Ask nodes one after the other, until one knows the nodes of all slots."""
        best: list[SlotRange] = []
        failures: list[KVSError] = []
        candidates = self._candidates(first)
        for number, node in enumerate(candidates):
            if monotonic() - began >= self.limit:
                break
            try:
                found = node.slot_ranges(self._share(began, len(candidates) - number))
            except KVSError as error:
                failures.append(error.with_traceback(None))  # it has this frame
                continue
            best = max(best, found, key=_known)
            if _known(best) == SLOTS:
                break
        self._failure = _most_telling(failures) if failures and not best else None
        self._pause = INTERVAL
        if best:
            self._use(best)
        elif all(node.breaker.is_troubled for node in candidates):
            # No node answers. They are left alone as long as a single server would be.
            self._pause, self._asked_at = max(INTERVAL, self._options.breaker), monotonic()

    def _candidates(self, first: Node | None) -> list[Node]:
        """Return the nodes to ask; those that did not answer a moment ago come last."""
        others = [*self.primaries(), *self.nodes()]
        seeds = [self.node(*address) for address in self._seeds]
        known = dict.fromkeys([*([] if first is None else [first]), *others, *seeds])
        return sorted(known, key=lambda node: (node.breaker.is_open, node.breaker.is_troubled))

    def _share(self, began: float, number: int) -> float:
        """Return when a call would have begun that leaves time to ask the other nodes.

        A node has the timeout of a reply, if there is as much time left.
        """
        now, timeout = monotonic(), self._options.timeout
        left = began + self.limit - now
        if timeout is None or left == math.inf:
            return now
        return now + min(left, max(left / number, timeout)) - self.limit

    def _use(self, ranges: Sequence[SlotRange]) -> None:
        slots: list[Node | None] = [None] * SLOTS
        for first, last, addresses in ranges:
            slots[first : last + 1] = [self.node(*addresses[0])] * (last + 1 - first)
        self.slots = slots
        self._forget({address for found in ranges for address in found.addresses})

    def _forget(self, listed: set[Address]) -> None:
        """Close the connections to nodes that are not nodes of the cluster any more."""
        for address in list(self._nodes):
            if address not in listed:
                with suppress(KeyError):
                    self._nodes.pop(address).close()


def _known(ranges: Iterable[SlotRange]) -> int:
    return sum(last + 1 - first for first, last, _ in ranges)


def _most_telling(failures: list[KVSError]) -> KVSError:
    """Return an error that will not pass by itself, if there is one."""
    return min(failures, key=lambda error: isinstance(error, KVSUnavailable))

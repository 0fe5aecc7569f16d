"""All keys of a cluster, also while slots move."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from time import monotonic
from typing import NamedTuple

from ....exceptions import KVSError
from ..commands import pack, scan_command
from ..connection import Reply
from .nodes import Node, Question, ask_together
from .topology import Topology

#: How often keys are looked for that could have escaped.
PASSES = 20

#: Seconds to wait for news of a slot that no node has at the moment.
PAUSE = 0.01

_CLUSTER_NODES = pack(b"CLUSTER", b"NODES")
#: What a node says of itself: its slots follow the eighth word.
_OWN_LINE = re.compile(rb"^\S+ \S+ \S*myself.*$", re.MULTILINE)


class Placement(NamedTuple):
    """Where the slots are at a moment, as each primary tells for itself.

    What nodes tell of each other may be old.
    """

    slots: dict[Node, set[int]]
    #: The slots that are being moved.
    open: set[int]

    def nodes_of(self, slots: set[int]) -> list[Node]:
        """Return the nodes that have some of the slots."""
        return [node for node, own in self.slots.items() if own & slots]

    def all(self) -> set[int]:
        """Return the slots that have a node."""
        return set().union(*self.slots.values())

    def moved(self, before: Placement) -> set[int]:
        """Return the slots that have moved, or may have moved in part."""
        found = before.open | self.open
        for node in before.slots.keys() | self.slots.keys():
            found |= before.slots.get(node, set()) ^ self.slots.get(node, set())
        return found


def scan(topology: Topology, match: bytes) -> Iterator[list[bytes]]:
    """Yield the full keys that match, of all primaries at once. A key can come several times.

    A key that moves can escape: from a node that is not yet scanned, to one that is. So the nodes
    that got slots are scanned again. Only slots that moved again at that time are left then.

    :raises KVSError: a node does not answer.
    """
    before = _placement(topology)
    nodes, doubtful = list(before.slots), before.all()
    for _ in range(PASSES):
        yield from _scan(nodes, match)
        after = _placement(topology)
        doubtful &= after.moved(before) | (doubtful - after.all())
        if not doubtful:
            return
        nodes, before = after.nodes_of(doubtful), after
        if not nodes:
            time.sleep(PAUSE)


def _placement(topology: Topology) -> Placement:
    topology.refresh(monotonic(), always=True)
    nodes = topology.primaries()
    if not nodes:
        topology.home(0, monotonic())  # raises the reason
    placement = Placement({}, set())
    for node, reply in zip(nodes, _ask(nodes, [_CLUSTER_NODES] * len(nodes)), strict=True):
        own = placement.slots[node] = set()
        for words in _OWN_LINE.findall(reply):
            for word in words.split()[8:]:
                _add_slots(word, own, placement.open)
    return placement


def _add_slots(word: bytes, own: set[int], moving: set[int]) -> None:
    """Read a slot, several slots such as ``0-99``, or one that moves such as ``[93->-name]``."""
    first, _, last = word.lstrip(b"[").partition(b"-")
    if word.startswith(b"["):
        moving.add(int(first))
    else:
        own.update(range(int(first), int(last or first) + 1))


def _scan(nodes: list[Node], match: bytes) -> Iterator[list[bytes]]:
    cursors = dict.fromkeys(nodes, b"0")
    while cursors:
        commands = [scan_command(cursor, match) for cursor in cursors.values()]
        for node, (cursor, full_keys) in zip([*cursors], _ask([*cursors], commands), strict=True):
            yield full_keys
            cursors[node] = cursor
            if cursor == b"0":
                del cursors[node]


def _ask(nodes: list[Node], commands: list[bytes]) -> list[Reply]:
    """Ask each node one command, and return the replies.

    :raises KVSError: a node does not answer, or refuses.
    """
    questions = [Question(node, packed) for node, packed in zip(nodes, commands, strict=True)]
    answers, replies = ask_together(questions, monotonic(), True), []
    for node, packed, _ in questions:
        answer = answers[node]
        if isinstance(answer, KVSError):
            try:
                raise answer
            finally:
                del answer, answers  # the traceback has this frame
        replies.append(node.as_result(answer[0], packed))
    for reply in replies:
        if isinstance(reply, KVSError):
            try:
                raise reply
            finally:
                del reply, replies  # the traceback has this frame
    return replies

"""All keys of a cluster, also while slots move."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from time import monotonic
from typing import NamedTuple

from ....exceptions import KVSError
from ..commands import pack, scan_command
from ..connection import Reply
from .nodes import Address, Node, Question, ask_together
from .topology import Topology

#: How often keys are looked for that could have escaped.
PASSES = 20

_CLUSTER_NODES = pack(b"CLUSTER", b"NODES")
#: A slot that a node gives away or gets, in its own line of ``CLUSTER NODES``.
_OPEN = re.compile(rb"\[([0-9]+)-[<>]-")


class Placement(NamedTuple):
    """Where the slots are at a moment."""

    primaries: list[Node]
    owners: list[Address | None]
    #: The slots that are being moved.
    open: set[int]


def scan(topology: Topology, match: bytes) -> Iterator[list[bytes]]:
    """Yield the full keys that match, of all primaries at once. A key can come several times.

    A key that moves can escape: from a node that is not yet scanned, to one that is. So the nodes
    that got slots are scanned again. Only slots that moved again at that time are left then.

    :raises KVSError: a node does not answer.
    """
    before = _placement(topology)
    nodes, doubtful = before.primaries, set(range(len(before.owners)))
    for _ in range(PASSES):
        yield from _scan(nodes, match)
        after = _placement(topology)
        doubtful &= _moved(before, after)
        if not doubtful:
            return
        nodes = _nodes_of(topology, doubtful)
        before = after


def _placement(topology: Topology) -> Placement:
    topology.refresh(monotonic(), always=True)
    nodes = topology.primaries()
    if not nodes:
        topology.home(0, monotonic())  # raises the reason
    lines = b"".join(_ask(nodes, [_CLUSTER_NODES] * len(nodes)))
    owners = [None if node is None else node.address for node in topology.slots]
    return Placement(nodes, owners, set(map(int, _OPEN.findall(lines))))


def _moved(before: Placement, after: Placement) -> set[int]:
    pairs = zip(before.owners, after.owners, strict=True)
    return before.open | after.open | {n for n, (old, new) in enumerate(pairs) if old != new}


def _nodes_of(topology: Topology, slots: Iterable[int]) -> list[Node]:
    found = dict.fromkeys(topology.slots[slot] for slot in slots)
    return [node for node in found if node is not None]


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
    replies = []
    for (node, packed, _), answer in zip(
        questions, ask_together(questions, monotonic(), True), strict=True
    ):
        if isinstance(answer, KVSError):
            raise answer
        replies.append(node.as_result(answer[0], packed))
    for reply in replies:
        if isinstance(reply, KVSError):
            raise reply
    return replies

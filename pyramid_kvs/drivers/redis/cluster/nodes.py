"""One node of a cluster, and questions to several nodes at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from redis.exceptions import ClusterCrossSlotError, ResponseError

from ....exceptions import KVSError, KVSNotSupported
from ..client import Connections
from ..commands import pack
from ..connection import RedisConnection, Reply
from ..deadline import Deadline
from ..errors import of_cluster
from ..options import Options
from ..transport import Begun, Transport
from ..urls import place_of

_CLUSTER_SLOTS = pack(b"CLUSTER", b"SLOTS")

Address = tuple[str, int]


class SlotRange(NamedTuple):
    """Slots that follow each other, and the nodes that have them, the primary first."""

    first: int
    last: int
    addresses: list[Address]


class Node(Transport):
    """The connections to one node. Its mode is not asked, because only clusters know slots."""

    def __init__(self, connections: Connections, options: Options, address: Address) -> None:
        super().__init__(connections, options)
        self.address = address

    @property
    def place(self) -> str:
        """Host and port."""
        return place_of(*self.address)

    def slot_ranges(self, began: float) -> list[SlotRange]:
        """Ask the node which node has which slots.

        :param began: when the call began that needs them, by ``time.monotonic()``.
        :raises KVSError: no answer, or a server that is not a node of a cluster.
        """
        [reply] = self.finish(self.begin(began, _CLUSTER_SLOTS, 1, True))
        found = self.as_result(reply, _CLUSTER_SLOTS)
        if isinstance(found, KVSError):
            try:
                raise found
            finally:
                del found, reply  # the traceback has this frame
        try:
            return [self._slot_range(*entry) for entry in found]
        except (TypeError, ValueError):
            raise KVSError(f"{self.server}: the reply to CLUSTER SLOTS cannot be read") from None

    def _slot_range(
        self, first: int, last: int, primary: list[Any], *replicas: list[Any]
    ) -> SlotRange:
        addresses = [self._address(*node) for node in (primary, *replicas)]
        return SlotRange(int(first), int(last), addresses)

    def _address(self, host: bytes | None, port: int, *_: object) -> Address:
        """Return the address of a node; without a host it is the host of this node."""
        return (self.address[0] if host in (None, b"", b"?") else host.decode(), int(port))

    def _kvs_error(self, error: Exception, packed: bytes) -> KVSError:
        if isinstance(error, ResponseError) and isinstance(
            of_cluster(error), ClusterCrossSlotError
        ):
            return KVSNotSupported(f"{self.server}: the keys of a script are not in the same slot")
        return super()._kvs_error(error, packed)

    def _connect(self, deadline: Deadline) -> RedisConnection:
        return self._connect_without_asking(deadline)


class Question(NamedTuple):
    """Commands for one node."""

    node: Node
    packed: bytes
    #: How many replies they have.
    replies: int = 1


def ask_together(
    questions: Sequence[Question], began: float, repeatable: bool
) -> dict[Node, list[Reply] | KVSError]:
    """Send to all nodes before the first reply is read, and return what each node answers.

    All callers take connections in the same order of the nodes. Otherwise two of them could each
    have the last connection that the other one waits for.

    :param questions: one for each node.
    :param began: when the call began, by ``time.monotonic()``.
    :returns: for each node its replies, with refusals as redis-py's errors, or why there are none.
    """
    begun: dict[Node, Begun] = {}
    answers: dict[Node, list[Reply] | KVSError] = {}
    try:
        for node, packed, replies in sorted(questions, key=_place):
            begun[node] = node.begin(began, packed, replies, repeatable)
        for node in list(begun):
            answers[node] = _answer(node, begun.pop(node))
    except BaseException:
        for node, sent in begun.items():
            node.abandon(sent)
        raise
    return answers


def _place(question: Question) -> Address:
    return question.node.address


def _answer(node: Node, sent: Begun) -> list[Reply] | KVSError:
    try:
        return node.finish(sent)
    except KVSError as error:
        return error
    finally:
        del sent  # the traceback of its failure has this frame

"""Commands to nodes of a cluster, which are sent again while slots move or nodes fail."""

from __future__ import annotations

import time
from binascii import crc_hqx
from collections.abc import Iterable, Iterator, Sequence
from time import monotonic

from redis.crc import REDIS_CLUSTER_HASH_SLOTS as SLOTS
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)

from ....exceptions import KVSError, KVSUnavailable
from ....kvs import Breakers
from ..commands import BATCH, BATCH_BYTES, pack
from ..connection import Reply
from ..errors import of_cluster
from ..transport import Repeatable
from .nodes import Node, Question, ask_together
from .topology import Topology, slot_of

_ASKING = pack(b"ASKING")

#: How often a command is sent again at once, and the pauses between the next attempts, in seconds.
AT_ONCE = 3
SHORTEST_PAUSE = 0.01
LONGEST_PAUSE = 0.1

#: How long commands are sent again if calls have no limit, in seconds.
LONGEST = 5.0


class Command:
    """A command and what became of it."""

    #: The node that was asked last.
    node: Node | None = None
    #: The node to ask next. ``None`` means the primary of the slot.
    next: Node | None = None
    #: Whether the next node has to be told that it may answer before it has the whole slot.
    asking = False
    #: Whether a node was lost that had the slot.
    is_lost = False
    #: A reply, redis-py's error of a refusal, or a ``KVSError`` if the node is not available.
    reply: Reply = None

    def __init__(self, full_key: bytes, packed: bytes) -> None:
        self.packed = packed
        self.slot = slot_of(full_key)

    def result(self) -> Reply:
        """Return the reply, or the ``KVSError`` of the command."""
        if self.node is None or not isinstance(self.reply, Exception):
            return self.reply
        return self.node.as_result(self.reply, self.packed)


class Rounds:
    """What is left of a call: some commands, and the time to send them until they have run.

    :param began: when the call began, by ``time.monotonic()``.
    :param repeatable: whether the commands may run twice. What a node refuses did not run.
    """

    def __init__(self, topology: Topology, began: float, repeatable: bool) -> None:
        self._topology = topology
        self._began = began
        self._end = began + min(topology.limit, LONGEST)
        self._repeatable = repeatable
        self._number = 0
        self._is_to_wait = False

    def run(self, commands: list[Command]) -> None:
        """Send commands, and send again those that can run elsewhere or later."""
        while commands:
            self._exchange(commands)
            commands = self.unfinished(commands)

    def _exchange(self, commands: list[Command]) -> None:
        groups: dict[Node, list[Command]] = {}
        slots = self._topology.slots
        for command in commands:
            node = command.next or slots[command.slot] or self._find_node(command)
            if node is not None:
                command.node = node
                groups.setdefault(node, []).append(command)
        questions = [_question(node, group) for node, group in groups.items()]
        answers = ask_together(questions, self._began, self._repeatable)
        for node, group in groups.items():
            _take_replies(group, answers[node])

    def _find_node(self, command: Command) -> Node | None:
        """Return the primary of a slot that the map does not have, or note why there is none."""
        try:
            return self._topology.home(command.slot, self._began)
        except KVSError as error:
            command.node, command.reply = None, error
            return None

    def unfinished(self, commands: Iterable[Command]) -> list[Command]:
        """Return the commands to send again, when it is time to do so."""
        self._is_to_wait = False
        failed = [command for command in commands if isinstance(command.reply, Exception)]
        again = [command for command in failed if self._is_to_repeat(command)]
        if again and not self._wait():
            for command in again:
                _give_up(command)
            return []
        return again

    def _is_to_repeat(self, command: Command) -> bool:
        node = command.node
        command.next, command.asking = None, False
        if node is None:
            return False
        if isinstance(command.reply, ResponseError):
            command.reply = of_cluster(command.reply)
        error = command.reply
        if isinstance(error, MovedError):
            command.next = self._topology.moved(command.slot, error, node, self._began)
        elif isinstance(error, AskError):
            command.next = self._topology.node(error.host or node.address[0], error.port)
            command.asking = True
        elif isinstance(error, TryAgainError):
            self._is_to_wait = True
        elif isinstance(error, (ClusterDownError, ReadOnlyError)):
            self._is_to_wait = True
            self._topology.refresh(self._began)
        else:
            return isinstance(error, KVSUnavailable) and self._is_elsewhere(command, error, node)
        return True

    def _is_elsewhere(self, command: Command, error: KVSUnavailable, lost: Node) -> bool:
        """Return whether another node has taken over, and the command can be sent to it."""
        self._topology.refresh(self._began)
        may_run = self._repeatable or not error.may_have_run
        is_first = not command.is_lost
        command.is_lost = True
        return is_first and may_run and self._topology.slots[command.slot] not in (None, lost)

    def _wait(self) -> bool:
        """Wait before the next round; return whether there is time for it."""
        self._number += 1
        left = self._end - monotonic()
        if not self._is_to_wait and self._number <= AT_ONCE:
            return left > 0
        pause = min(SHORTEST_PAUSE * 2 ** min(self._number, 10), LONGEST_PAUSE)
        if pause >= left:
            return False
        time.sleep(pause)
        return True


def _question(node: Node, group: list[Command]) -> Question:
    words = [command.packed for command in group if not command.asking]
    number = len(group)
    if len(words) < number:  # a slot is moving
        words = [_ASKING + item.packed if item.asking else item.packed for item in group]
        number += sum(command.asking for command in group)
    return Question(node, b"".join(words), number)


def _take_replies(group: list[Command], answer: list[Reply] | KVSError) -> None:
    if isinstance(answer, KVSError):
        for command in group:
            command.reply = answer
        return
    replies = iter(answer)
    for command in group:
        if command.asking:
            next(replies)
        command.reply = next(replies)


def _give_up(command: Command) -> None:
    """Make an error that will pass of a refusal that lasted until the end of the call."""
    refusal, node = command.reply, command.node
    assert node is not None
    if isinstance(refusal, ClusterDownError) and "is down" in str(refusal):
        # So that not each call waits for it.
        node.breaker.timed_out()
    if isinstance(refusal, (MovedError, AskError)):
        command.reply = KVSUnavailable(f"{node.server}: the slot of the key kept moving")


class Cluster:
    """Sends commands to the nodes of a cluster, as a transport does to one server."""

    def __init__(self, topology: Topology) -> None:
        self.topology = topology

    def share_breakers(self, breakers: Breakers) -> None:
        self.topology.share_breakers(breakers)

    def close(self) -> None:
        self.topology.close()

    def call(self, full_key: bytes, packed: bytes, repeatable: Repeatable = False) -> Reply:
        """Send a command to the primary of its key, and return the reply; strings are bytes.

        :param repeatable: it may run twice, so that it is sent again after a connection was lost. A
            function tells it by the second reply of the same node.
        :raises KVSUnavailable: no reply in time, or a refusal for now.
        :raises KVSError: another refusal.
        """
        began = monotonic()
        # As slot_of, without the call.
        slot = crc_hqx(full_key, 0) % SLOTS if b"{" not in full_key else slot_of(full_key)
        node = self.topology.slots[slot]
        if node is not None:
            try:
                return node.call(full_key, packed, repeatable)
            except KVSError as error:
                command = Command(full_key, packed)
                command.node = node
                return self._run(command, began, repeatable is True, error)
        return self._run(Command(full_key, packed), began, repeatable is True)

    def _run(
        self, command: Command, began: float, repeatable: bool, failure: KVSError | None = None
    ) -> Reply:
        """Send a command, and again while it can run elsewhere or later.

        :param failure: why the first attempt failed, if there was one.
        """
        rounds = Rounds(self.topology, began, repeatable)
        if failure is None:
            rounds.run([command])
        else:
            command.reply = _refusal(failure)
            rounds.run(rounds.unfinished([command]))
        reply = command.result()
        if isinstance(reply, KVSError):
            try:
                raise reply
            finally:
                del reply, command, failure  # the traceback has this frame
        return reply

    def call_many(
        self, commands: Sequence[tuple[bytes, bytes]], repeatable: bool = False
    ) -> list[Reply]:
        """Send commands to all nodes before the first reply is read.

        :param commands: the key of each, and the command.
        :returns: the reply to each command, or its ``KVSError``.
        """
        all_commands = [Command(*command) for command in commands]
        for group in _groups(all_commands):
            Rounds(self.topology, monotonic(), repeatable).run(group)
        return [command.result() for command in all_commands]


def _refusal(error: KVSError) -> Exception:
    """Return redis-py's error of a refusal, or the package's error if there was no reply."""
    cause = error.__cause__
    return cause if isinstance(cause, ResponseError) else error


def _groups(commands: list[Command]) -> Iterator[list[Command]]:
    """Group commands into what is sent together."""
    group: list[Command] = []
    size = 0
    for command in commands:
        if group and (len(group) == BATCH or size + len(command.packed) > BATCH_BYTES):
            yield group
            group, size = [], 0
        group.append(command)
        size += len(command.packed)
    if group:
        yield group

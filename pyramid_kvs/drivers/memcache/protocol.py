"""Memcached's meta commands on a connection: commands out, replies in, within a deadline."""

from __future__ import annotations

import select
import socket
from time import monotonic
from typing import NamedTuple

from ...exceptions import KVSError
from ..pool import Pooled
from .errors import OutOfStep

if not hasattr(select, "poll"):
    raise ImportError("the memcache driver needs select.poll, which this system does not have")

#: The most that ``memcached -I`` allows for one item.
LARGEST_ITEM = 1 << 30
LONGEST_LINE = 4096
CHUNK = 65536

#: The buffers of an idle connection take so much at once. To send more may need several waits.
SENT_AT_ONCE = 8192

#: Seconds after its last reply for which a connection is used without a check.
JUST_USED = 0.01

#: The words of common replies without data. Nobody changes the lists.
WORDS = {word + b"\r\n": [word] for word in (b"HD", b"EN", b"NS", b"EX", b"NF", b"MN")}

NOT_A_NUMBER = b"CLIENT_ERROR cannot increment or decrement non-numeric value"
STATS = b"stats\r\n"


class Reply(NamedTuple):
    """The words of a reply's first line, the data block after it, and the server it came from."""

    words: list[bytes]
    data: bytes = b""
    #: See :attr:`Connection.run_id`.
    run_id: bytes = b""

    def number(self, place: int) -> int:
        """Return the number in a word such as ``f16`` or ``t-1``.

        :raises KVSError: the word is missing, or has no number.
        """
        try:
            return int(self.words[place][1:])
        except (IndexError, ValueError):
            raise KVSError("a reply of memcached lacks what was asked for") from None


#: The reply to a compare-and-set of a changed item.
CHANGED = Reply([b"EX"])


class Connection(Pooled):
    """A connected socket, and the part of the replies that was received.

    A call on it ends ``limit`` seconds after :attr:`taken_at`. Each wait takes ``timeout`` seconds
    at most, or what is left of the call.
    """

    __slots__ = ("_at", "_buffer", "_is_shortened", "_limit", "_socket", "_timeout", "run_id")

    def __init__(self, connected: socket.socket, timeout: float, limit: float) -> None:
        """Use a socket whose timeout is ``timeout``."""
        super().__init__()
        self._socket = connected
        self._timeout = timeout
        self._limit = limit
        self._is_shortened = False
        self._buffer = b""
        self._at = 0
        #: Identifies the server, from one of its starts to the next. Empty until it is needed.
        self.run_id = b""

    def close(self) -> None:
        self._socket.close()

    def is_stale(self) -> bool:
        """Return whether the server closed the idle connection, or sent what nobody asked for."""
        if self.taken_at - self.used_at < JUST_USED:
            return False
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))

    # -- commands -------------------------------------------------------------------------

    def ask(self, command: bytes) -> Reply:
        """Send one command and return its reply.

        :raises OutOfStep: the server did not understand it.
        :raises OSError: it does not answer, or closed the connection.
        """
        self._socket.sendall(command)
        if len(command) > SENT_AT_ONCE:
            self.shorten()
        received = self._socket.recv(CHUNK)
        if not self._is_shortened:
            if received in WORDS:
                return Reply(WORDS[received], b"", self.run_id)
            if received.startswith(b"VA "):  # the whole reply, as it nearly always comes
                line, _, rest = received.partition(b"\r\n")
                words = line.split(b" ")
                data = rest[:-2]
                if words[1] == b"%d" % len(data) and rest.endswith(b"\r\n"):
                    return Reply(words, data, self.run_id)
        return self._read_rest(received)

    def _read_rest(self, received: bytes) -> Reply:
        """Return the reply that begins with these bytes."""
        self._buffer = self._not_empty(received)
        reply = self._reply()
        self._finish()
        return reply

    def ask_all(self, commands: list[bytes]) -> list[Reply]:
        """Send all commands, then read all replies; errors as in :meth:`ask`."""
        self._send(b"".join(commands))
        replies = [self._reply() for _ in commands]
        self._finish()
        return replies

    def load(self, command: bytes) -> Reply:
        """Return the reply to one command, with the :attr:`run_id` of the server."""
        return self.ask(command) if self.run_id else self.load_all([command])[0]

    def load_all(self, commands: list[bytes]) -> list[Reply]:
        """Return the replies to commands, with the :attr:`run_id` of the server.

        It is asked for after the first commands that need it, in the same round trip.
        """
        if self.run_id:
            return self.ask_all(commands)
        self._send(b"".join([*commands, STATS]))
        replies = [self._reply() for _ in commands]
        self.run_id = self._read_run_id()
        self._finish()
        return [reply._replace(run_id=self.run_id) for reply in replies]

    def swap(self, compared: tuple[bytes, bytes]) -> Reply:
        """Send a compare-and-set to the server that gave the number, or else do nothing.

        A server that starts again gives the same numbers to other data.

        :param compared: the :attr:`run_id` of the server, and the command.
        """
        run_id, command = compared
        if run_id == self._known_run_id():
            return self.ask(command)
        self.restore_timeout()
        return CHANGED

    def swap_all(self, compared: list[tuple[bytes | None, bytes]]) -> list[Reply]:
        """Run :meth:`swap` of several commands; ``None`` instead of a run id compares nothing."""
        known = self._known_run_id()
        commands = [command for run_id, command in compared if run_id in (None, known)]
        replies = iter(self.ask_all(commands) if commands else ())
        self.restore_timeout()
        return [next(replies) if run_id in (None, known) else CHANGED for run_id, _ in compared]

    def _known_run_id(self) -> bytes:
        if not self.run_id:
            self.load_all([])
            self.shorten()
        return self.run_id

    # -- waits ----------------------------------------------------------------------------

    def shorten(self) -> None:
        """Give the next wait no more than what is left of the call.

        :raises TimeoutError: nothing is left.
        """
        left = self.taken_at + self._limit - monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        if left < self._timeout:
            self._socket.settimeout(left)
            self._is_shortened = True

    def restore_timeout(self) -> None:
        """Give the waits of the next call their whole timeout again."""
        if self._is_shortened:
            self._socket.settimeout(self._timeout)
            self._is_shortened = False

    def _send(self, commands: bytes) -> None:
        """Send commands and receive the beginning of the replies."""
        self._socket.sendall(commands)
        if len(commands) > SENT_AT_ONCE:
            self.shorten()
        self._buffer = self._receive()

    def _receive_more(self) -> bytes:
        self.shorten()
        return self._receive()

    def _receive(self) -> bytes:
        return self._not_empty(self._socket.recv(CHUNK))

    def _not_empty(self, chunk: bytes) -> bytes:
        if not chunk:
            raise ConnectionResetError("the server closed the connection")
        return chunk

    def _finish(self) -> None:
        if self._buffer:
            raise OutOfStep("more replies than commands")
        self.restore_timeout()

    # -- replies --------------------------------------------------------------------------

    def _reply(self) -> Reply:
        line, after = self._line()
        words = line.split(b" ")
        if words[0] == b"VA":
            return self._with_data(words, after)
        self._advance(after)
        if line.startswith((b"ERROR", b"CLIENT_ERROR")) and line != NOT_A_NUMBER:
            raise OutOfStep(line.decode("latin-1"))
        return Reply(words, b"", self.run_id)

    def _line(self) -> tuple[bytes, int]:
        """Return the next line and where the bytes after it begin."""
        while (end := self._buffer.find(b"\r\n", self._at)) < 0:
            self._buffer = self._buffer[self._at :] + self._receive_more()
            self._at = 0
            if len(self._buffer) > CHUNK + LONGEST_LINE:
                raise OutOfStep("a reply without end of line")
        return self._buffer[self._at : end], end + 2

    def _with_data(self, words: list[bytes], start: int) -> Reply:
        if len(words) < 2 or not words[1].isdigit():
            raise OutOfStep("a reply without the size of its data")
        end = start + int(words[1])
        if end + 2 > len(self._buffer):
            self._receive_data(start, end + 2 - start)
            start, end = 0, end - start
        buffer = self._buffer
        if not buffer.startswith(b"\r\n", end):
            raise OutOfStep("a reply with more data than it said")
        self._advance(end + 2)
        return Reply(words, buffer[start:end], self.run_id)

    def _receive_data(self, start: int, size: int) -> None:
        """Make the buffer begin where it now has ``start``, and hold at least ``size`` bytes."""
        if size > LARGEST_ITEM:
            raise OutOfStep("a reply larger than any item")
        chunks = [self._buffer[start:]]
        missing = size - len(chunks[0])
        while missing > 0:
            chunks.append(self._receive_more())
            missing -= len(chunks[-1])
        self._buffer = b"".join(chunks)

    def _advance(self, position: int) -> None:
        if position == len(self._buffer):
            self._buffer = b""
            position = 0
        self._at = position

    def _read_run_id(self) -> bytes:
        """Read the reply to ``stats``: the process and its start, as far as they are known.

        A proxy may refuse the command. Then only its address is known.
        """
        found: dict[bytes, bytes] = {}
        while True:
            line, after = self._line()
            self._advance(after)
            words = line.split(b" ", 2)
            if words[0] != b"STAT" or len(words) < 3:
                break
            found[words[1]] = words[2]
        try:
            started = int(found[b"time"]) - int(found[b"uptime"])
        except (KeyError, ValueError):
            started = 0
        peer = self._socket.getpeername()
        return b"%b %b %d" % (repr(peer).encode(), found.get(b"pid", b""), started)

"""Which server has a key: the one that python-memcached would choose."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import zip_longest
from time import monotonic
from typing import Any, TypeVar

import memcache

from ...exceptions import KVSUnavailable
from ...kvs import Breakers
from .errors import NotConnected
from .options import Options
from .protocol import Connection, Reply
from .server import Server

A = TypeVar("A")
R = TypeVar("R")

#: A batch has no more commands than these.
BATCH_COUNT = 1000

#: How many bytes a batch with data has at most.
BATCH_DATA = 1 << 20


class Clock(threading.local):
    """When the operation began that the steps of this thread belong to."""

    #: By ``time.monotonic()``. 0 means that each step is a separate operation.
    began = 0.0


class Servers:
    """The servers of a driver. Each key belongs to one of them.

    :param client: knows the servers and their weights.
    """

    def __init__(self, client: Any, options: Options) -> None:
        by_host = {host: Server(host, options) for host in client.servers}
        self._servers = list(by_host.values())
        self._buckets = [by_host[host] for host in client.buckets]
        self._only = self._servers[0] if len(self._servers) == 1 else None
        self._rehash = options.rehash
        self._clock = Clock()

    def __iter__(self) -> Iterator[Server]:
        return iter(self._servers)

    def share_breakers(self, breakers: Breakers) -> None:
        for server in self._servers:
            server.share_breakers(breakers)

    def close(self) -> None:
        for server in self._servers:
            server.close()

    def since(self, began: float, steps: Callable[[], R]) -> R:
        """Run several steps of one operation, which have one deadline together.

        :param began: when the operation began, of ``time.monotonic()``.
        """
        clock = self._clock
        if clock.began:  # they are part of a larger operation
            return steps()
        try:
            clock.began = began
            return steps()
        finally:
            clock.began = 0.0

    def _spent(self) -> float:
        """Return the seconds that the operation has already taken."""
        return monotonic() - self._clock.began if self._clock.began else 0

    # -- one key --------------------------------------------------------------------------

    def ask(self, full_key: bytes, command: bytes, repeatable: bool = False) -> Reply:
        """Send a command to the server of a key; see :meth:`Server.call`."""
        return self._call(full_key, Connection.ask, command, repeatable)

    def load(self, full_key: bytes, command: bytes) -> Reply:
        """Send a command that may run twice, and learn from which server the reply is."""
        return self._call(full_key, Connection.load, command, True)

    def swap(self, full_key: bytes, run_id: bytes, command: bytes) -> Reply:
        """Send a compare-and-set to the server that gave the number; see :class:`Connection`."""
        return self._call(full_key, Connection.swap, (run_id, command), False)

    def _call(
        self, full_key: bytes, ask: Callable[[Connection, A], Reply], command: A, repeatable: bool
    ) -> Reply:
        if not self._rehash:
            server = self._only or self.home(full_key)
            began = self._clock.began
            spent = monotonic() - began if began else 0.0
            return server.call(ask, command, repeatable, spent)

        def call(spent: float) -> Reply:
            return self.server(full_key).call(ask, command, repeatable, spent)

        return self._moving(call, repeatable)

    # -- all servers ----------------------------------------------------------------------

    def ask_each(self, command: bytes) -> None:
        """Send a command that may run twice to each server."""
        began = monotonic()
        for server in self._servers:
            server.call(Connection.ask, command, True, monotonic() - began)

    # -- several keys ---------------------------------------------------------------------

    def ask_all(
        self,
        commands: Mapping[bytes, A],
        size: int,
        ask: Callable[[Connection, list[A]], list[Reply]],
        repeatable: bool = True,
    ) -> list[tuple[bytes, Reply]]:
        """Send commands by full key, in batches; return the replies by full key.

        :param size: of a batch, in bytes.
        :param ask: a method of :class:`Connection`.
        :raises KVSError: a server refused one; the others were done.
        """

        def call(spent: float) -> list[tuple[bytes, Reply]]:
            return list(self._ask_each(commands, size, ask, repeatable, spent))

        replies = self._moving(call, True) if self._rehash and repeatable else call(self._spent())
        for full_key, reply in replies:
            if reply.words[0] == b"SERVER_ERROR":
                raise self.server(full_key).refusal(reply)
        return replies

    def _ask_each(
        self,
        commands: Mapping[bytes, A],
        size: int,
        ask: Callable[[Connection, list[A]], list[Reply]],
        repeatable: bool,
        spent: float,
    ) -> Iterator[tuple[bytes, Reply]]:
        """Yield the replies; each round of one batch for each server has its own deadline."""
        batches = [
            [(server, batch) for batch in _batches(full_keys, commands, size)]
            for server, full_keys in self._by_server(commands).items()
        ]
        for round_ in zip_longest(*batches):
            began = monotonic() - spent
            for server, batch in filter(None, round_):
                sent = [commands[full_key] for full_key in batch]
                replies = server.exchange(ask, sent, repeatable, spent)
                yield from zip(batch, replies, strict=True)
                spent = monotonic() - began
            spent = 0.0

    def _by_server(self, full_keys: Iterable[bytes]) -> dict[Server, list[bytes]]:
        groups: dict[Server, list[bytes]] = {}
        for full_key in full_keys:
            groups.setdefault(self.server(full_key), []).append(full_key)
        return groups

    # -- routing --------------------------------------------------------------------------

    def home(self, full_key: bytes) -> Server:
        """Return the server of a key while all servers answer."""
        number: int = memcache.serverHashFunction(full_key)
        return self._buckets[number % len(self._buckets)]

    def server(self, full_key: bytes) -> Server:
        """Return the server of a key; with ``rehash``, one that is not left alone."""
        if self._only is not None:
            return self._only
        home = self.home(full_key)
        return self._other(full_key) if self._rehash and home.is_left_alone() else home

    def _other(self, full_key: bytes) -> Server:
        number: int = memcache.serverHashFunction(full_key)
        for attempt in range(memcache.Client._SERVER_RETRIES):
            server = self._buckets[number % len(self._buckets)]
            if not server.is_left_alone():
                return server
            number = memcache.serverHashFunction(f"{number}{attempt}".encode())
        raise KVSUnavailable("none of the memcached servers answered a moment ago")

    def _moving(
        self, call: Callable[[float], R], repeatable: bool, tries: int = 0, began: float = 0
    ) -> R:
        """Call again after a server failed, which is left alone from then on.

        :param call: gets the seconds that were spent before.
        """
        now = monotonic()
        began = began or self._clock.began or now
        try:
            return call(now - began)
        except KVSUnavailable as error:
            is_safe = repeatable or isinstance(error, NotConnected)
            in_time = monotonic() - began < self._servers[0].limit
            if not (is_safe and in_time and tries < len(self._servers)):
                raise
        return self._moving(call, repeatable, tries + 1, began)


def _batches(
    full_keys: list[bytes], commands: Mapping[bytes, Any], size: int
) -> Iterator[list[bytes]]:
    """Split the keys into lists whose commands are below a size together, or one large one."""
    batch: list[bytes] = []
    room = size
    for full_key in full_keys:
        length = _length(commands[full_key])
        room -= length
        if batch and (room < 0 or len(batch) == BATCH_COUNT):
            yield batch
            batch, room = [], size - length
        batch.append(full_key)
    yield batch


def _length(command: Any) -> int:
    """Return the size of a command, which may have a run id to compare before it."""
    return len(command) if isinstance(command, bytes) else len(command[1])

"""The memcache driver: python-memcached's settings, keys and flags, on connections of our own.

``memcache.Client`` checks ``kvs_kwargs`` and says which server has which key, so that workers
with 1.0 find the same keys. It is never asked for a value: it would unpickle one.
"""

from __future__ import annotations

import hashlib
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import memcache

from ...exceptions import (
    KVSConflict,
    KVSError,
    KVSNotSupported,
    KVSUnavailable,
    ValueTooLarge,
)
from ...kvs import DONE, KVS, Data, Stored, Swap, SwapRequest, named_parameters, pause
from ...serializer import as_bytes
from ..options import PoolOptions, take_pool_options
from . import items
from .items import MAGIC, TEXT, Item
from .protocol import LARGEST_ITEM, NotConnected, Reply, Server

__all__ = ["MemcacheKVS"]

R = TypeVar("R")

#: Keys that are sent as they are: no spaces or control characters, and no mapped key.
MAPPED = b"kvs:sha256:"
PLAIN_KEY = re.compile(rb"(?!kvs:sha256:)[\x21-\x7e\x80-\xff]{1,250}")

#: A batch of reads stays below what the sockets hold while nobody reads the replies.
BATCH_BYTES = 16 << 10
BATCH_DATA = 1 << 20
BATCH_COUNT = 1000


class MemcacheKVS(KVS):
    """Keys on one or several memcached servers, version 1.6 or newer.

    ``kvs_kwargs`` are those of ``memcache.Client``; ``servers`` is required. And these:

    ``socket_timeout``, ``socket_connect_timeout``
        Seconds to wait for an answer and for a connection, 0.5 each.
    ``rehash``
        True: the keys of a server that does not answer move to the others.
    ``dead_retry``
        Seconds for which a server that failed is not asked again; none, or 2 with ``rehash``.
    ``max_connections``
        To each server from each process, 100.
    ``pool_timeout``, ``max_backlog``
        Seconds that a call waits for a connection, 0.5, and how many calls can wait.
    """

    @classmethod
    def client_arguments(cls) -> frozenset[str]:
        found = super().client_arguments() | named_parameters(memcache.Client)
        return found | set(PoolOptions._fields)

    def _create_client(
        self,
        servers: Any = None,
        rehash: bool = False,
        socket_timeout: float = 0.5,
        socket_connect_timeout: float | None = None,
        dead_retry: float | None = None,
        max_connections: int = 100,
        **kwargs: Any,
    ) -> Any:
        connect = socket_timeout if socket_connect_timeout is None else socket_connect_timeout
        retry = 2 if rehash and dead_retry is None else dead_retry
        timeouts = {"socket_timeout": socket_timeout, "socket_connect_timeout": connect}
        if retry is not None:
            timeouts["dead_retry"] = retry
        _check_options(timeouts, {"max_connections": max_connections}, rehash)
        waiting = take_pool_options(kwargs)
        client = memcache.Client(_servers(servers), socket_timeout=socket_timeout, **kwargs)
        _check_client(client, **kwargs)
        self._encoder: Callable[[bytes], bytes] | None = kwargs.get("key_encoder")
        self._largest = kwargs.get("server_max_value_length") or LARGEST_ITEM
        self._rehash = rehash
        self._servers = [
            Server(host, connect, socket_timeout, max_connections, retry or 0, waiting)
            for host in client.servers
        ]
        by_host: dict[Any, Server] = dict(zip(client.servers, self._servers, strict=True))
        self._buckets = [by_host[host] for host in client.buckets]
        self._only = self._servers[0] if len(self._servers) == 1 else None
        return client

    # -- the store ------------------------------------------------------------------------

    def flush(self) -> None:
        """Remove all items of all servers, which is refused to a driver with a prefix."""
        if self.key_prefix:
            raise KVSNotSupported("memcached can remove all keys, not those under a prefix")
        for server in self._servers:
            server.ask(b"flush_all\r\n", repeatable=True)

    def _check_keys(self) -> Iterator[str]:
        missing = set(self._buckets)
        while missing:
            for key in super()._check_keys():
                server = self._bucket(memcache.serverHashFunction(self._full_key(key)))
                if server in missing:
                    missing.discard(server)
                    yield key

    def close(self) -> None:
        for server in self._servers:
            server.close()

    # -- one key --------------------------------------------------------------------------

    def raw_get(self, key: str, default: Any = None) -> Any:
        full_key = self._full_key(key)
        reply = self._ask(full_key, b"mg %b v f\r\n" % full_key, repeatable=True)
        data = items.readable(reply) if items.is_value(reply) else None
        return default if data is None else data

    def raw_set(self, key: str, value: Data, ttl: float | None) -> None:
        full_key = self._full_key(key)
        reply = self._ask(full_key, self._set_command(full_key, value, ttl), repeatable=True)
        _check_stored(reply)

    def raw_add(self, key: str, data: Data, ttl: float | None) -> bool:
        return self._add(self._full_key(key), data, ttl)

    def raw_delete(self, key: str) -> Data | None:
        full_key = self._full_key(key)
        for _ in self._attempts():
            stored = self.raw_load(key)
            if stored is None:
                return None
            if self._remove_loaded(full_key, stored.token):
                return stored.data
        raise self._conflict()

    def raw_ttl(self, key: str) -> float:
        item = self._item(self._full_key(key))
        if item is None or item.is_over():
            return -2.0
        return float(item.ttl) if item.deadline is None else item.deadline - time.time()

    def raw_expire(self, key: str, ttl: float | None) -> bool:
        full_key = self._full_key(key)
        touch = b"" if items.has_fraction(ttl) else b" T%d" % items.exptime(ttl)
        for _ in self._attempts():
            item = self._item(full_key, touch)
            if item is None or item.is_over():
                return False
            if touch and item.deadline is None:
                return True
            if self._replace(full_key, item.data, ttl, item.flags, item.cas):
                return True
        raise self._conflict()

    # -- several keys ---------------------------------------------------------------------

    def raw_get_many(self, keys: list[str]) -> dict[str, Data]:
        found = ((key, items.readable(reply)) for key, reply in self._read_many(keys, b"v f"))
        return {key: data for key, data in found if data is not None}

    def raw_load_many(self, keys: list[str]) -> dict[str, Stored]:
        found = ((key, items.stored(reply)) for key, reply in self._read_many(keys, b"v f c"))
        return {key: stored for key, stored in found if stored is not None}

    def raw_set_many(self, mapping: Mapping[str, Data], ttl: float | None) -> None:
        commands = {
            full_key: self._set_command(full_key, data, ttl)
            for full_key, data in ((self._full_key(key), data) for key, data in mapping.items())
        }
        for _, reply in self._ask_many(commands, BATCH_DATA):
            _check_stored(reply)

    def raw_delete_many(self, keys: list[str]) -> None:
        commands = {key: b"md %b\r\n" % key for key in map(self._full_key, keys)}
        self._ask_many(commands, BATCH_BYTES)

    def _read_many(self, keys: list[str], flags: bytes) -> Iterator[tuple[str, Reply]]:
        by_full_key = {self._full_key(key): key for key in keys}
        commands = {full_key: b"mg %b %b\r\n" % (full_key, flags) for full_key in by_full_key}
        for full_key, reply in self._ask_many(commands, BATCH_BYTES):
            if items.is_value(reply):
                yield by_full_key[full_key], reply

    # -- compare and set ------------------------------------------------------------------

    def raw_load(self, key: str, renew: float | None = None) -> Stored | None:
        """Return the data with their flags, uninterpreted but for compression.

        See :meth:`KVS.raw_load`.
        """
        full_key = self._full_key(key)
        if renew is None:
            command = b"mg %b v f c\r\n" % full_key
        elif items.has_fraction(renew):
            return self.raw_load(key) if self.raw_expire(key, renew) else None
        else:
            command = b"mg %b v f c T%d\r\n" % (full_key, items.exptime(renew))
        reply = self._ask(full_key, command, repeatable=True)
        if not items.is_value(reply):
            return None
        if renew is not None and reply.data.startswith(MAGIC):
            return self.raw_load(key) if self.raw_expire(key, renew) else None
        return items.stored(reply)

    def raw_swap(
        self,
        key: str,
        old: Stored | None,
        data: Data | None,
        ttl: float | None,
        flags: int | None = None,
    ) -> Swap:
        full_key = self._full_key(key)
        if old is None:
            done = data is not None and self._add(full_key, data, ttl, flags)
        elif data is None:
            done = self._remove_loaded(full_key, old.token)
        else:
            done = self._replace(full_key, data, ttl, flags, old.token)
        if done:
            return DONE
        current = self.raw_load(key)
        return Swap(old is None and data is None and current is None, current)

    # -- several keys at once -------------------------------------------------------------

    def raw_swap_many(self, swaps: list[SwapRequest]) -> list[Swap]:
        commands = {}
        for key, old, data, ttl in swaps:
            full_key = self._full_key(key)
            mode = b" ME" if old is None else items.if_still(old.token)
            commands[full_key] = self._set_command(full_key, data, ttl, None, mode)
        replies = dict(self._ask_many(commands, BATCH_DATA, repeatable=False))
        lost = [swap.key for swap in swaps if replies[self._full_key(swap.key)].words[0] != b"HD"]
        current = self.raw_load_many(lost) if lost else {}
        return [
            self._lost(swap, current.get(swap.key)) if swap.key in lost else DONE for swap in swaps
        ]

    def _lost(self, swap: SwapRequest, current: Stored | None) -> Swap:
        if swap.old is None and current is None:  # the value that was in the way has expired
            return self.raw_swap(*swap)
        return Swap(False, current)

    def raw_load_with(
        self, key: str, renew: float | None, others: list[str]
    ) -> tuple[Stored | None, dict[str, Stored]]:
        if items.has_fraction(renew):
            return super().raw_load_with(key, renew, others)
        by_full_key = {self._full_key(other): other for other in others}
        commands = {full_key: b"mg %b v f c\r\n" % full_key for full_key in by_full_key}
        renewed = self._full_key(key)
        touch = b"" if renew is None else b" T%d" % items.exptime(renew)
        commands[renewed] = b"mg %b v f c%b\r\n" % (renewed, touch)
        replies = dict(self._ask_many(commands, BATCH_BYTES))
        found = {
            full_key: items.stored(reply)
            for full_key, reply in replies.items()
            if items.is_value(reply)
        }
        loaded = found.pop(renewed, None)
        if loaded is not None and renew is not None and replies[renewed].data.startswith(MAGIC):
            loaded = self.raw_load(key, renew)
        return loaded, {
            by_full_key[full_key]: stored
            for full_key, stored in found.items()
            if stored is not None
        }

    # -- steps ----------------------------------------------------------------------------

    def _add(
        self, full_key: bytes, data: Data, ttl: float | None, flags: int | None = None
    ) -> bool:
        command = self._set_command(full_key, data, ttl, flags, b" ME")
        for _ in self._attempts():
            if self._ask(full_key, command).words[0] == b"HD":
                return True
            item = self._item(full_key)
            if item is not None:
                return item.is_over() and self._replace(full_key, data, ttl, flags, item.cas)
        raise self._conflict()

    def _replace(
        self, full_key: bytes, data: Data, ttl: float | None, flags: int | None, cas: int
    ) -> bool:
        command = self._set_command(full_key, data, ttl, flags, items.if_still(cas))
        return self._ask(full_key, command).words[0] == b"HD"

    def _remove_loaded(self, full_key: bytes, cas: int) -> bool:
        return (
            self._ask(full_key, b"md %b%b\r\n" % (full_key, items.if_still(cas))).words[0] == b"HD"
        )

    def _item(self, full_key: bytes, touch: bytes = b"") -> Item | None:
        command = b"mg %b v f c t%b\r\n" % (full_key, touch)
        reply = self._ask(full_key, command, repeatable=True)
        return items.item(reply) if items.is_value(reply) else None

    # -- counters -------------------------------------------------------------------------

    def raw_incr(self, key: str, delta: int, ttl: float | None) -> int:
        full_key = self._full_key(key)
        if 0 <= delta < 2**63 and not items.has_fraction(ttl):
            count = self._incr_digits(full_key, delta, ttl)
            if count is not None and count < delta:  # memcached went round at 2**64
                return self.raw_incr(key, 2**64, ttl)
            if count is not None:
                return count
        for _ in self._attempts():
            count = self._incr_item(full_key, self._item(full_key), delta, ttl)
            if count is not None:
                return count
        raise self._conflict()

    def _incr_digits(self, full_key: bytes, delta: int, ttl: float | None) -> int | None:
        """Count by memcached's own arithmetic, in one round trip; ``None``: not possible."""
        # 1.6.18 answers t-1 for a counter that it just made if N comes after t.
        command = b"ma %b N%d J%d D%d t v\r\n" % (full_key, items.exptime(ttl), delta, delta)
        reply = self._ask(full_key, command)
        if not items.is_value(reply):
            return None
        count = int(reply.data)
        if ttl is not None and reply.words[2] == b"t-1":
            self._ask(full_key, b"mg %b T%d\r\n" % (full_key, items.exptime(ttl)), repeatable=True)
        return count

    def _incr_item(
        self, full_key: bytes, item: Item | None, delta: int, ttl: float | None
    ) -> int | None:
        """Count by one compare-and-set; ``None``: somebody else was quicker."""
        if item is None:
            return delta if self._add(full_key, str(delta), ttl, 0) else None
        if item.is_over():
            done = self._replace(full_key, str(delta), ttl, 0, item.cas)
            return delta if done else None
        old = self._count(item.data)
        count = old + delta
        if items.counts_in_place(item, count, ttl):
            sign, step = (b"D", -delta) if delta < 0 else (b"I", delta)
            command = b"ma %b%b M%b D%d\r\n" % (full_key, items.if_still(item.cas), sign, step)
        else:
            command = self._set_counter(full_key, item, count, ttl)
        return count if self._ask(full_key, command).words[0] == b"HD" else None

    def _set_counter(self, full_key: bytes, item: Item, count: int, ttl: float | None) -> bytes:
        """Return the command that keeps the counter's clock: by a deadline, if there is one.

        Not by the seconds that memcached says are left: it counts in ticks, and each count
        just after a tick would add a second.
        """
        deadline = item.deadline
        if deadline is None and item.ttl >= 0:
            deadline = time.time() + item.ttl
        if deadline is None:
            return self._set_command(
                full_key, str(count), ttl, item.flags, items.if_still(item.cas)
            )
        data, exptime = items.wrapped(b"%d" % count, deadline)
        return items.set_command(full_key, data, exptime, item.flags, items.if_still(item.cas))

    # -- commands and servers -------------------------------------------------------------

    def _full_key(self, key: str) -> bytes:
        full_key = self._get_key(key)
        if self._encoder is not None:
            full_key = self._encoder(full_key)
        if PLAIN_KEY.fullmatch(full_key):
            return full_key
        return MAPPED + hashlib.sha256(full_key).hexdigest().encode()

    def _set_command(
        self,
        full_key: bytes,
        data: Data,
        ttl: float | None,
        flags: int | None = None,
        mode: bytes = b"",
    ) -> bytes:
        if flags is None:
            flags = TEXT if isinstance(data, str) else 0
        stored, exptime = items.lasting(as_bytes(data), ttl)
        if len(stored) > self._largest:
            raise ValueTooLarge(f"a value of {len(stored)} bytes; {self._largest} are allowed")
        return items.set_command(full_key, stored, exptime, flags, mode)

    def _ask(self, full_key: bytes, command: bytes, repeatable: bool = False) -> Reply:
        if self._rehash:
            return self._moving(lambda: self._server(full_key).ask(command, repeatable), repeatable)
        return self._server(full_key).ask(command, repeatable)

    def _ask_many(
        self, commands: Mapping[bytes, bytes], size: int, repeatable: bool = True
    ) -> list[tuple[bytes, Reply]]:
        """Send commands by full key, in batches; return the replies by full key.

        :raises KVSError: the server refused one; the others were done.
        """

        def ask() -> list[tuple[bytes, Reply]]:
            return list(self._ask_each(commands, size, repeatable))

        replies = self._moving(ask, True) if self._rehash and repeatable else ask()
        for full_key, reply in replies:
            if reply.words[0] == b"SERVER_ERROR":
                raise self._server(full_key).refusal(reply)
        return replies

    def _ask_each(
        self, commands: Mapping[bytes, bytes], size: int, repeatable: bool
    ) -> Iterator[tuple[bytes, Reply]]:
        for server, full_keys in self._by_server(commands).items():
            for batch in _batches(full_keys, commands, size):
                replies = server.ask_all([commands[full_key] for full_key in batch], repeatable)
                yield from zip(batch, replies, strict=True)

    def _by_server(self, full_keys: Iterable[bytes]) -> dict[Server, list[bytes]]:
        groups: dict[Server, list[bytes]] = {}
        for full_key in full_keys:
            groups.setdefault(self._server(full_key), []).append(full_key)
        return groups

    def _server(self, full_key: bytes) -> Server:
        """Return the server that python-memcached would choose."""
        if self._only is not None:
            return self._only
        number: int = memcache.serverHashFunction(full_key)
        server = self._bucket(number)
        if self._rehash and server.is_down():
            return self._next_server(number)
        return server

    def _bucket(self, number: int) -> Server:
        return self._buckets[number % len(self._buckets)]

    def _next_server(self, number: int) -> Server:
        for attempt in range(memcache.Client._SERVER_RETRIES):
            server = self._buckets[number % len(self._buckets)]
            if not server.is_down():
                return server
            number = memcache.serverHashFunction(f"{number}{attempt}".encode())
        raise KVSUnavailable("none of the memcached servers answered a moment ago")

    def _moving(
        self, call: Callable[[], R], repeatable: bool, tries: int = 0, started: float = 0
    ) -> R:
        """Call again after a server failed, which by then counts as down."""
        started = started or time.monotonic()
        try:
            return call()
        except KVSUnavailable as error:
            if not (repeatable or isinstance(error, NotConnected)):
                raise
            if tries == len(self._servers) or time.monotonic() - started > 0.45:
                raise
        return self._moving(call, repeatable, tries + 1, started)

    def _attempts(self) -> Iterator[int]:
        for attempt in range(self.update_attempts):
            pause(attempt)
            yield attempt

    def _conflict(self) -> KVSConflict:
        return KVSConflict(f"the key changed {self.update_attempts} times during one call")


def _batches(
    full_keys: list[bytes], commands: Mapping[bytes, bytes], size: int
) -> Iterator[list[bytes]]:
    """Cut the keys into lists whose commands are below a size together, or one large one."""
    batch: list[bytes] = []
    room = size
    for full_key in full_keys:
        room -= len(commands[full_key])
        if batch and (room < 0 or len(batch) == BATCH_COUNT):
            yield batch
            batch, room = [], size - len(commands[full_key])
        batch.append(full_key)
    yield batch


def _check_stored(reply: Reply) -> None:
    if reply.words[0] != b"HD":
        raise KVSError(f"memcached stored nothing: it answered {reply.words[0]!r}")


# -- kvs_kwargs --------------------------------------------------------------------------------


def _servers(servers: Any) -> list[Any]:
    """Return the servers as python-memcached takes them: JSON has no tuples.

    :raises ValueError: they are none, or of another form.
    """
    expected = (
        'servers: expected a list such as ["127.0.0.1:11211"], '
        '["unix:/run/memcached/socket"] or [["10.0.0.1:11211", 2], ["10.0.0.2:11211", 1]]'
    )
    if not isinstance(servers, (list, tuple)) or not servers:
        raise ValueError(expected)
    listed = [tuple(server) if isinstance(server, list) else server for server in servers]
    for server in listed:
        host, weight = server if isinstance(server, tuple) and len(server) == 2 else (server, 1)
        if not isinstance(host, str) or type(weight) is not int or weight < 1:
            raise ValueError(f"{expected}; found {server!r}")
    return listed


def _check_options(timeouts: Mapping[str, Any], counts: Mapping[str, Any], rehash: Any) -> None:
    for name, found in timeouts.items():
        if type(found) not in (int, float) or not 0 < found < math.inf:
            raise ValueError(f"{name}: found {found!r}, expected a number of seconds above 0")
    for name, found in counts.items():
        if type(found) is not int or found < 1:
            raise ValueError(f"{name}: found {found!r}, expected a whole number from 1")
    if type(rehash) is not bool:
        raise ValueError(f"rehash: found {rehash!r}, expected true or false")


def _check_client(
    client: Any, key_encoder: Any = None, server_max_value_length: Any = None, **_: Any
) -> None:
    """Refuse what python-memcached takes and stumbles over later."""
    if not (key_encoder is None or callable(key_encoder)):
        raise ValueError(f"key_encoder: found {key_encoder!r}, expected a function")
    largest = 0 if server_max_value_length is None else server_max_value_length
    if type(largest) is not int or largest < 0:
        raise ValueError(
            f"server_max_value_length: found {largest!r}, expected a whole number from 0 (no limit)"
        )
    for host in client.servers:
        if isinstance(host.address, tuple) and not 0 < host.address[1] < 65536:
            raise ValueError(
                f"servers: found port {host.address[1]} of {host.address[0]}, "
                "expected a whole number from 1 to 65535"
            )

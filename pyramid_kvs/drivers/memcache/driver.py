"""The memcache driver: the keys and flags of python-memcached, on the driver's own connections.

``memcache.Client`` parses the servers and their weights, so that workers with 1.0 find the same
keys. It is never asked for a value: it would unpickle one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from time import monotonic
from typing import Any, TypeVar

from ...exceptions import KVSError, KVSNotSupported
from ...kvs import DONE, Data, Stored, Swap, SwapRequest
from . import items
from .claims import Claims
from .items import MAGIC, check_stored
from .protocol import Connection, Reply
from .server import Server
from .servers import BATCH_DATA

__all__ = ["MemcacheKVS"]

T = TypeVar("T")

#: A batch of reads stays below what the sockets hold while nobody reads the replies.
BATCH_BYTES = 16 << 10


class MemcacheKVS(Claims):
    """Keys on one or several memcached servers, version 1.6 or newer.

    See :class:`pyramid_kvs.drivers.memcache.options.Options` for ``kvs_kwargs``.
    """

    # -- the store ------------------------------------------------------------------------

    def flush(self) -> None:
        """Remove all items of all servers, which is refused to a driver with a prefix."""
        if self.key_prefix:
            raise KVSNotSupported("memcached can remove all keys, not those under a prefix")
        self._servers.ask_each(b"flush_all\r\n")

    def check(self) -> None:
        self._servers.since(monotonic(), super().check)

    def _check_keys(self) -> Iterator[str]:
        """Yield one key for each server."""
        missing = set(self._servers)
        while missing:
            for key in super()._check_keys():
                server = self._home(key)
                if server in missing:
                    missing.discard(server)
                    yield key

    def check_nodes(self) -> dict[str, str | None]:
        if len(list(self._servers)) == 1:
            return {}
        return {self._home(key).address: self._reason(key) for key in self._check_keys()}

    def _home(self, key: str) -> Server:
        return self._servers.home(self._full_key(key))

    def _reason(self, key: str) -> str | None:
        """Return why the server of a key cannot serve, even if another one has its keys."""
        try:
            self._home(key).call(Connection.ask, b"mn\r\n", True, 0)
            self._check_key(key)
        except KVSError as error:
            return str(error)
        return None

    # -- one key --------------------------------------------------------------------------

    def raw_get(self, key: str, default: Any = None) -> Any:
        full_key = self._full_key(key)
        reply = self._servers.ask(full_key, b"mg %b v f\r\n" % full_key, True)
        data = items.readable(reply) if items.is_value(reply) else None
        return default if data is None else data

    def raw_set(self, key: str, value: Data, ttl: float | None) -> None:
        full_key = self._full_key(key)
        check_stored(self._servers.ask(full_key, self._set_command(full_key, value, ttl), True))

    def raw_add(self, key: str, data: Data, ttl: float | None) -> bool:
        return self._add(self._full_key(key), data, ttl)

    def raw_delete(self, key: str) -> Data | None:
        return self._servers.since(monotonic(), lambda: self._load_and_remove(key))

    def _load_and_remove(self, key: str) -> Data | None:
        full_key = self._full_key(key)
        for _ in self._attempts():
            stored = self.raw_load(key)
            if stored is None:
                return None
            if self._remove_item(full_key, stored.token):
                return stored.data
        raise self._conflict()

    def raw_ttl(self, key: str) -> float:
        return _left(self._item(self._full_key(key)))

    def raw_ttl_many(self, keys: list[str]) -> dict[str, float]:
        by_full_key = {self._full_key(key): key for key in keys}
        commands = {full_key: b"mg %b v f c t\r\n" % full_key for full_key in by_full_key}
        replies = self._servers.ask_all(commands, BATCH_BYTES, Connection.load_all)
        found = dict(_found(by_full_key, replies, items.item))
        return {key: _left(found.get(key)) for key in keys}

    def raw_expire(self, key: str, ttl: float | None) -> bool:
        return self._servers.since(monotonic(), lambda: self._expire(key, ttl))

    def _expire(self, key: str, ttl: float | None) -> bool:
        full_key = self._full_key(key)
        touch = b"" if items.has_fraction(ttl) else b" T%d" % items.exptime(ttl)
        for _ in self._attempts():
            item = self._item(full_key, touch)
            if item is None or item.is_over():
                return False
            if touch and item.deadline is None:
                return True
            if self._replace(full_key, item.data, ttl, item.flags, item.token):
                return True
        raise self._conflict()

    # -- several keys ---------------------------------------------------------------------

    def raw_get_many(self, keys: list[str]) -> dict[str, Data]:
        by_full_key = {self._full_key(key): key for key in keys}
        commands = {full_key: b"mg %b v f\r\n" % full_key for full_key in by_full_key}
        replies = self._servers.ask_all(commands, BATCH_BYTES, Connection.ask_all)
        return dict(_found(by_full_key, replies, items.readable))

    def raw_load_many(self, keys: list[str]) -> dict[str, Stored]:
        by_full_key = {self._full_key(key): key for key in keys}
        commands = {full_key: b"mg %b v f c\r\n" % full_key for full_key in by_full_key}
        replies = self._servers.ask_all(commands, BATCH_BYTES, Connection.load_all)
        return dict(_found(by_full_key, replies, items.stored))

    def raw_set_many(self, mapping: Mapping[str, Data], ttl: float | None) -> None:
        commands = {
            full_key: self._set_command(full_key, data, ttl)
            for full_key, data in ((self._full_key(key), data) for key, data in mapping.items())
        }
        for _, reply in self._servers.ask_all(commands, BATCH_DATA, Connection.ask_all):
            check_stored(reply)

    def raw_delete_many(self, keys: list[str]) -> None:
        commands = {key: b"md %b\r\n" % key for key in map(self._full_key, keys)}
        self._servers.ask_all(commands, BATCH_BYTES, Connection.ask_all)

    # -- compare and set ------------------------------------------------------------------

    def raw_load(self, key: str, renew: float | None = None) -> Stored | None:
        """Return the data and their flags. Only compressed data are changed.

        See :meth:`KVS.raw_load`.
        """
        began = monotonic()
        full_key = self._full_key(key)
        touch = b""
        if renew is not None:
            if items.has_fraction(renew):
                return self._renew_and_load(key, renew, began)
            touch = b" T%d" % items.exptime(renew)
        reply = self._servers.load(full_key, b"mg %b v f c%b\r\n" % (full_key, touch))
        if not items.is_value(reply):
            return None
        if renew is not None and reply.data.startswith(MAGIC):
            return self._renew_and_load(key, renew, began)
        return items.stored(reply)

    def _renew_and_load(self, key: str, ttl: float, began: float) -> Stored | None:
        """Load an item whose data carry their deadline, or will."""

        def steps() -> Stored | None:
            return self.raw_load(key) if self._expire(key, ttl) else None

        return self._servers.since(began, steps)

    def raw_load_with(
        self, key: str, renew: float | None, others: list[str]
    ) -> tuple[Stored | None, dict[str, Stored]]:
        load_each = super().raw_load_with
        if items.has_fraction(renew):
            return self._servers.since(monotonic(), lambda: load_each(key, renew, others))
        return self._servers.since(monotonic(), lambda: self._load_with(key, renew, others))

    def _load_with(
        self, key: str, renew: float | None, others: list[str]
    ) -> tuple[Stored | None, dict[str, Stored]]:
        by_full_key = {self._full_key(other): other for other in others}
        commands = {full_key: b"mg %b v f c\r\n" % full_key for full_key in by_full_key}
        renewed = self._full_key(key)
        touch = b"" if renew is None else b" T%d" % items.exptime(renew)
        commands[renewed] = b"mg %b v f c%b\r\n" % (renewed, touch)
        replies = dict(self._servers.ask_all(commands, BATCH_BYTES, Connection.load_all))
        reply = replies.pop(renewed)
        loaded = items.stored(reply) if items.is_value(reply) else None
        if loaded is not None and renew is not None and reply.data.startswith(MAGIC):
            loaded = self.raw_load(key, renew)
        return loaded, dict(_found(by_full_key, replies.items(), items.stored))

    def raw_swap(
        self,
        key: str,
        old: Stored | None,
        data: Data | None,
        ttl: float | None,
        flags: int | None = None,
    ) -> Swap:
        began = monotonic()
        full_key = self._full_key(key)
        if old is None:
            done = data is not None and self._add(full_key, data, ttl, flags)
        elif data is None:
            done = self._remove_item(full_key, old.token)
        else:
            done = self._replace(full_key, data, ttl, flags, old.token)
        if done:
            return DONE
        current = self._servers.since(began, lambda: self.raw_load(key))
        return Swap(old is None and data is None and current is None, current)

    def raw_swap_many(self, swaps: list[SwapRequest]) -> list[Swap]:
        return self._servers.since(monotonic(), lambda: self._swap_many(swaps))

    def _swap_many(self, swaps: list[SwapRequest]) -> list[Swap]:
        compared = {self._full_key(swap.key): self._compared(swap) for swap in swaps}
        asked = self._servers.ask_all(compared, BATCH_DATA, Connection.swap_all, repeatable=False)
        replies = dict(asked)
        lost = [swap.key for swap in swaps if replies[self._full_key(swap.key)].words[0] != b"HD"]
        current = self.raw_load_many(lost) if lost else {}
        return [
            self._lost(swap, current.get(swap.key)) if swap.key in lost else DONE for swap in swaps
        ]

    def _compared(self, swap: SwapRequest) -> tuple[bytes | None, bytes]:
        """Return what :meth:`Connection.swap_all` needs for a swap."""
        mode = b" ME" if swap.old is None else items.if_still(swap.old.token)
        command = self._set_command(self._full_key(swap.key), swap.data, swap.ttl, None, mode)
        return None if swap.old is None else swap.old.token.run_id, command

    def _lost(self, swap: SwapRequest, current: Stored | None) -> Swap:
        if swap.old is None and current is None:  # the value that was in the way has expired
            return self.raw_swap(*swap)
        return Swap(False, current)


def _found(
    by_full_key: Mapping[bytes, str],
    replies: Iterable[tuple[bytes, Reply]],
    read: Callable[[Reply], T | None],
) -> Iterator[tuple[str, T]]:
    """Yield the keys that replies have data for, and what was read from the replies."""
    for full_key, reply in replies:
        found = read(reply) if items.is_value(reply) else None
        if found is not None:
            yield by_full_key[full_key], found


def _left(item: items.Item | None) -> float:
    """Return the seconds that are left of an item, as ``raw_ttl`` does."""
    if item is None or item.is_over():
        return -2.0
    if item.deadline is not None:
        return item.deadline - time.time()
    return -1.0 if item.ttl < 0 else max(item.ttl - 1.0, 0.0)

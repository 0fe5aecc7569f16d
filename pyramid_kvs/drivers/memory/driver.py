"""The ``memory`` driver."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from time import monotonic
from typing import Any, TypeVar

from ... import forks
from ...kvs import (
    CLAIM_KEY,
    DONE,
    KVS,
    Claim,
    Data,
    Stored,
    Swap,
    decode_key,
    key_pattern,
    new_owner,
    new_tuple,
)
from ...kvs.stored import is_of_this_process
from .parts import LAST, NEVER
from .store import MAX_BYTES, MemoryStore, named_stores

T = TypeVar("T")

#: The number of keys that are written before another thread can write.
BATCH = 1000

#: How long it gets for that, in seconds.
PAUSE = 0.0001


class MemoryKVS(KVS):
    """Keeps data in this process.

    ``kvs_kwargs``: ``max_bytes`` (64 MiB), and ``name``. Drivers that give the same name share
    one store. A driver without a name has a separate store.
    """

    is_shared = False

    _client: MemoryStore

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._scope = ""
        super().__init__(*args, **kwargs)
        if self._named:
            self._scope = decode_key(self.key_prefix)

    def _create_client(  # type: ignore[override]  # the client's own arguments
        self, max_bytes: int = MAX_BYTES, name: str | None = None
    ) -> MemoryStore:
        if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < 1:
            raise ValueError(f"max_bytes: found {max_bytes!r}, expected a positive integer")
        if name is not None and not isinstance(name, str):
            raise ValueError(f"name: found {name!r}, expected a string")
        self._named = name is not None
        return MemoryStore(max_bytes) if name is None else named_stores.get(name, max_bytes)

    def places(self) -> frozenset[str]:
        return frozenset({f"memory {id(self._client)}"})

    # -- one key --------------------------------------------------------------------------

    def raw_get(self, key: str, default: Any = None) -> Any:
        # As MemoryStore.get, but without the time of two calls.
        key = self._scope + key
        store = self._client
        part = store.whole or store.parts[hash(key) & LAST]
        now = monotonic()
        if part.deadlines.get(key, 0) <= now:
            return default
        part.used[key] = now
        return part.data.get(key, default)

    def raw_set(self, key: str, value: Data, ttl: float | None) -> None:
        now = monotonic()
        if not forks.renewed[0]:
            forks.renew()
        store = self._client
        with store.lock:
            store.put(self._scope + key, value, now + (NEVER if ttl is None else ttl), now)

    def raw_delete(self, key: str) -> Data | None:
        full_key, store = self._scope + key, self._client
        with store.writing():
            lives = store.deadline(full_key) > monotonic()
            data = store.remove(full_key)
            return data if lives else None

    def raw_incr(self, key: str, delta: int, ttl: float | None) -> int:
        full_key, store, now = self._scope + key, self._client, monotonic()
        with store.writing():
            data = store.get(full_key)
            count = delta if data is None else self._count(data) + delta
            deadline = NEVER if data is None else store.deadline(full_key)
            if deadline == NEVER:
                deadline = _deadline(ttl, now)
            store.put(full_key, str(count), deadline, now)
            return count

    def raw_ttl(self, key: str) -> float:
        deadline = self._client.deadline(self._scope + key)
        left = -1.0 if deadline == NEVER else deadline - monotonic()
        return left if left > 0 else -1.0

    def raw_expire(self, key: str, ttl: float | None) -> bool:
        return self._renewed(key, ttl) is not None

    def raw_load(self, key: str, renew: float | None = None) -> Stored | None:
        data = self.raw_get(key) if renew is None else self._renewed(key, renew)
        return None if data is None else Stored(data)

    def _renewed(self, key: str, ttl: float | None) -> Data | None:
        now = monotonic()
        with self._client.writing():
            return self._client.touch(self._scope + key, _deadline(ttl, now), now)

    def raw_swap(
        self,
        key: str,
        old: Stored | None,
        data: Data | None,
        ttl: float | None,
        flags: int | None = None,
    ) -> Swap:
        full_key, now = self._scope + key, monotonic()
        with self._client.writing():
            current = self._client.get(full_key)
            if current != (None if old is None else old.data):
                return Swap(False, None if current is None else Stored(current))
            if data is None:
                self._client.remove(full_key)
            else:
                self._client.put(full_key, data, _deadline(ttl, now), now)
            return DONE

    def raw_claim(self, key: str, stale: float, ttl: float, absent: bool = True) -> Claim:
        full_key, store, now = self._scope + key, self._client, monotonic()
        part = store.whole or store.parts[hash(full_key) & LAST]
        left = part.deadlines.get(full_key, 0) - now
        data = None if left <= 0 else part.data.get(full_key)
        if data is not None and left > stale:
            part.used[full_key] = now
            return new_tuple(Claim, (data, True, None, -1.0))
        return self._claim(key, stale, ttl) if absent or data is not None else Claim(None)

    def _claim(self, key: str, stale: float, ttl: float) -> Claim:
        full_key, claim_key = self._scope + key, self._scope + CLAIM_KEY + key
        with self._client.writing():
            data, now = self._client.get(full_key), monotonic()
            left = self._client.deadline(full_key) - now
            if data is not None and left > stale:
                return Claim(data, True)
            if is_of_this_process(self._client.get(claim_key)):
                return Claim(data)
            owner = new_owner()
            self._client.put(claim_key, owner, now + ttl, now)
            return Claim(data, False, owner, left)

    # -- many keys ------------------------------------------------------------------------

    def raw_get_many(self, keys: list[str]) -> dict[str, Data]:
        scope, get = self._scope, self._client.get
        found = ((key, get(scope + key)) for key in keys)
        return {key: data for key, data in found if data is not None}

    def raw_set_many(self, mapping: Mapping[str, Data], ttl: float | None) -> None:
        now = monotonic()
        for batch in _batches(mapping.items()):
            with self._client.writing():
                for key, data in batch:
                    self._client.put(self._scope + key, data, _deadline(ttl, now), now)

    def get_keys(self, pattern: str = "*") -> list[str]:
        matches = key_pattern(pattern).fullmatch
        deadline, now, start = self._client.deadline, monotonic(), len(self._scope)
        return [key[start:] for key in self._keys() if matches(key, start) and deadline(key) > now]

    def flush(self) -> None:
        for batch in _batches(self._keys()):
            with self._client.writing():
                for key in batch:
                    self._client.remove(key)

    def _keys(self) -> Iterator[str]:
        return (key for key in self._client if key.startswith(self._scope))

    def ping(self) -> bool:
        return True


def _deadline(ttl: float | None, now: float) -> float:
    # Always a new float, because the size of an entry counts it.
    return now + (NEVER if ttl is None else ttl)


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    """Cut work into pieces, and let other threads write between them.

    A thread that releases a lock and takes it again is faster than one that waits for the lock.
    """
    remaining = iter(items)
    batch = list(islice(remaining, BATCH))
    while batch:
        yield batch
        batch = list(islice(remaining, BATCH))
        if batch:
            time.sleep(PAUSE)

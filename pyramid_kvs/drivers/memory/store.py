"""Data of this process, bounded in bytes. The least recently used data are removed first."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from time import monotonic

from ... import forks
from ...exceptions import ValueTooLarge
from ...kvs import Data
from .parts import FULL, LAST, NEVER, PLACES, Part, copied, distinct, halves, joined, size_of

MAX_BYTES = 64 * 1024 * 1024

#: After this number of writes, some entries are examined for expired ones.
STEP = 128
SWEPT = 64

#: After this number of new entries, or of removals, the part of the last one is measured.
MEASURED = 16

#: If a part has no more entries than this, all parts may have become few enough for one part.
FEW = 64


class MemoryStore:
    """Data by key, with deadlines of ``time.monotonic()``, of at most ``max_bytes`` in all.

    Writes hold the lock. Reads do not, because each of their steps is atomic: look up the
    deadline, mark the key as used, look up the data. To iterate over a dictionary must be one
    step too, such as ``list(part.data)``.

    An exception from a signal handler can strike wherever a function is called. Changes that
    belong together, as those of the data and of :attr:`size`, therefore have no call between
    them.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.max_bytes = max_bytes
        self.lock = threading.RLock()
        #: The part of a key is the one at the place ``hash(key) & LAST``.
        self.parts = [Part()] * PLACES
        #: The only part, until it is split.
        self.whole: Part | None = self.parts[0]
        #: Bytes that entries and tables take.
        self.size = 0
        self._writes = 0
        self._added = 0
        self._removals = 0
        self._evicted_at = 0
        self._swept_at = 0
        self._swept = self.parts[0]
        self._unswept: list[str] = []
        forks.renew_in_child(self)

    def after_fork(self) -> None:
        """Replace the lock, which another thread of the parent may have held."""
        self.lock = threading.RLock()

    def get(self, key: str) -> Data | None:
        """Return the data of a live entry, which becomes the most recently used one."""
        part = self.whole or self.parts[hash(key) & LAST]
        now = monotonic()
        if part.deadlines.get(key, 0) <= now:
            return None
        part.used[key] = now
        return part.data.get(key)

    def deadline(self, key: str) -> float:
        """Return the deadline of an entry, live or not, or 0 if there is none."""
        part = self.whole or self.parts[hash(key) & LAST]
        return part.deadlines.get(key, 0)

    # -- writing ------------------------------------------------------------------------------

    def writing(self) -> threading.RLock:
        """Return the lock that the caller of the next methods holds."""
        if not forks.renewed[0]:
            forks.renew()
        return self.lock

    def put(self, key: str, data: Data, deadline: float, now: float) -> None:
        """Store an entry.

        :raises ValueTooLarge: it alone is larger than the store.
        """
        if type(data) is str and not data.isascii():
            data = data.encode("utf-8", "surrogatepass")  # a character may take four bytes
        part = self.whole or self.parts[hash(key) & LAST]
        old = part.data.get(key)
        grown = size_of(key, data) if old is None else len(data) - len(old)
        size = self.size + grown
        if size > self.max_bytes:
            self._make_room(key, grown, grown if old is None else size_of(key, data))
            part = self.parts[hash(key) & LAST]  # it may have been replaced
            size, now = self.size + grown, monotonic()  # later than what was sorted
        part.data[key] = data
        part.deadlines[key] = deadline
        part.used[key] = now
        self.size = size
        if old is None:
            self._added += 1
            if not self._added % MEASURED:
                self._measure(part)
        self._writes += 1
        if not self._writes % STEP:
            self._sweep(now)

    def touch(self, key: str, deadline: float, now: float) -> Data | None:
        """Give a live entry a new deadline and return its data."""
        part = self.whole or self.parts[hash(key) & LAST]
        if part.deadlines.get(key, 0) <= now:
            return None
        part.deadlines[key] = deadline
        part.used[key] = now
        return part.data[key]

    def remove(self, key: str) -> Data | None:
        """Remove an entry, live or not, and return its data."""
        part = self.whole or self.parts[hash(key) & LAST]
        data = part.data.get(key)
        if data is not None:
            self._take_out(part, key)
        return data

    def _take_out(self, part: Part, key: str) -> None:
        size = size_of(key, part.data[key])
        del part.deadlines[key], part.used[key], part.data[key]
        self.size -= size
        self._removals += 1
        if not self._removals % MEASURED:
            self._measure(part)

    # -- the bound ----------------------------------------------------------------------------

    def _make_room(self, key: str, grown: int, size: int) -> None:
        """Remove the least recently used entries, but not ``key``.

        :param grown: by how much the store grows.
        :param size: the size of the new entry.
        """
        if size > self.max_bytes:
            raise ValueTooLarge(
                f"the value takes {size} bytes, the memory store holds {self.max_bytes} in all"
            )
        left = PLACES
        while self.size + grown > self.max_bytes and left:
            self._evicted_at = (self._evicted_at + 1) & LAST
            part = self.whole or self.parts[self._evicted_at]
            oldest = part.oldest(key)
            if oldest is None:
                left -= 1
            else:
                self._take_out(part, oldest)
                left = PLACES

    # -- the parts ----------------------------------------------------------------------------

    def _split(self, part: Part) -> None:
        low, high = halves(part)
        bit = 1 << part.bits
        self._install(
            [
                known if known is not part else high if place & bit else low
                for place, known in enumerate(self.parts)
            ]
        )

    def _measure(self, part: Part) -> None:
        """Count the tables of a part, and replace it if it has too many or too few entries."""
        tables = part.measured()
        self.size += tables - part.tables
        part.tables = tables
        if len(part.data) > FULL and 1 << part.bits < PLACES:
            self._split(part)
        elif self.whole is None and len(part.data) <= FEW and self._join():
            pass
        elif part.is_sparse():
            copy = copied(part)
            self._install([copy if known is part else known for known in self.parts])

    def _join(self) -> bool:
        """Make one part of all, if they have become few entries; return whether they have."""
        parts = distinct(self.parts)
        if sum(len(part.data) for part in parts) > FULL // 2:
            return False
        self._install([joined(parts)] * PLACES)
        return True

    def _install(self, parts: list[Part]) -> None:
        """Use other parts, which have the same entries."""
        tables = sum(part.tables for part in distinct(parts))
        grown = tables - sum(part.tables for part in distinct(self.parts))
        self._swept, self._unswept = parts[0], []
        # A reader that has the old part still finds there what it had until now.
        self.whole = parts[0] if parts[0] is parts[LAST] else None
        self.parts[:] = parts
        self.size += grown

    # -- all entries --------------------------------------------------------------------------

    def __iter__(self) -> Iterator[str]:
        """Yield the keys of all entries, also of expired ones; without the lock."""
        parts = distinct(self.parts.copy())
        while parts:
            # Not kept: to free a million entries at once takes 300 ms.
            yield from list(parts.pop().data)

    def _sweep(self, now: float) -> None:
        """Remove expired entries among the next few. The parts have their turn."""
        if not self._unswept:
            self._swept_at = (self._swept_at + 1) & LAST
            self._swept = self.parts[self._swept_at]
            self._unswept = list(self._swept.data)
        deadline_of = self._swept.deadlines.get
        keys = self._unswept[-SWEPT:]
        del self._unswept[-SWEPT:]
        for key in keys:
            if deadline_of(key, NEVER) <= now and self.deadline(key) <= now:
                self.remove(key)


class NamedStores:
    """The stores of this process that have a name, as long as a driver uses them."""

    def __init__(self) -> None:
        self._lock = forks.ProcessLock()
        self._stores: weakref.WeakValueDictionary[str, MemoryStore] = weakref.WeakValueDictionary()

    def get(self, name: str, max_bytes: int) -> MemoryStore:
        """Return the store of that name. The size that was given first is kept."""
        with self._lock:
            store = self._stores.get(name)
            if store is None:
                store = self._stores[name] = MemoryStore(max_bytes)
            return store


named_stores = NamedStores()

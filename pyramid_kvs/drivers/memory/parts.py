"""The table of the memory store, in parts that stay small.

What takes a time that grows with a dictionary is done for one part only: a dictionary copies
itself when it grows, and the order of use is found by sorting. No other thread runs in the
meantime. A part that is full is therefore split in two. This takes 3 ms.

The values of the dictionaries are strings and numbers, which hold no references. Python's garbage
collector leaves such dictionaries out (up to Python 3.13). With a million entries in an
``OrderedDict`` of tuples it stops all threads for up to a second.
"""

from __future__ import annotations

from collections.abc import Iterable
from sys import getsizeof

from ...kvs import Data

#: The deadline of an entry that does not expire.
NEVER = float("inf")

#: How many entries make a part split.
FULL = 8192

#: How many places a table has. Several places have the same part until it is split.
PLACES = 256
LAST = PLACES - 1

#: What an entry takes besides its key, its data and its place in the tables: two floats, and the
#: headers of two strings. The allocator rounds each of them up to 16 bytes, by 8 on average.
ENTRY = 2 * getsizeof(1.5) + getsizeof("") + (getsizeof("") + getsizeof(b"")) // 2 + 4 * 8

#: A part whose tables have more bytes than this for each entry is copied. Tables that only grew
#: have at most 120, but tables do not shrink when entries are removed.
SPARSE = 400


class Part:
    """The entries whose keys have the same lowest bits in their hash.

    :param bits: how many bits.
    """

    __slots__ = ("bits", "data", "deadlines", "sorted_at", "tables", "unused", "used")

    def __init__(self, bits: int = 0) -> None:
        self.bits = bits
        self.data: dict[str, Data] = {}
        #: Times of ``time.monotonic()``, as those of the next two.
        self.deadlines: dict[str, float] = {}
        self.used: dict[str, float] = {}
        #: The latest use when ``unused`` was sorted.
        self.sorted_at = 0.0
        #: Keys in the order of their use until then, the least recently used one last.
        self.unused: list[str] = []
        #: The size of the dictionaries, when they were last measured.
        self.tables = 0

    def measured(self) -> int:
        return getsizeof(self.data) + getsizeof(self.deadlines) + getsizeof(self.used)

    def is_sparse(self) -> bool:
        return self.tables > SPARSE * (len(self.data) + 16)

    def copy_to(self, target: Part, keys: Iterable[str]) -> None:
        for key in keys:
            target.data[key] = self.data[key]
            target.deadlines[key] = self.deadlines[key]
            target.used[key] = self.used[key]
        target.tables = target.measured()

    def oldest(self, spared: str) -> str | None:
        """Return the least recently used key, or ``None`` if there is no key to remove.

        :param spared: a key not to return.
        """
        while True:
            used, unused, sorted_at = self.used, self.unused, self.sorted_at
            while unused:
                key = unused.pop()
                if used.get(key, NEVER) <= sorted_at and key != spared and key in self.data:
                    return key
            if len(self.data) <= (spared in self.data):
                return None
            self._sort()

    def _sort(self) -> None:
        used = self.used
        if len(used) > len(self.data):
            # Readers marked entries as used while they were removed.
            for key in used.keys() - self.data.keys():
                del used[key]
        self.unused = sorted(used, key=used.get, reverse=True)  # type: ignore[arg-type]
        self.sorted_at = used[self.unused[0]]


def joined(parts: Iterable[Part]) -> Part:
    """Return one part with the entries of all."""
    whole = Part()
    for part in parts:
        part.copy_to(whole, list(part.data))
    return whole


def halves(part: Part) -> tuple[Part, Part]:
    """Return two parts that differ in the next bit of the hash."""
    low, high = Part(part.bits + 1), Part(part.bits + 1)
    bit = 1 << part.bits
    part.copy_to(low, [key for key in part.data if not hash(key) & bit])
    part.copy_to(high, [key for key in part.data if hash(key) & bit])
    return low, high


def copied(part: Part) -> Part:
    """Return a part whose tables fit."""
    copy = Part(part.bits)
    part.copy_to(copy, list(part.data))
    return copy


def distinct(places: Iterable[Part]) -> list[Part]:
    """Return each part once."""
    return list({id(part): part for part in places}.values())


def size_of(key: str, data: Data) -> int:
    """Return what an entry takes, without its place in the tables.

    It is always the same for equal keys and data, which ``getsizeof`` is not.
    """
    return ENTRY + len(data) + (len(key) if key.isascii() else _wide(key))


def _wide(key: str) -> int:
    """Return the size of the characters of a string that is not ASCII: 1, 2 or 4 bytes each."""
    pairs = len(key.encode("utf-16-le", "surrogatepass")) // 2
    if pairs > len(key):
        return 4 * len(key) + 27
    try:
        return len(key.encode("latin-1")) + 24
    except UnicodeEncodeError:
        return 2 * len(key) + 25

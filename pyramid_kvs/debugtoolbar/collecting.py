"""What one request did with its stores."""

from __future__ import annotations

from collections import Counter
from contextvars import ContextVar
from dataclasses import dataclass, field
from time import perf_counter
from typing import NamedTuple

from ..kvs import Operation
from ..kvs.observed import key_fingerprints

#: A page with more calls shows the first ones only.
SHOWN = 1000

#: A page that reads more keys is only told of repetitions of the first ones.
COMPARED = 10_000


class Row(NamedTuple):
    """A call, as the panel shows it."""

    #: Milliseconds after the request began.
    at: float
    operation: Operation
    #: Whether the request had read one of the keys before.
    is_repeated: bool

    @property
    def found(self) -> str:
        """In words, what was found of the keys that were read."""
        hits, misses = self.operation.hits, self.operation.misses
        if hits + misses > 1:
            return f"{hits} of {hits + misses} found"
        return "hit" if hits else "miss" if misses else ""


@dataclass
class Totals:
    """Sums over the calls of one setting, or of all."""

    calls: int = 0
    round_trips: int = 0
    seconds: float = 0.0
    hits: int = 0
    misses: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    errors: int = 0

    def add(self, operation: Operation) -> None:
        self.calls += 1
        self.round_trips += operation.round_trips
        self.seconds += operation.seconds
        self.hits += operation.hits
        self.misses += operation.misses
        self.bytes_sent += operation.bytes_sent
        self.bytes_received += operation.bytes_received
        self.errors += operation.error is not None


@dataclass
class SessionChanges:
    """What a request saved of its session: names of its values, never the values."""

    changed: list[str] = field(default_factory=list)
    merged: list[str] = field(default_factory=list)


class Collection:
    """The calls of one request, in their order."""

    def __init__(self) -> None:
        self._began = perf_counter()
        self.rows: list[Row] = []
        self.total = Totals()
        self.by_setting: dict[str, Totals] = {}
        #: How often each key was read, by the setting and by what replaces the key.
        self._reads: Counter[tuple[str, str]] = Counter()
        #: How many keys of each setting were read repeatedly, and the most reads of one key.
        self.repeated: dict[str, tuple[int, int]] = {}
        self.changes = SessionChanges()

    def add(self, operation: Operation, keys: list[str]) -> None:
        at = (perf_counter() - self._began - operation.seconds) * 1000
        self.total.add(operation)
        self.by_setting.setdefault(operation.setting, Totals()).add(operation)
        is_repeated = self._read([(operation.setting, key) for key in keys])
        if len(self.rows) < SHOWN:
            self.rows.append(Row(max(at, 0.0), operation, is_repeated))

    @property
    def left_out(self) -> int:
        return self.total.calls - len(self.rows)

    def _read(self, keys: list[tuple[str, str]]) -> bool:
        """Count reads of keys; return whether the request had read one of them before."""
        known = [key for key in keys if key in self._reads]
        new = [key for key in keys if key not in self._reads]
        self._reads.update(known + new[: COMPARED - len(self._reads)])
        return bool(known)

    def end(self) -> None:
        """Keep what the panel shows. The toolbar keeps it for the last hundred requests."""
        for (setting, _), count in self._reads.items():
            if count > 1:
                keys, most = self.repeated.get(setting, (0, 0))
                self.repeated[setting] = (keys + 1, max(most, count))
        self._reads.clear()


#: That of the request that this thread or greenlet serves.
collecting: ContextVar[Collection | None] = ContextVar("pyramid_kvs_collecting", default=None)


def collect(operation: Operation) -> None:
    """Add an operation to those of the request, if the toolbar watches one."""
    collection = collecting.get()
    if collection is not None:
        reads = operation.hits or operation.misses
        collection.add(operation, key_fingerprints() if reads else [])

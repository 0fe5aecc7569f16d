"""The ``mock`` driver: a store that a test can look into, stop, and move forward in time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, ClassVar

from ..forks import ProcessLock
from ..kvs import KVS, Data, Stored, decode_key, key_pattern


class MockCache(KVS):
    """A driver whose store is a dictionary that a test may read, fill or replace.

    It defines only what a driver must define, and the clock. Everything else is a default of
    :class:`~pyramid_kvs.kvs.KVS`. :class:`~pyramid_kvs.testing.MockStore` stops the store and moves
    its clock.
    """

    is_shared = False
    has_clock = True

    #: Full key -> stored data (``str`` for json), shared by all ``mock`` drivers of the process.
    #: Data that a test puts here never expire.
    cached_data: ClassVar[dict[bytes, Data]] = {}

    #: The ttl of the last write, in seconds.
    last_ttl: ClassVar[float | None] = None

    #: By how many seconds the clock of the store is ahead.
    seconds_passed: ClassVar[float] = 0.0

    #: Called before each operation, with whether it writes; raises what a store in trouble raises.
    trouble: ClassVar[Callable[[bool], None] | None] = None

    _deadlines: ClassVar[dict[bytes, tuple[Data, float]]] = {}
    _lock: ClassVar[ProcessLock] = ProcessLock()

    def _create_client(self, **kwargs: Any) -> None:
        self._default_lock = MockCache._lock

    def raw_get(self, key: str, default: Any = None) -> Any:
        self._meet_trouble(writes=False)
        full_key = self._get_key(key)
        data = MockCache.cached_data.get(full_key)
        if data is None or self._left(full_key, data) == 0:
            return default
        return data

    def raw_set(self, key: str, value: Data, ttl: float | None) -> None:
        self._meet_trouble(writes=True)
        full_key = self._get_key(key)
        with MockCache._lock:
            MockCache.cached_data[full_key] = value
            MockCache._deadlines.pop(full_key, None)
            if ttl is not None:
                MockCache._deadlines[full_key] = (value, self._now() + ttl)
            MockCache.last_ttl = ttl

    def _remove(self, key: str) -> None:
        self._meet_trouble(writes=False)  # a store that is full can remove
        MockCache.cached_data.pop(self._get_key(key), None)

    def raw_ttl(self, key: str) -> float:
        self._meet_trouble(writes=False)
        full_key = self._get_key(key)
        data = MockCache.cached_data.get(full_key)
        return -1.0 if data is None else self._left(full_key, data) or -1.0

    def raw_load_timed(
        self, key: str | None, renew: float | None, others: list[str]
    ) -> tuple[Stored | None, dict[str, Stored], int]:
        loaded = None if key is None else self.raw_load(key, renew)
        now_ms = int((time.time() + MockCache.seconds_passed) * 1000)
        return loaded, self.raw_load_many(others), now_ms

    def _left(self, full_key: bytes, data: Data) -> float:
        """Return the seconds left: negative without expiry, 0 when expired."""
        written, deadline = MockCache._deadlines.get(full_key, (None, 0.0))
        if written is not data:  # without a ttl, or a test replaced it
            return -1.0
        return max(0.0, deadline - self._now())

    def _now(self) -> float:
        return time.monotonic() + MockCache.seconds_passed

    def _meet_trouble(self, writes: bool) -> None:
        trouble = MockCache.trouble
        if trouble is not None:
            trouble(writes)

    def places(self) -> frozenset[str]:
        return frozenset({"mock"})

    def check(self) -> None:
        """Raise what the next write would raise; the dictionary stays as the test left it."""
        self._meet_trouble(writes=True)

    def get_keys(self, pattern: str = "*") -> list[str]:
        self._meet_trouble(writes=False)
        matches = key_pattern(pattern).fullmatch
        full_keys = [key for key in list(MockCache.cached_data) if key.startswith(self.key_prefix)]
        keys = [decode_key(key[len(self.key_prefix) :]) for key in full_keys]
        return [key for key in keys if matches(key) and self.raw_get(key) is not None]

"""The store of all ``mock`` drivers, as a test sees it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager

from ..exceptions import KVSUnavailable
from ..kvs import Data
from .mock import MockCache

#: What a test of a MockStore replaces in MockCache, and what a test begins with.
_EMPTY: dict[str, Callable[[], object]] = {
    "cached_data": dict,
    "last_ttl": lambda: None,
    "seconds_passed": float,
    "trouble": lambda: None,
    "_deadlines": dict,
}


class MockStore(MutableMapping[bytes, Data]):
    """The data of all ``mock`` drivers of the process, by full key; and switches for an outage.

    The full key is the prefix and the key, as ``bytes``. The data are what the codec made, which is
    a ``str`` for json. Data that a test puts here never expire.
    """

    def __getitem__(self, full_key: bytes) -> Data:
        return MockCache.cached_data[full_key]

    def __setitem__(self, full_key: bytes, data: Data) -> None:
        MockCache.cached_data[full_key] = data

    def __delitem__(self, full_key: bytes) -> None:
        del MockCache.cached_data[full_key]

    def __iter__(self) -> Iterator[bytes]:
        return iter(list(MockCache.cached_data))

    def __len__(self) -> int:
        return len(MockCache.cached_data)

    def __repr__(self) -> str:
        return f"<MockStore {MockCache.cached_data!r}>"

    @property
    def last_ttl(self) -> float | None:
        """The ttl of the last write, in seconds."""
        return MockCache.last_ttl

    def pass_time(self, seconds: float) -> None:
        """Move the clock of the store forward, so that data expire and limits refill.

        The clocks of the process do not move.
        """
        if seconds < 0:
            raise ValueError(f"seconds: found {seconds!r}, expected 0 or more")
        MockCache.seconds_passed += seconds

    @contextmanager
    def unavailable(self) -> Iterator[None]:
        """Let each operation fail at once, as if no server listened."""

        def refuse(writes: bool) -> None:
            raise KVSUnavailable("the mock store is unavailable: inside kvs_store.unavailable()")

        with _trouble(refuse):
            yield

    @contextmanager
    def hung(self, seconds: float = 0.5) -> Iterator[None]:
        """Let each operation fail after a timeout, as if a server did not answer.

        There is no circuit breaker, so each operation waits.
        """

        def wait(writes: bool) -> None:
            time.sleep(seconds)
            raise KVSUnavailable(f"the mock store did not answer within {seconds:g} s")

        with _trouble(wait):
            yield

    @contextmanager
    def full(self) -> Iterator[None]:
        """Let each write fail, as on a store without memory. Reads and removals work."""

        def refuse_writes(writes: bool) -> None:
            if writes:
                raise KVSUnavailable("the mock store is full: inside kvs_store.full()")

        with _trouble(refuse_writes):
            yield


@contextmanager
def _trouble(trouble: Callable[[bool], None]) -> Iterator[None]:
    before, MockCache.trouble = MockCache.trouble, trouble
    try:
        yield
    finally:
        MockCache.trouble = before


@contextmanager
def empty_store() -> Iterator[MockStore]:
    """Give a test an empty store, and restore afterwards what was there.

    The fixture ``kvs_store`` does this. It is here for test suites that do not use pytest.
    """
    before = {name: getattr(MockCache, name) for name in _EMPTY}
    for name, make in _EMPTY.items():
        setattr(MockCache, name, make())
    try:
        yield MockStore()
    finally:
        for name, value in before.items():
            setattr(MockCache, name, value)

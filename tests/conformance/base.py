"""What the parts of the suite share: the fixtures, and threads that start together."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pyramid_kvs.exceptions import KVSNotSupported
from pyramid_kvs.kvs import KVS

Make = Callable[..., KVS]
_numbers = itertools.count()


class Base:
    """A part of the suite; the class of a driver defines the fixture ``store``."""

    #: Whether ``get_keys`` and ``flush`` of a prefix exist.
    lists_keys = True

    @pytest.fixture
    def new(self, store: tuple[str, dict[str, Any]]) -> Iterator[Make]:
        """Build drivers on the store under test, all under one prefix that no other test uses."""
        name, kvs_kwargs = store
        prefix = f"conformance{next(_numbers)}::"
        built: list[KVS] = []

        def make(prefix: str = prefix, **options: Any) -> KVS:
            driver = KVS(name, kvs_kwargs, prefix, **options)
            driver.initialize_schema()
            built.append(driver)
            return driver

        yield make
        for driver in built:
            driver.close()

    @pytest.fixture
    def kvs(self, new: Make) -> KVS:
        return new()

    def refuses_to_list(self, kvs: KVS) -> bool:
        """Check that a store that cannot list says so, instead of listing nothing."""
        if self.lists_keys:
            return False
        with pytest.raises(KVSNotSupported):
            kvs.get_keys()
        with pytest.raises(KVSNotSupported):
            kvs.flush()
        return True


def in_threads(count: int, work: Callable[[], Any]) -> None:
    """Run ``work`` in several threads that start together; raise what any of them raised."""
    barrier = threading.Barrier(count)
    errors: list[BaseException] = []

    def run() -> None:
        barrier.wait(60)
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not errors, errors

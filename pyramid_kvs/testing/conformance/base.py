"""What the parts of the suite share: how drivers are made, and what a driver may lack."""

from __future__ import annotations

import functools
import itertools
import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, ClassVar, NoReturn, Protocol, TypeVar

import pytest

from ...exceptions import KVSNotSupported
from ...kvs import KVS

#: The beginning of all keys of a run, so that a store does not have to be empty.
RUN = f"conformance-{secrets.token_hex(4)}-"

#: What a driver may lack: the name in a class of the suite, what it means, what to define.
ABILITIES = {
    "lists_keys": ("list its keys", "get_keys(pattern)"),
    "tells_ttl": ("tell the ttl of a key", "raw_ttl(key)"),
    "removes_keys": ("remove a key", "raw_delete(key), or delete(key) as in 1.0"),
}

_numbers = itertools.count()
T = TypeVar("T")


class Make(Protocol):
    """Makes a driver on the store under test, whose keys no other test uses."""

    def __call__(self, prefix: str = "", **options: Any) -> KVS: ...


class Base:
    """A part of the suite."""

    #: Whether several processes see the data.
    shared: ClassVar[bool] = True

    #: Whether each operation is atomic among the processes that share the store.
    is_atomic: ClassVar[bool] = True

    #: Whether the driver has ``get_keys`` and ``flush``.
    lists_keys: ClassVar[bool] = True

    #: Whether the driver can tell how long a key has left.
    tells_ttl: ClassVar[bool] = True

    #: Whether the driver can remove keys.
    removes_keys: ClassVar[bool] = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, value in list(vars(cls).items()):
            if name.startswith("test_") and callable(value):
                setattr(cls, name, _with_abilities(value))

    def make(self, key_prefix: str, **options: Any) -> KVS:
        """Return a new driver; all drivers that one test makes use the same store.

        :param key_prefix: the prefix of the driver's keys.
        :param options: ``ttl`` and ``codec`` of :class:`~pyramid_kvs.kvs.KVS`, if they matter.
        """
        pytest.fail(
            f"{type(self).__name__} has no make(self, key_prefix, **options), which returns a "
            "driver, for example MyKVS('my', {...}, key_prefix, **options)",
            pytrace=False,
        )

    @pytest.fixture
    def new(self) -> Iterator[Make]:
        """Build drivers on the store under test, with a prefix that no other test uses."""
        start = f"{RUN}{next(_numbers)}::"
        built: list[KVS] = []

        def new(prefix: str = "", **options: Any) -> KVS:
            built.append(self._made(start + prefix, options))
            return built[-1]

        yield new
        for driver in built:
            with suppress(KVSNotSupported):
                driver.flush()
            driver.close()

    def _made(self, key_prefix: str, options: dict[str, Any]) -> KVS:
        driver = self.make(key_prefix, **options)
        if not isinstance(driver, KVS):
            self._wrong(f"returned {type(driver).__name__}, which is not a subclass of KVS")
        if driver.key_prefix != key_prefix.encode():
            self._wrong("did not give its key_prefix to the driver")
        if driver.ttl != options.get("ttl", 300):
            self._wrong("did not give its **options to the driver: ttl is missing")
        driver.initialize_schema()
        return driver

    def _wrong(self, reason: str) -> NoReturn:
        pytest.fail(f"{type(self).__name__}.make {reason}", pytrace=False)

    @pytest.fixture
    def kvs(self, new: Make) -> KVS:
        return new()

    def explain(self, error: KVSNotSupported) -> NoReturn:
        """Skip a test if the class says that the driver lacks something; else fail it."""
        lacking = [name for name in ABILITIES if not getattr(self, name)]
        if lacking:
            pytest.skip(f"{error} ({', '.join(f'{name} = False' for name in lacking)})")
        pytest.fail(f"{error}; {advice(type(self), ABILITIES)}", pytrace=False)


def advice(cls: type, names: Any) -> str:
    """Return what the author of a driver may do about abilities that it lacks."""
    found = (f"define {ABILITIES[name][1]} or say {name} = False" for name in names)
    return f"in the driver and in {cls.__name__}: {'; '.join(found)}"


def _with_abilities(test: Callable[..., None]) -> Callable[..., None]:
    """Return a test that is skipped where it needs what the driver lacks."""

    @functools.wraps(test)
    def run(self: Base, *args: Any, **kwargs: Any) -> None:
        __tracebackhide__ = True
        try:
            test(self, *args, **kwargs)
        except KVSNotSupported as error:
            self.explain(error)

    return run


def in_threads(count: int, work: Callable[[], T]) -> list[T]:
    """Run ``work`` in several threads that start together; return or raise what they did."""
    barrier = threading.Barrier(count)

    def run() -> T:
        barrier.wait(60)
        return work()

    with ThreadPoolExecutor(count) as executor:
        futures = [executor.submit(run) for _ in range(count)]
        return [future.result(120) for future in futures]

"""Kinto's cache interface on a driver."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any, TypeVar

from kinto.core.cache import CacheBase
from kinto.core.storage.exceptions import BackendError

from ..exceptions import CodecError, KVSError
from ..kvs import KVS, decode_key
from ..logs import ThrottledLog

MISSING = object()
T = TypeVar("T")

undecodable = ThrottledLog(logging.getLogger("pyramid_kvs.kinto"))


class Cache(CacheBase):
    """Values as JSON text at Kinto's prefix + key; each method is one call of the driver.

    :raises BackendError: from every method, when the store fails; ``original`` is the driver's
        :class:`~pyramid_kvs.exceptions.KVSError`.
    """

    def __init__(self, driver: KVS) -> None:
        super().__init__(cache_prefix=decode_key(driver.key_prefix))
        self._driver = driver

    def initialize_schema(self, dry_run: bool = False) -> None:
        """Create the tables on PostgreSQL; ``kinto migrate`` calls it."""
        self._ask(self._driver.initialize_schema, dry_run)

    def flush(self) -> None:
        """Remove all keys under the prefix, and no others."""
        self._ask(self._driver.flush)

    def ttl(self, key: str) -> float:
        """Return the seconds left; negative when the key is missing or never expires."""
        return self._ask(self._driver.ttl_of, key)

    def expire(self, key: str, ttl: float) -> None:
        """Set a new ttl. 0 or less removes the key. A missing key stays missing."""
        self._ask(self._driver.expire, key, checked_ttl(ttl))

    def set(self, key: str, value: Any, ttl: float) -> None:
        """Store a value; a ttl of 0 or less removes the key.

        :raises TypeError: the value cannot be written as JSON, or the ttl is not a number.
        """
        self._ask(self._driver.set, key, self._to_store(value, checked_ttl(ttl)), ttl)

    def get(self, key: str) -> Any:
        """Return the value, or ``None`` if the key is missing or its data are not JSON."""
        stored = self._ask(self._load, key)
        if stored is MISSING:
            self.metrics_backend.count_miss()
            return None
        self.metrics_backend.count_hit()
        return self._from_store(stored)

    def delete(self, key: str) -> Any:
        """Remove a key; return the value that was there, or ``None``, in one atomic step."""
        return self._from_store(self._ask(self._driver.delete, key))

    def _load(self, key: str) -> Any:
        try:
            return self._driver.get(key, MISSING)
        except CodecError:
            undecodable.warning("a value in Kinto's cache is not JSON; it counts as missing")
            return MISSING

    def _ask(self, call: Callable[..., T], *args: Any) -> T:
        try:
            return call(*args)
        except KVSError as error:
            raise BackendError(original=error) from error

    # -- the form in which a store keeps a value ------------------------------------------

    def _to_store(self, value: Any, ttl: float) -> Any:
        return value

    def _from_store(self, stored: Any) -> Any:
        return stored


def checked_ttl(ttl: Any) -> float:
    """Return a ttl that is a finite number.

    :raises TypeError: it is ``None``, a boolean, a string...
    :raises ValueError: it is infinite or NaN.
    """
    if isinstance(ttl, bool) or not isinstance(ttl, (int, float)):
        raise TypeError(f"ttl: found {ttl!r}, expected a number of seconds")
    if not math.isfinite(ttl):
        raise ValueError(f"ttl: found {ttl!r}, expected a finite number of seconds")
    return ttl

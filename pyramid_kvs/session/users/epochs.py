"""A number per user, for stores that cannot list keys or may drop any record."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any

from ...exceptions import CodecError, KVSNotSupported
from ...kvs import KVS
from ..records import EPOCH, USER, Record, number
from .base import MONTH, USER_KEY, UserSession


class UserEpochs:
    """A number per user. A session has ended if its number is lower or missing."""

    def __init__(self, driver: KVS) -> None:
        self._driver = driver
        self._ttl = None if driver.ttl is None else max(MONTH, 2 * driver.ttl)

    def enter(self, user: str, key: str, record: Record) -> Record:
        if EPOCH in record:
            return {}
        epoch = self._load(user)
        return {EPOCH: self.raise_to(user, self._now()) if epoch is None else epoch}

    def is_ended(self, record: Record) -> bool:
        if USER not in record:
            return False
        epoch, entered = self._load(record[USER]), record.get(EPOCH)
        return epoch is None or entered is None or entered < epoch

    def _load(self, user: str) -> int | None:
        stored = self._driver.raw_load(f"{USER_KEY}{user}", self._ttl)
        try:
            return None if stored is None else _epoch(self._driver.decode(stored.data))
        except CodecError:
            return None

    def is_stale(self, record: Record) -> bool:
        return False

    def all(self, user: str, current: Collection[str]) -> list[UserSession]:
        raise KVSNotSupported(f"the {self._driver.kvs} driver cannot list a user's sessions")

    def next(self, user: str) -> int:
        """Return an epoch that is higher than the epoch of every session."""
        return max(self._now(), (self._load(user) or 0) + 1)

    def end(self, user: str, which: Callable[[str], bool]) -> list[str]:
        raise KVSNotSupported(f"the {self._driver.kvs} driver can only end all sessions at once")

    def raise_to(self, user: str, epoch: int) -> int:
        """End all sessions with a lower epoch; return the epoch, which may have become higher."""

        def raised(value: Any) -> int:
            return max(epoch, _epoch(value) or 0)

        try:
            return self._driver.update(USER_KEY + user, raised, self._ttl)
        except CodecError:
            self._driver.delete(USER_KEY + user)
            return self._driver.update(USER_KEY + user, raised, self._ttl)

    @staticmethod
    def _now() -> int:
        return int(time.time() * 1_000_000)


def _epoch(value: Any) -> int | None:
    try:
        return int(number(value))
    except (ValueError, TypeError, ArithmeticError):
        return None

"""A number per user, for stores that cannot list keys or may drop any record."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ...exceptions import CodecError, KVSNotSupported
from ...kvs import KVS
from ..records import EPOCH, USER, Record, number
from ..state import Found
from .base import USER_KEY, Choice, UserSession

MONTH = 30 * 24 * 3600.0


class UserEpochs:
    """A number per user. A session has ended if its number is lower or missing.

    :param ttl: of the sessions that live longest.
    """

    refreshes = False

    def __init__(self, driver: KVS, ttl: float | None) -> None:
        self._driver = driver
        self._ttl = None if ttl is None else max(MONTH, 2 * ttl)

    def enter(self, user: str, key: str, record: Record, ttl: float | None = None) -> Record:
        if EPOCH in record:
            return {}
        epoch = self._load(user)
        return {EPOCH: self._begin(user) if epoch is None else epoch}

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

    def enter_again(
        self, found: Found, record: Record, ttl: float | None = None
    ) -> tuple[Found, Record]:
        return found, record

    def all(self, user: str, is_current: Choice) -> list[UserSession]:
        raise self._unsupported("list the sessions of a user")

    def surviving(self, user: str) -> Record:
        return {EPOCH: max(self._now(), (self._load(user) or 0) + 1)}

    def end_all(self, user: str, is_spared: Choice, surviving: Record) -> None:
        self._raise_to(user, surviving[EPOCH])

    def end(self, user: str, handle: str) -> dict[str, Record]:
        raise self._unsupported("end one session of a user")

    def _unsupported(self, operation: str) -> KVSNotSupported:
        return KVSNotSupported(
            f"the {self._driver.kvs} driver cannot {operation}: use end_sessions(), which ends all "
            "of them, or keep the sessions in another store"
        )

    def _begin(self, user: str) -> int:
        """Return the epoch of a user who has none, or the one that another login has begun."""
        now = self._now()
        return self._change(user, lambda epoch: epoch or now)

    def _raise_to(self, user: str, epoch: int) -> int:
        """End all sessions with a lower epoch; return the epoch, which may have become higher."""
        return self._change(user, lambda current: max(epoch, current or 0))

    def _change(self, user: str, change: Callable[[int | None], int]) -> int:
        def changed(value: Any) -> int:
            return change(_epoch(value))

        try:
            return self._driver.update(USER_KEY + user, changed, self._ttl)
        except CodecError:
            self._driver.delete(USER_KEY + user)
            return self._driver.update(USER_KEY + user, changed, self._ttl)

    @staticmethod
    def _now() -> int:
        return int(time.time() * 1_000_000)


def _epoch(value: Any) -> int | None:
    try:
        return int(number(value))
    except (ValueError, TypeError, ArithmeticError):
        return None

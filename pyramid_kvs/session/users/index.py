"""A record per user, which lists the keys of the user's sessions."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable
from typing import Any

from ...exceptions import CodecError
from ..records import ENTERED, USER, Record, created_at, number
from ..store import SessionStore
from .base import MONTH, USER_KEY, UserSession, handle_of

log = logging.getLogger("pyramid_kvs.session")

#: A key is listed before its session is saved. It stays listed without one for this many seconds.
_GRACE = 60.0
_PRUNE_EVERY = 16


class UserIndex:
    """A record per user, which maps the key of each session to the time when it was entered."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self._driver = driver = store.driver
        # The record outlives all sessions: after half of this time, a session is entered again.
        self._ttl = None if driver.ttl is None else max(MONTH, 2 * driver.ttl)

    def enter(self, user: str, key: str, record: Record) -> Record:
        now = time.time()
        entries = self._change(user, lambda entries: {**entries, key: now})
        if len(entries) % _PRUNE_EVERY == 0:
            self._forget(user, entries, set(self._live(user, entries)))
        return {ENTERED: int(now)}

    def is_ended(self, record: Record) -> bool:
        return False

    def is_stale(self, record: Record) -> bool:
        if self._ttl is None or USER not in record:
            return False
        entered = record.get(ENTERED)
        return entered is None or time.time() - entered > self._ttl / 2

    def all(self, user: str, current: Collection[str]) -> list[UserSession]:
        entries = self._load(user)
        live = self._live(user, entries)
        self._forget(user, entries, live)
        found = [self._describe(key, record, key in current) for key, record in live.items()]
        return sorted(found, key=lambda item: (item.last_seen or 0, item.created), reverse=True)

    def end(self, user: str, which: Callable[[str], bool]) -> list[str]:
        entries = self._load(user)
        live = self._live(user, entries)
        ended = [key for key in live if which(key)]
        self._driver.delete_many(ended)
        self._forget(user, entries, set(live) - set(ended), at_once=set(ended))
        return ended

    def _describe(self, key: str, record: Record, is_current: bool) -> UserSession:
        seen = None
        if self._driver.ttl is not None:
            left = self._driver.ttl_of(key)
            seen = int(time.time() - (self._driver.ttl - left)) if left > 0 else None
        return UserSession(handle_of(key), int(created_at(record) or 0), seen, is_current)

    def _load(self, user: str) -> dict[str, float]:
        stored = self._driver.raw_load(USER_KEY + user)
        return {} if stored is None else _entries(self._store.codec.decode(stored.data))

    def _live(self, user: str, keys: Iterable[str]) -> dict[str, Record]:
        found = self._driver.raw_load_many(list(keys))
        records = {
            key: self._store.codec.decode(stored.data) or {} for key, stored in found.items()
        }
        return {
            key: record
            for key, record in records.items()
            if record.get(USER) == user and not self._store.is_over(record)
        }

    def _forget(
        self,
        user: str,
        seen: dict[str, float],
        live: Collection[str],
        at_once: Collection[str] = (),
    ) -> None:
        """Remove dead sessions, but not sessions that another request will save next."""
        latest = time.time() - _GRACE
        dead = {
            key: entered
            for key, entered in seen.items()
            if key in at_once or (key not in live and entered < latest)
        }
        if dead:
            self._change(user, lambda now: {k: at for k, at in now.items() if dead.get(k) != at})

    def _change(
        self, user: str, change: Callable[[dict[str, float]], dict[str, float]]
    ) -> dict[str, float]:
        def changed(value: Any) -> dict[str, float] | None:
            return change(_entries(value)) or None

        key = USER_KEY + user
        try:
            return self._driver.update(key, changed, self._ttl) or {}
        except CodecError:
            log.warning("a user's list of sessions does not decode; a new one takes its place")
            self._driver.delete(key)
            return self._driver.update(key, changed, self._ttl) or {}


def _entries(value: Any) -> dict[str, float]:
    try:
        return {key: number(at) for key, at in value.items()}
    except (AttributeError, ValueError, TypeError, ArithmeticError):
        return {}

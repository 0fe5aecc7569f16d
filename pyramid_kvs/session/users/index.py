"""An index of the keys of each user's sessions."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable

from ...exceptions import KVSError, KVSNotSupported
from ...logs import ThrottledLog
from ..records import ENTERED, USER, Record, created_at
from ..state import Found
from ..store import SessionStore
from .base import Choice, UserSession, handle_of
from .shards import REFRESH, Entries, Shards

log = logging.getLogger("pyramid_kvs.session")

#: Without a ttl, sessions that have ended are looked for when a shard has a multiple of this many.
_PRUNE_EVERY = 16


class UserIndex:
    """Finds the sessions of a user in an index.

    A key is entered before its session is saved. A session in use is entered again once a minute,
    so that it is found even if the store has dropped the index. An old entry is therefore the
    entry of a session that has ended.
    """

    refreshes = True

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self._driver = store.driver
        self._ttl = store.absolute_ttl if store.driver.ttl is None else store.driver.ttl
        self._shards = Shards(store.driver, self._ttl)
        self._failed = ThrottledLog(log)

    # -- entering -------------------------------------------------------------------------

    def enter(self, user: str, key: str, record: Record, ttl: float | None = None) -> Record:
        def prune(entries: Entries) -> Entries:
            return self._pruned(user, entries)

        return {ENTERED: self._shards.enter(user, key, ttl or self._ttl, prune)}

    def _pruned(self, user: str, entries: Entries) -> Entries:
        if self._ttl is not None or (len(entries) + 1) % _PRUNE_EVERY:
            return self._shards.without_expired(entries)
        live, latest = self._live(user, entries), time.time() - REFRESH
        return {
            key: entry
            for key, entry in entries.items()
            if key in live or entry.entered > latest  # it may be saved next
        }

    def is_ended(self, record: Record) -> bool:
        return False

    def is_stale(self, record: Record) -> bool:
        return bool(abs(time.time() - record.get(ENTERED, 0)) > REFRESH)

    def enter_again(
        self, found: Found, record: Record, ttl: float | None = None
    ) -> tuple[Found, Record]:
        try:
            entered = {**record, **self.enter(record[USER], found.key, record, ttl)}
            replaced = self._store.replace(found, entered)
        except (KVSError, TypeError) as error:  # a page that only reads must not fail
            self._failed.warning(
                "a session was not entered again in the list of its user's sessions (%s); "
                "if the store has dropped the list, end_sessions does not find it",
                type(error).__name__,
            )
        else:
            if replaced is not None:
                return replaced, entered
        return found, record

    # -- listing and ending ---------------------------------------------------------------

    def all(self, user: str, is_current: Choice) -> list[UserSession]:
        entries = self._shards.load(user)
        live = self._live(user, entries)
        seen = self._last_seen(live, entries)
        found = [
            UserSession(
                handle_of(key), int(created_at(record) or 0), seen.get(key), is_current(key, record)
            )
            for key, record in live.items()
        ]
        return sorted(found, key=lambda item: (item.last_seen or 0, item.created), reverse=True)

    def _last_seen(self, keys: Collection[str], entries: Entries) -> dict[str, int]:
        if self._driver.ttl is None:
            return {}
        try:
            left = self._driver.raw_ttl_many(list(keys))
        except KVSNotSupported:  # by a third-party driver
            return {}
        now, found = time.time(), {}
        for key, seconds in left.items():
            ttl = entries[key].ttl if key in entries else self._ttl
            if seconds > 0 and ttl is not None:
                found[key] = int(min(now, now - ttl + seconds))
        return found

    def _live(self, user: str, keys: Iterable[str]) -> dict[str, Record]:
        return {
            key: record
            for key, record in self._store.records(keys).items()
            if record.get(USER) == user and not self._store.is_over(record)
        }

    def surviving(self, user: str) -> Record:
        return {}

    def end_all(self, user: str, is_spared: Choice, surviving: Record) -> dict[str, Record]:
        ended: dict[str, Record] = {}
        for _ in range(self._driver.update_attempts):
            live = self._live(user, self._shards.load(user).keys() - ended.keys())
            chosen = {key: found for key, found in live.items() if not is_spared(key, found)}
            if not chosen:
                break
            # If one of them has moved in the meantime, its new key is in the index by now, and the
            # next round finds it. If one moves later, its request finds that it has ended.
            self._driver.raw_delete_many(list(chosen))
            ended.update(chosen)
        return ended

    def end(self, user: str, handle: str) -> dict[str, Record]:
        chosen = [key for key in self._shards.load(user) if handle_of(key) == handle]
        ended = self._live(user, chosen)
        self._store.erase(ended)
        return ended

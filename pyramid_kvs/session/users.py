"""Which sessions belong to a user, so that all of them can be ended.

In most stores, a record per user lists the keys of the user's sessions. A memcached server can drop
any record at any time. It has a number per user instead, the epoch. To end all sessions of the
user, the epoch is raised, because a session with a lower epoch has ended.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple, Protocol

from ..exceptions import CodecError, KVSNotSupported
from ..kvs import KVS
from .records import META, USER, Record, created_at
from .store import SessionStore

log = logging.getLogger("pyramid_kvs.session")

ENTERED = META + "user_at"
EPOCH = META + "user_epoch"
_PREFIX = META + "user::"

_MONTH = 30 * 24 * 3600.0
#: A key is listed before its session is saved. It stays listed without one for this many seconds.
_GRACE = 60.0
_PRUNE_EVERY = 16


class UserSession(NamedTuple):
    """One live session of a user, for example for a page that lists the user's devices."""

    #: Identifies the session for :func:`end_session`. It is not the id, and gives no access.
    handle: str
    #: In seconds since 1970.
    created: int
    #: In seconds since 1970; ``None`` if sessions never expire.
    last_seen: int | None
    #: Whether it is the session of this request.
    is_current: bool


def user_digest(user_id: object) -> str:
    """Return the hash that identifies a user in the store.

    :raises TypeError: the id is neither a non-empty string nor an integer.
    """
    if isinstance(user_id, bool) or not isinstance(user_id, (str, int)) or user_id == "":
        raise TypeError(
            f"a user id is a non-empty string or an integer, not {type(user_id).__name__}"
        )
    return hashlib.sha256(str(user_id).encode("utf-8", "surrogatepass")).hexdigest()


def _handle(key: str) -> str:
    return hashlib.sha256(b"handle:" + key.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class Users(Protocol):
    """Finds the sessions of a user in a store."""

    def enter(self, user: str, key: str, record: Record) -> Record:
        """Add a session that will be saved next; return metadata to save with it."""

    def is_ended(self, record: Record) -> bool:
        """Return whether a session was ended together with others."""

    def is_stale(self, record: Record) -> bool:
        """Return whether a session that is in use must be entered again."""

    def all(self, user: str, current: Collection[str]) -> list[UserSession]:
        """Return the live sessions, the most recently used first."""

    def end(self, user: str, which: Callable[[str], bool]) -> list[str]:
        """End the sessions with the chosen keys; return their keys."""


class UserIndex:
    """A record per user, which maps the key of each session to the time when it was entered."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self._driver = driver = store.driver
        # The record outlives all sessions: after half of this time, a session is entered again.
        self._ttl = None if driver.ttl is None else max(_MONTH, 2 * driver.ttl)

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
        return not isinstance(entered, int) or time.time() - entered > self._ttl / 2

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
        return UserSession(_handle(key), int(created_at(record) or 0), seen, is_current)

    def _load(self, user: str) -> dict[str, float]:
        stored = self._driver.raw_load(_PREFIX + user)
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

        key = _PREFIX + user
        try:
            return self._driver.update(key, changed, self._ttl) or {}
        except CodecError:
            log.warning("a user's list of sessions does not decode; a new one takes its place")
            self._driver.delete(key)
            return self._driver.update(key, changed, self._ttl) or {}


def _entries(value: Any) -> dict[str, float]:
    if not isinstance(value, dict):
        return {}
    return {key: at for key, at in value.items() if isinstance(at, (int, float))}


class UserEpochs:
    """A number per user. A session has ended if its number is lower or missing."""

    def __init__(self, driver: KVS) -> None:
        self._driver = driver
        self._ttl = None if driver.ttl is None else max(_MONTH, 2 * driver.ttl)

    def enter(self, user: str, key: str, record: Record) -> Record:
        if EPOCH in record:
            return {}
        epoch = self._load(user)
        return {EPOCH: self.raise_to(user, self._now()) if epoch is None else epoch}

    def is_ended(self, record: Record) -> bool:
        if USER not in record:
            return False
        epoch, entered = self._load(record[USER]), record.get(EPOCH)
        return epoch is None or not isinstance(entered, int) or entered < epoch

    def _load(self, user: str) -> int | None:
        stored = self._driver.raw_load(f"{_PREFIX}{user}", self._ttl)
        try:
            epoch = None if stored is None else self._driver.decode(stored.data)
        except CodecError:
            return None
        return epoch if isinstance(epoch, int) else None

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
            return max(epoch, value) if isinstance(value, int) else epoch

        try:
            return self._driver.update(_PREFIX + user, raised, self._ttl)
        except CodecError:
            self._driver.delete(_PREFIX + user)
            return self._driver.update(_PREFIX + user, raised, self._ttl)

    @staticmethod
    def _now() -> int:
        return int(time.time() * 1_000_000)


def is_chosen(handle: str) -> Callable[[str], bool]:
    """Return a function that recognizes the key of a handle."""
    return lambda key: _handle(key) == handle


def users_of(store: SessionStore) -> Users:
    """Return the way in which a store finds the sessions of a user."""
    cannot_list = type(store.driver).get_keys is KVS.get_keys  # for example memcached
    return UserEpochs(store.driver) if cannot_list else UserIndex(store)

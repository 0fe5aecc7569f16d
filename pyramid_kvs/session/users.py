"""Which sessions belong to a user, so that all of them can be ended.

Where the store keeps what it is given, a record per user lists the keys of that user's sessions.
A memcached may drop any record at any time; there a number per user, the epoch, is raised to end
all sessions that carry a lower one.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple, Protocol

from ..exceptions import CodecError, KVSNotSupported
from ..kvs import KVS
from .merge import META, USER, Record
from .store import SessionStore, created_at

log = logging.getLogger("pyramid_kvs.session")

ENTERED = META + "user_at"
EPOCH = META + "user_epoch"
_PREFIX = META + "user::"

_MONTH = 30 * 24 * 3600.0
#: A key is listed before its session is saved. It stays listed for so many seconds without one.
_GRACE = 60.0
_PRUNE_EVERY = 16


class UserSession(NamedTuple):
    """One live session of a user, as a page "your devices" shows it."""

    #: Names the session for :func:`end_session`; it is not the id and gives no access.
    handle: str
    #: Seconds of the epoch.
    created: int
    #: Seconds of the epoch; ``None`` when sessions never expire, where it is not known.
    last_seen: int | None
    #: Whether it is the session of this very request.
    is_current: bool


def user_digest(user_id: object) -> str:
    """Return what stands for a user in the store.

    :raises TypeError: the id is neither a text nor a whole number.
    """
    if isinstance(user_id, bool) or not isinstance(user_id, (str, int)) or user_id == "":
        raise TypeError(f"a user id is a text or a whole number, not {type(user_id).__name__}")
    return hashlib.sha256(str(user_id).encode("utf-8", "surrogatepass")).hexdigest()


def _handle(key: str) -> str:
    return hashlib.sha256(b"handle:" + key.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class Users(Protocol):
    """How a store finds the sessions of a user."""

    def enter(self, user: str, key: str, record: Record) -> Record:
        """Note that a session is about to be saved; return metadata to save with it."""

    def is_ended(self, record: Record) -> bool:
        """Return whether a loaded session was ended together with others."""

    def is_stale(self, record: Record) -> bool:
        """Return whether a loaded session is to be entered again."""

    def all(self, user: str, current: Collection[str]) -> list[UserSession]:
        """Return the live sessions, the latest used first."""

    def end(self, user: str, which: Callable[[str], bool]) -> list[str]:
        """End those sessions whose key is chosen; return their keys."""


class UserIndex:
    """A record per user: session key -> when it was entered."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self._driver = driver = store.driver
        # It outlives every session: one that is older than half of it is entered again.
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
        return {} if stored is None else _entries(self._store.decode(stored.data))

    def _live(self, user: str, keys: Iterable[str]) -> dict[str, Record]:
        found = self._driver.raw_load_many(list(keys))
        records = {key: self._store.decode(stored.data) or {} for key, stored in found.items()}
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
        """Strike out dead sessions, but none that another request is just about to save."""
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
    """A number per user: sessions that carry a lower one are over, as are those without it."""

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
        """Return an epoch that is higher than that of every session."""
        return max(self._now(), (self._load(user) or 0) + 1)

    def end(self, user: str, which: Callable[[str], bool]) -> list[str]:
        raise KVSNotSupported(f"the {self._driver.kvs} driver can only end all sessions at once")

    def raise_to(self, user: str, epoch: int) -> int:
        """End all sessions of a lower epoch; return the epoch, which may be higher still."""

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
    """Return a test for the key that a handle names."""
    return lambda key: _handle(key) == handle

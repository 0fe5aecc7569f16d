"""The index of a user's sessions in the store: some records, each with a part of the keys.

A login rewrites one of them, which stays small even if the user has thousands of sessions.
"""

from __future__ import annotations

import logging
import time
import zlib
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeAlias

from ...exceptions import CodecError, KVSConflict
from ...kvs import KVS, Stored, encode_key, pause
from ...logs import ThrottledLog
from ..records import number
from .base import USER_KEY

log = logging.getLogger("pyramid_kvs.session")

#: The number of records for each user. The keys of stored sessions depend on it.
SHARDS = 32
#: A session in use is entered again after this many seconds.
REFRESH = 60.0
#: An entry is dead this many seconds after the ttl of a session that was last used just before
#: it was due to be entered again, and on a server whose clock is late.
MARGIN = 2 * REFRESH


class Entry(NamedTuple):
    """What the index says of a session."""

    #: When it was entered, in seconds since 1970.
    entered: float
    #: Its ttl; ``None`` if sessions never expire.
    ttl: float | None


Entries: TypeAlias = "dict[str, Entry]"
Change: TypeAlias = "Callable[[Entries], Entries]"


class Shards:
    """Reads and changes the indexes of users.

    :param ttl: of sessions that are entered without another one.
    """

    def __init__(self, driver: KVS, ttl: float | None) -> None:
        self._driver = driver
        self._ttl = ttl
        self._undecodable = ThrottledLog(log)

    def load(self, user: str) -> Entries:
        """Return the entries of a user, also of sessions that have ended."""
        found = self._driver.raw_load_many([f"{USER_KEY}{user}::{n}" for n in range(SHARDS)])
        entries: Entries = {}
        for stored in found.values():
            entries.update(self._entries(stored))
        return entries

    def enter(self, user: str, key: str, ttl: float | None, prune: Change) -> float:
        """Add a session, or give its entry the present time, which is returned.

        :param prune: removes entries of ended sessions.
        """
        now = int(time.time())
        self._change(_shard(user, key), lambda found: {**prune(found), key: Entry(now, ttl)})
        return now

    def without_expired(self, entries: Entries) -> Entries:
        """Return the entries that may be those of live sessions, by their age alone."""
        now = time.time()
        return {
            key: entry
            for key, entry in entries.items()
            if entry.ttl is None or now - entry.entered < entry.ttl + MARGIN
        }

    def _change(self, key: str, change: Change) -> None:
        driver = self._driver
        stored = driver.raw_load(key)
        for attempt in range(driver.update_attempts):
            entries = change(self._entries(stored))
            swap = driver.raw_swap(key, stored, self._data(entries), _lifetime(entries.values()))
            if swap.done:
                return
            stored = swap.current
            pause(attempt)
        raise KVSConflict("other requests changed the list of a user's sessions again and again")

    def _data(self, entries: Entries) -> str | bytes:
        return self._driver.encode(
            {
                key: entered if ttl == self._ttl else [entered, ttl]
                for key, (entered, ttl) in entries.items()
            }
        )

    def _entries(self, stored: Stored | None) -> Entries:
        if stored is None:
            return {}
        try:
            found = self._driver.decode(stored.data)
            return {key: self._entry(value) for key, value in found.items()}
        except (CodecError, AttributeError, ValueError, TypeError, ArithmeticError):
            self._undecodable.warning(
                "a part of a user's list of sessions does not decode; a new one takes its place"
            )
            return {}

    def _entry(self, value: object) -> Entry:
        if not isinstance(value, list):
            return Entry(number(value), self._ttl)
        entered, ttl = value
        return Entry(number(entered), None if ttl is None else number(ttl))


def _shard(user: str, key: str) -> str:
    return f"{USER_KEY}{user}::{zlib.crc32(encode_key(key)) % SHARDS}"


def _lifetime(entries: Iterable[Entry]) -> float | None:
    """Return the ttl of a shard, which outlives the sessions that it lists."""
    now, latest = time.time(), 0.0
    for entered, ttl in entries:
        if ttl is None:
            return None
        latest = max(latest, entered + ttl)
    return max(MARGIN, latest + MARGIN - now)

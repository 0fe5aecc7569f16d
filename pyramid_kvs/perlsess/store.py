"""Loads and saves the sessions of a Perl application."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import replace

from ..exceptions import CodecError, KVSConflict, KVSNotSupported
from ..kvs import KVS, Stored, pause
from ..logs import fingerprint
from ..web.failures import FailedSaves
from .formats import Wrapping
from .records import Changes, Record, Records, Values
from .settings import SETTING

log = logging.getLogger("pyramid_kvs.perlsess")

#: How often a save is tried while other writers are faster.
SAVE_ATTEMPTS = 50


class PerlSessionStore:
    """Loads and saves the sessions of a Perl application.

    :param records: reads and edits the stored data.
    :param key_format: the key of a session; ``{id}`` is replaced by its id.
    :param renews: whether each save sets the driver's ttl. Otherwise a session keeps its remaining
        lifetime.
    """

    def __init__(self, driver: KVS, records: Records, key_format: str, renews: bool) -> None:
        self._driver = driver
        self._records = records
        self._key_format = key_format
        self._renews = renews
        self.failed_saves = FailedSaves(log, "a Perl session")

    def load(self, session_id: str) -> Record | None:
        """Return a stored session. If there is none, log the reason and return ``None``."""
        stored = self._driver.raw_load(self._key(session_id))
        if stored is None:
            _warn(session_id, "the store has no such session")
            return None
        return self._read(session_id, stored)

    def _read(self, session_id: str, stored: Stored) -> Record | None:
        try:
            record = self._records.read(stored)
        except CodecError as error:
            _warn(session_id, f"it cannot be decoded: {error}")
            return None
        if record.is_expired(time.time()):
            _warn(session_id, "it has expired, as Perl's module noted in it")
            return None
        return record

    def read_again(self, record: Record) -> Values:
        """Return the values of a record as they were when it was loaded."""
        return self._records.read_again(record)

    def save(self, session_id: str, record: Record, changes: Changes) -> None:
        """Store the changes. Changes that others made to other keys in the meantime are kept.

        :param record: the session as it was loaded.
        :raises StorableError: Perl cannot represent a value, or a changed value contains something
            that Python cannot represent.
        :raises KVSConflict: others changed the session during each attempt.
        :raises KVSUnavailable: the store is unavailable.
        """
        key = self._key(session_id)
        ttl = self._ttl(key)
        for attempt in range(SAVE_ATTEMPTS):
            data, flags = self._records.edit(record, changes, self._wrapping(record, ttl))
            swap = self._driver.raw_swap(key, record.stored, data, ttl, flags)
            if swap.done:
                return
            current = swap.current and self._read(session_id, swap.current)
            if current is None:
                _warn(session_id, "it was removed during the request, so its changes are dropped")
                return
            record, changes = current, replace(changes, mutated=set())
            pause(attempt)
        raise KVSConflict(f"the Perl session changed {SAVE_ATTEMPTS} times during one save")

    def _wrapping(self, record: Record, ttl: float | None) -> Wrapping:
        return record.wrapping.renewed(time.time(), ttl) if self._renews else record.wrapping

    def _ttl(self, key: str) -> float | None:
        """Return the ttl that a save sets, in whole seconds, which Perl's clients can read."""
        ttl = self._driver.ttl if self._renews else self._remaining(key)
        return None if ttl is None else max(math.ceil(ttl), 1)

    def _remaining(self, key: str) -> float | None:
        try:
            left = self._driver.raw_ttl(key)
        except KVSNotSupported as error:
            raise KVSNotSupported(
                f"{error}: write a ttl into the setting {SETTING}, which each save then sets"
            ) from error
        return left if left >= 0 else None

    def _key(self, session_id: str) -> str:
        return self._key_format.replace("{id}", session_id)


def _warn(session_id: str, message: str) -> None:
    log.warning("perlsess: session %s: %s", fingerprint(session_id), message)

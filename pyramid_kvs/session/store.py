"""Sessions in the store: where they lie, how they are loaded, and how they are saved.

A save is a compare-and-set against what the request loaded. Where another request was quicker,
its changes are merged with this one's, and the save tries again.
"""

from __future__ import annotations

import hashlib
import logging
import math
import re
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..exceptions import CodecError, KVSConflict, SessionTooLarge, ValueTooLarge
from ..kvs import KVS, Stored, Swap, pause
from ..logs import fingerprint
from ..serializer import Data, as_bytes
from .merge import (
    CREATED,
    META,
    USER,
    Changes,
    Record,
    difference,
    merge,
    refuse_conflict,
)

log = logging.getLogger("pyramid_kvs.session")

_HASHED = "sha256:"
#: A token of this form would be the key of another session once tokens are hashed.
LOOKS_HASHED = re.compile(_HASHED + r"[0-9a-f]{64}")


class SessionKeys:
    """Turns the id or token of a request into the keys under which its session may lie.

    :param hash_keys: ``False``: as it is; ``True``: hashed; ``"accept"`` and ``"migrate"``
        are the steps between, see ``docs/sessions.rst``.
    """

    def __init__(self, hash_keys: bool | str) -> None:
        self._order = {
            False: (self.plain,),
            "accept": (self.plain, self.hashed),
            "migrate": (self.hashed, self.plain),
            True: (self.hashed,),
        }[hash_keys]
        self.moves = hash_keys == "migrate"

    def all(self, scope: str, secret: str) -> list[str]:
        """Return the keys to look under, that of new sessions first.

        :param scope: ``"header-name::"``; empty for cookies.
        :param secret: the id or token.
        """
        return [place(scope, secret) for place in self._order]

    def home(self, scope: str, secret: str) -> str:
        """Return the key of a new session."""
        return self._order[0](scope, secret)

    @staticmethod
    def plain(scope: str, secret: str) -> str:
        return scope + secret

    @staticmethod
    def hashed(scope: str, secret: str) -> str:
        digest = hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
        return f"{scope}{_HASHED if scope else ''}{digest}"


class Loaded(NamedTuple):
    """A session as it was found: its key, what a swap compares, and its record."""

    key: str
    stored: Stored
    record: Record


class Save(NamedTuple):
    """What a request wants to save."""

    key: str
    #: The data that the changes are relative to; ``None``: there was none.
    base: Data | None
    #: The whole record, as it is to be if nobody else wrote.
    record: Record
    changes: Changes
    #: Whether an empty place is expected, and does not mean that the session was ended.
    may_be_absent: bool = False


class Written(NamedTuple):
    """A session as it was saved: its data (``None``: removed), and whether none was there."""

    data: Data | None
    record: Record
    is_new: bool


class SessionStore:
    """Loads and saves session records with one driver.

    :param options: the checked options of ``kvs.session``.
    """

    def __init__(self, driver: KVS, options: Mapping[str, Any]) -> None:
        self.driver = driver
        self.ttl: float | None = options["ttl"]
        self.dumps = driver.codec.dumps
        self.absolute_ttl: float | None = options["absolute_ttl"]
        self._max_bytes: int = options["max_bytes"]
        self._on_conflict: str = options["on_conflict"]
        self._prefix = len(driver.key_prefix)

    # -- loading --------------------------------------------------------------------------

    def load(self, keys: list[str], preloaded: tuple[str, Stored | None] | None) -> Loaded | None:
        """Return the session that lies under the first of the keys that has one.

        Reading gives it its whole ttl again, in the same round trip.

        :param preloaded: a key and what ``raw_load`` gave for it in this request.
        """
        for key in keys:
            found = self._look(key, preloaded)
            if found is not None:
                return found
        # Between the two looks another request may have moved it.
        return self._look(keys[0], None) if len(keys) > 1 else None

    def _look(self, key: str, preloaded: tuple[str, Stored | None] | None) -> Loaded | None:
        if preloaded is not None and preloaded[0] == key:
            stored = preloaded[1]
        else:
            stored = self.driver.raw_load(key, self.ttl)
        if stored is None:
            return None
        record = self.decode(stored.data)
        if record is None:
            log.warning(
                "the stored session %s does not decode; a new one takes its place", fingerprint(key)
            )
        return None if record is None else Loaded(key, stored, record)

    def decode(self, data: Data) -> Record | None:
        """Return the record of stored data, or ``None`` when it is none."""
        try:
            record = self.driver.codec.loads(data)
        except CodecError:
            return None
        return record if isinstance(record, dict) else None

    def is_over(self, record: Record) -> bool:
        """Return whether a session is older than ``absolute_ttl`` allows."""
        if self.absolute_ttl is None:
            return False
        created = created_at(record)
        return created is not None and time.time() - created >= self.absolute_ttl

    # -- saving ---------------------------------------------------------------------------

    def write(self, save: Save, loaded: Stored | None) -> Written | None:
        """Save a session by compare-and-set, merging with what others saved meanwhile.

        :param loaded: what stands at the key as far as is known.
        :returns: ``None`` if the session was ended meanwhile: nothing was written.
        :raises TypeError: the codec cannot write a value; names its key.
        :raises SessionTooLarge: see ``max_bytes``.
        :raises SessionConflict: another request changed the same key, and may not lose it.
        :raises KVSConflict: others wrote again and again.
        """
        is_first = (loaded and loaded.data) == save.base
        for attempt in range(self.driver.update_attempts):
            record = save.record if is_first else self._merged(save, loaded)
            if record is None:
                return None
            # A session emptied key by key stays: a slower request would take it for ended.
            is_kept = not save.changes.is_cleared and (save.base or loaded) is not None
            data = self.encode(save.key, record) if is_kept or not _is_empty(record) else None
            if _is_same(data, loaded):
                return Written(data, record, is_new=data is None)
            swap = self._swap(save.key, loaded, data, record)
            if swap.done:
                return Written(data, record, is_new=loaded is None)
            loaded, is_first = swap.current, False
            pause(attempt)
        raise KVSConflict("other requests changed the session again and again during one save")

    def _swap(self, key: str, loaded: Stored | None, data: Data | None, record: Record) -> Swap:
        try:
            return self.driver.raw_swap(key, loaded, data, self._life(record))
        except ValueTooLarge as error:
            raise self._too_large(record, f"is too large for the store ({error})") from error

    def _life(self, record: Record) -> float | None:
        """Return the ttl of a record; one that would never expire goes by ``absolute_ttl``."""
        if self.ttl is not None or self.absolute_ttl is None:
            return self.ttl
        now = time.time()
        return max(1.0, self.absolute_ttl - now + (created_at(record) or now))

    def _merged(self, save: Save, loaded: Stored | None) -> Record | None:
        """Return the record to write over ``loaded``, or ``None``: the session was ended."""
        theirs = None if loaded is None else self.decode(loaded.data)
        if not theirs and (save.base is None or (save.may_be_absent and loaded is None)):
            return save.record
        before = self._before(save)
        if theirs is None or _is_ended(before, theirs):
            _log_dropped(save.key)
            return None
        if self._on_conflict == "overwrite":
            return {**save.record, **{key: theirs[key] for key in (CREATED,) if key in theirs}}
        if self._on_conflict == "raise":
            refuse_conflict(before, save.changes, theirs, self.dumps)
        return merge(before, save.changes, theirs, self.dumps)

    def _before(self, save: Save) -> Record:
        return (None if save.base is None else self.decode(save.base)) or {}

    # -- moving to another key ------------------------------------------------------------

    def move(self, save: Save, old: Loaded, there: Stored | None = None) -> Written | None:
        """Save a session under a new key, and remove it from the old one.

        The new record is written before the old one goes, so that a crash between the two
        loses no session. What others saved under the old key meanwhile comes along.

        :param save: its ``base`` is the data of ``old``.
        :param there: what another request that moves the same session has put there.
        :returns: ``None`` if the session was ended meanwhile: nothing is left of it.
        """
        if not _is_same(save.base, old.stored):
            save = self._rebased(save, old)
        written = self.write(save._replace(may_be_absent=True), there)
        if written is None or not written.is_new:
            # The request that came first removes the old record. Were both to do so, neither
            # could tell the other's removal from a logout.
            return written
        current = old.stored
        for attempt in range(self.driver.update_attempts):
            swap = self.driver.raw_swap(old.key, current, None, None)
            if swap.done:
                return written
            merged = self._merged(save._replace(key=old.key), swap.current)
            if merged is None or swap.current is None:
                self.driver.raw_delete(save.key)
                return None
            caught_up = self._catch_up(save.key, written, merged)
            if caught_up is None:
                return None
            written, current = caught_up, swap.current
            pause(attempt)
        raise KVSConflict("other requests changed the session again and again during its move")

    def _rebased(self, save: Save, old: Loaded) -> Save:
        """Return a save relative to what others made of the session since this request's last."""
        record = merge(self._before(save), save.changes, old.record, self.dumps)
        changes = difference(old.record, record, self.dumps)
        return save._replace(base=old.stored.data, record=record, changes=changes)

    def _catch_up(self, key: str, written: Written, record: Record) -> Written | None:
        """Bring what was saved under the old key meanwhile to the new one."""
        changes = difference(written.record, record, self.dumps)
        return self.write(Save(key, written.data, record, changes), self.driver.raw_load(key))

    def find_moved(self, key: str, record: Record) -> Stored | None:
        """Return what a parallel request moved to a token; remove any other session there."""
        there = self.driver.raw_load(key)
        theirs = None if there is None else self.decode(there.data)
        if there is None or (theirs and record.get(CREATED) == theirs.get(CREATED)):
            return there
        self.driver.raw_delete(key)
        return None

    # -- data -----------------------------------------------------------------------------

    def encode(self, key: str, record: Record) -> Data:
        """Return the data of a record."""
        try:
            data = self.dumps(record)
        except Exception as error:
            raise self._unwritable(record, error) from error
        size = len(data) if isinstance(data, bytes) or data.isascii() else len(as_bytes(data))
        if size + len(key) + self._prefix > self._max_bytes:
            raise self._too_large(
                record, f"has {size} bytes, more than {self._max_bytes} (max_bytes) less its key"
            )
        return data

    def _unwritable(self, record: Record, error: Exception) -> TypeError:
        for key, value in record.items():
            if not self._is_writable(key, value):
                return TypeError(
                    f"session key {key!r}: the codec cannot write this "
                    f"{type(value).__name__}: {error}"
                )
        return TypeError(f"the codec cannot write the session: {error}")

    def _is_writable(self, key: str, value: Any) -> bool:
        try:
            self.dumps({key: value})
        except Exception:  # noqa: BLE001  # each codec has errors of its own
            return False
        return True

    def _too_large(self, record: Record, problem: str) -> SessionTooLarge:
        sizes = {key: len(self.dumps({key: value})) for key, value in record.items()}
        largest = sorted(sizes, key=lambda key: -sizes[key])[:3]
        shown = ", ".join(f"{key!r} ({sizes[key]} bytes)" for key in largest)
        return SessionTooLarge(f"the session {problem}; its largest keys: {shown}")


def created_at(record: Record) -> float | None:
    """Return when a session began, in seconds of the epoch, or ``None`` where it is not told."""
    created: Any = record.get(CREATED)
    if type(created) in (int, float) and math.isfinite(created):
        return float(created)
    return None


def _is_empty(record: Record) -> bool:
    return all(name[:6] == META and name != USER for name in record)


def _is_same(data: Data | None, loaded: Stored | None) -> bool:
    if data is None or loaded is None:
        return data is None and loaded is None
    return as_bytes(data) == as_bytes(loaded.data)


def _is_ended(before: Record, theirs: Record) -> bool:
    """Return whether what stands there is no continuation of what was loaded.

    1.0's logout stores ``{}``. Under a header's token a new session may have begun since; where
    the beginning is missing, a 1.0 worker wrote the record that it had loaded before.
    """
    if before and not theirs:
        return True
    return CREATED in before and theirs.get(CREATED, before[CREATED]) != before[CREATED]


def _log_dropped(key: str) -> None:
    """Say in one line that changes were dropped."""
    log.warning(
        "session %s was ended while a request was using it; the request's changes are dropped",
        fingerprint(key),
    )

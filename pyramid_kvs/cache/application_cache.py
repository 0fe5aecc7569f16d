"""The application's cache: a mapping-like view of a store."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from ..exceptions import CodecError, KVSUnavailable
from ..forks import ProcessLock
from ..kvs import KVS, Data
from ..logs import ThrottledLog

__all__ = ["ApplicationCache"]

T = TypeVar("T")
log = logging.getLogger("pyramid_kvs.cache")

_MISSING = object()
_UNREADABLE = object()


class _Creation:
    """A value that a thread is computing; ``data`` is what it stored."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self.waited = False
        self.data: Data | None = None


class ApplicationCache:
    """A mapping-like view of a store; ``client`` is the driver.

    A value that does not decode counts as missing, with one warning that names its key.

    ``on_error`` says what happens while the store is unavailable. With ``"miss"``, reads find
    nothing, and writes and deletes are dropped, which is logged once a minute. ``add``, ``incr``
    and ``decr`` raise, because their callers rely on the answer. With ``"raise"``, every method
    raises ``KVSUnavailable``.
    """

    def __init__(self, client: KVS, on_error: str = "miss") -> None:
        self.client = client
        self._raises = on_error == "raise"
        self._unavailable = ThrottledLog(log)
        #: By process and key: a child process does not wait for threads of its parent.
        self._creating: dict[tuple[int, str], _Creation] = {}
        self._creating_lock = ProcessLock()

    # -- a mapping ------------------------------------------------------------------------

    def __getitem__(self, key: str) -> Any:
        return self.get(key)

    def __setitem__(self, key: str, value: Any) -> None:
        self.set(key, value)

    def __delitem__(self, key: str) -> None:
        try:
            existed = self.client.raw_delete(key) is not None
        except KVSUnavailable as error:
            self._dropped(error)
            return
        if not existed:
            raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._read(key, _MISSING) is not _MISSING

    def get(self, key: str | None, default: Any = None) -> Any:
        """Return the value; ``default`` if the key is missing or ``None``."""
        return default if key is None else self._read(key, default)

    def set(self, key: str, value: Any, ttl: float | None = None) -> None:
        """Store a value for ``ttl`` seconds; ``None`` means the ttl of the setting."""
        try:
            self.client.set(key, value, ttl)
        except KVSUnavailable as error:
            self._dropped(error)

    def pop(self, key: str, default: Any = None) -> Any:
        """Remove a key; return the value that was there, or ``default``."""
        try:
            data = self.client.raw_delete(key)
        except KVSUnavailable as error:
            self._dropped(error)
            return default
        return default if data is None else self._decoded(key, data, default)

    def list_keys(self, pattern: str = "*") -> list[str]:
        """Return the keys that match; only ``*`` and ``?`` are special."""
        return self._try([], self.client.get_keys, pattern)

    # -- the other operations -------------------------------------------------------------

    def add(self, key: str, value: Any, ttl: float | None = None) -> bool:
        """Store a value if the key is absent; return whether it was."""
        return self.client.add(key, value, ttl)

    def delete(self, key: str) -> Any:
        """Remove a key; return the value that was there, or ``None``."""
        return self.pop(key)

    def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """Return the values of several keys, without the missing ones, in one round trip."""
        wanted = list(keys)
        found: dict[str, Data] = {}
        if wanted:
            found = self._try(found, self.client.raw_get_many, wanted)
        values = ((key, self._decoded(key, data, _MISSING)) for key, data in found.items())
        return {key: value for key, value in values if value is not _MISSING}

    def set_many(self, mapping: Mapping[str, Any], ttl: float | None = None) -> None:
        """Store several values, in one round trip."""
        self._try(None, self.client.set_many, mapping, ttl)

    def delete_many(self, keys: Iterable[str]) -> None:
        """Remove several keys, in one round trip."""
        self._try(None, self.client.delete_many, keys)

    def incr(self, key: str, delta: int = 1, ttl: float | None = None) -> int:
        """Add to a counter; see :meth:`pyramid_kvs.kvs.KVS.incr`."""
        return self.client.incr(key, delta, ttl)

    def decr(self, key: str, delta: int = 1, ttl: float | None = None) -> int:
        """Subtract from a counter."""
        return self.client.decr(key, delta, ttl)

    def ttl(self, key: str) -> float:
        """Return the seconds left; negative if the key is missing or never expires."""
        return self._try(-1.0, self.client.ttl_of, key)

    def expire(self, key: str, ttl: float | None) -> bool:
        """Give a key a new ttl; 0 or less removes it; return whether the key was there."""
        return self._try(False, self.client.expire, key, ttl)

    def flush(self) -> None:
        """Remove all keys of this cache, and no others."""
        self._try(None, self.client.flush)

    def get_or_create(self, key: str, creator: Callable[[], T], ttl: float | None = None) -> T:
        """Return the value; if it is missing, compute, store and return it.

        :param creator: takes no argument. In one process it runs once at a time for a key.
            Other threads that ask for the key wait and get its result. If it raised, the next
            thread tries. ``None`` is stored like any other value. If the store was unavailable
            for the read, nothing is written.
        """
        value = self._read(key, _MISSING, _UNREADABLE)
        if value is _MISSING or value is _UNREADABLE:
            return self._create(key, creator, ttl, value)
        return value  # type: ignore[no-any-return]

    def _create(self, key: str, creator: Callable[[], T], ttl: float | None, found: Any) -> T:
        with self._creation(key) as creation:
            if creation.data is not None:
                return self.client.decode(creation.data)  # type: ignore[no-any-return]
            if creation.waited and found is _MISSING:
                found = self._read(key, _MISSING, _UNREADABLE)
            if not (found is _MISSING or found is _UNREADABLE):
                return found  # type: ignore[no-any-return]
            value = creator()
            creation.data = self.client.encode(value)
            if found is _MISSING:  # a store that could not be read would only cost a timeout
                self.set(key, value, ttl)
            return value

    @contextmanager
    def _creation(self, key: str) -> Iterator[_Creation]:
        """Hold the creation of a key that is in progress in this process."""
        running = os.getpid(), key
        with self._creating_lock:
            creation = self._creating.setdefault(running, _Creation())
            creation.users += 1
        try:
            creation.waited = not creation.lock.acquire(blocking=False)
            if creation.waited:
                creation.lock.acquire()
            try:
                yield creation
            finally:
                creation.lock.release()
        finally:
            with self._creating_lock:
                creation.users -= 1
                if not creation.users:
                    del self._creating[running]

    # -- failures -------------------------------------------------------------------------

    def _try(self, default: T, operation: Callable[..., T], *args: Any) -> T:
        try:
            return operation(*args)
        except KVSUnavailable as error:
            self._dropped(error)
            return default

    def _read(self, key: str, default: Any, unreadable: Any = None) -> Any:
        """Return the value at a key.

        :param default: if there is none.
        :param unreadable: if the store is unavailable; ``None`` means ``default``.
        """
        try:
            data = self.client.raw_get(key)
        except KVSUnavailable as error:
            self._dropped(error)
            return default if unreadable is None else unreadable
        return default if data is None else self._decoded(key, data, default)

    def _decoded(self, key: str, data: Any, default: Any) -> Any:
        try:
            return self.client.decode(data)
        except CodecError as error:
            log.warning("cache key %r: %s; it counts as missing", key, error)
            return default

    def _dropped(self, error: KVSUnavailable) -> None:
        if self._raises:
            raise error
        self._unavailable.warning(
            "the store of the cache is unavailable, requests go on without it: %s", error
        )

"""The application's cache: a mapping-like view of a store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any, TypeVar

from ..exceptions import CodecError, KVSUnavailable
from ..kvs import CLAIM_KEY, KVS, Data
from ..kvs.stored import checked_ttl
from .creating import WAIT, Creating
from .creations import Creations, runs
from .seconds import duration, ttl_seconds
from .store import Store

__all__ = ["ApplicationCache"]

T = TypeVar("T")

#: A ttl in seconds, or ``None`` for the ttl of the setting.
TTL = float | timedelta | None

_MISSING = object()


class ApplicationCache:
    """A mapping-like view of a store; ``client`` is the driver.

    A value that does not decode counts as missing, with one warning that names its key. A value
    that the codec cannot write raises ``TypeError``, which names the key too.

    A ``ttl`` is a number of seconds, a ``datetime.timedelta``, or ``None`` for the ttl of the
    setting.

    ``on_error`` says what happens while the store is unavailable. With ``"miss"``, reads find
    nothing, and writes and deletes are dropped, which is logged once a minute. ``add``, ``incr``
    and ``decr`` raise, because their callers rely on the answer. With ``"raise"``, every method
    raises ``KVSUnavailable``.
    """

    def __init__(self, client: KVS, on_error: str = "miss") -> None:
        self.client = client
        self._store = Store(client, on_error)
        self._creations = Creations()

    # -- a mapping ------------------------------------------------------------------------

    def __getitem__(self, key: str) -> Any:
        return self.get(key)

    def __setitem__(self, key: str, value: Any) -> None:
        self.set(key, value)

    def __delitem__(self, key: str) -> None:
        try:
            existed = self.client.raw_delete(key) is not None
        except KVSUnavailable as error:
            self._store.drop(error)
            return
        if not existed:
            raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._store.read(key, _MISSING) is not _MISSING

    def get(self, key: str | None, default: Any = None) -> Any:
        """Return the value; ``default`` if the key is missing or ``None``."""
        return default if key is None else self._store.read(key, default)

    def set(self, key: str, value: Any, ttl: TTL = None) -> None:
        """Store a value for ``ttl`` seconds; 0 or less removes the key."""
        try:
            self.client.set(key, value, ttl if type(ttl) is int else ttl_seconds(ttl))
        except KVSUnavailable as error:
            self._store.drop(error)
        except Exception:  # a codec may raise anything
            self._store.check_codec({key: value})
            raise

    def pop(self, key: str, default: Any = None) -> Any:
        """Remove a key; return the value that was there, or ``default``."""
        data = self._store.attempt(None, self.client.raw_delete, key)
        return default if data is None else self._store.decode(key, data, default)

    def list_keys(self, pattern: str = "*") -> list[str]:
        """Return the keys that match; only ``*`` and ``?`` are special."""
        none: list[str] = []
        keys = self._store.attempt(none, self.client.get_keys, pattern)
        return [key for key in keys if not key.startswith(CLAIM_KEY)]

    # -- the other operations -------------------------------------------------------------

    def add(self, key: str, value: Any, ttl: TTL = None) -> bool:
        """Store a value if the key is absent; return whether it was."""
        try:
            return self.client.add(key, value, ttl_seconds(ttl))
        except Exception:  # a codec may raise anything
            self._store.check_codec({key: value})
            raise

    def delete(self, key: str) -> Any:
        """Remove a key; return the value that was there, or ``None``."""
        return self.pop(key)

    def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """Return the values of several keys, without the missing ones, in one round trip."""
        wanted = list(keys)
        found: dict[str, Data] = {}
        if wanted:
            found = self._store.attempt(found, self.client.raw_get_many, wanted)
        values = ((key, self._store.decode(key, data, _MISSING)) for key, data in found.items())
        return {key: value for key, value in values if value is not _MISSING}

    def set_many(self, mapping: Mapping[str, Any], ttl: TTL = None) -> None:
        """Store several values, in one round trip."""
        try:
            self.client.set_many(mapping, ttl_seconds(ttl))
        except KVSUnavailable as error:
            self._store.drop(error)
        except Exception:  # a codec may raise anything
            self._store.check_codec(mapping)
            raise

    def delete_many(self, keys: Iterable[str]) -> None:
        """Remove several keys, in one round trip."""
        self._store.attempt(None, self.client.delete_many, keys)

    def incr(self, key: str, delta: int = 1, ttl: TTL = None) -> int:
        """Add to a counter; see :meth:`pyramid_kvs.kvs.KVS.incr`."""
        return self.client.incr(key, delta, ttl_seconds(ttl))

    def decr(self, key: str, delta: int = 1, ttl: TTL = None) -> int:
        """Subtract from a counter."""
        return self.client.decr(key, delta, ttl_seconds(ttl))

    def ttl(self, key: str) -> float:
        """Return the seconds that the store keeps the value for, ``stale`` included.

        It is negative if the key is missing or never expires.
        """
        return self._store.attempt(-1.0, self.client.ttl_of, key)

    def expire(self, key: str, ttl: TTL) -> bool:
        """Give a key a new ttl; 0 or less removes it; return whether the key was there."""
        return self._store.attempt(False, self.client.expire, key, ttl_seconds(ttl))

    def flush(self) -> None:
        """Remove all keys of this cache, and no others."""
        self._store.attempt(None, self.client.flush)

    def get_or_create(
        self,
        key: str,
        creator: Callable[[], T],
        ttl: TTL = None,
        *,
        stale: float | timedelta = 0,
        wait: float | timedelta = WAIT,
    ) -> T:
        """Return the value; if it is missing, compute, store and return it.

        :param creator: takes no argument. One caller at a time runs it for a key, among all
            processes that use the store. ``None`` is stored like any other value.
        :param stale: the number of seconds for which a value is kept after its ``ttl``. The first
            caller after the ttl computes a new value, and the others get the old one. If the
            creator fails, its caller gets the old value too, and nobody calls it for 5 seconds.
        :param wait: how long other callers wait for the value, in seconds. Then they call their
            creator. The claim of the caller that computes lives as long, or 10 seconds if it is 0.
        :raises RuntimeError: the creator of this key asked for it.
        :raises TypeError: the codec cannot write the value; or an argument is not a duration.
        :raises ValueError: an argument is NaN; or ``stale`` or ``wait`` is negative or too long.
        """
        if ttl is not None and type(ttl) is not int:
            ttl = ttl_seconds(ttl)
        if type(stale) is not int or stale < 0:
            stale = duration("stale", stale)
        if type(wait) is not int or wait < 0:
            wait = duration("wait", wait)
        if runs.get():
            self._creations.refuse_own_key(key)
        claim, data, is_readable = None, None, True
        try:
            if stale:
                claim = self.client.raw_claim(key, stale, wait or WAIT, False)
                data = claim.data
            else:
                data = self.client.raw_get(key)
        except KVSUnavailable as error:
            self._store.drop(error)
            is_readable = False
        if data is not None and (claim is None or claim.owner is None):
            try:
                return self.client.decode(data)  # type: ignore[no-any-return]
            except CodecError as error:
                self._store.log_undecodable(key, error)
        ttl = self.client.ttl if ttl is None else checked_ttl(ttl)
        creating = Creating(self._store, self._creations, key, creator, ttl, stale, wait)
        if claim is not None and claim.owner is not None:
            return creating.replace(claim)  # type: ignore[no-any-return]
        return creating.create(is_readable)  # type: ignore[no-any-return]

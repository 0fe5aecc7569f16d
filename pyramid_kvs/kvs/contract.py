"""The driver contract: operations on values, the same on every driver."""

from __future__ import annotations

import operator
import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from ..exceptions import CodecError, KVSConflict, KVSError, KVSNotSupported
from ..forks import ProcessLock
from ..messages import quoted
from ..serializer import Codec, as_bytes, checked, serializer
from . import names, old_hooks
from .hooks import Hooks
from .stored import checked_ttl, encode_key, pause

T = TypeVar("T")

#: The beginning of the keys of :meth:`KVS.check`, and their ttl in seconds.
CHECK_KEY = "__kvs_check-"
CHECK_TTL = 10


class KVS(Hooks):
    """A key-value store behind one set of operations; the base of all drivers.

    The public methods take and return values. A driver defines ``_create_client(**kwargs)`` and
    those :class:`~pyramid_kvs.kvs.hooks.Hooks` (``raw_*``) that its store does better than the
    defaults. A driver never sees a value, and a codec never sees a connection.

    The defaults need only ``raw_get``, ``raw_set`` and ``delete``, or a client that has
    ``get(k)``, ``set(k, value, ttl)`` and ``delete(k)``.

    :param kvs: the driver's name.
    :param kvs_kwargs: arguments of the driver's client.
    :param key_prefix: put before every key.
    :param ttl: default lifetime of a value in seconds; ``None`` means no expiry.
    :param codec: the name of a codec, or a codec.
    """

    def __new__(cls, kvs: str = "", *args: Any, **kwargs: Any) -> KVS:
        found = driver_class(kvs) if cls is KVS else cls
        return object.__new__(found.class_for(_kvs_kwargs(*args, **kwargs)))

    def __init__(
        self,
        kvs: str = "",
        kvs_kwargs: Mapping[str, Any] | None = None,
        key_prefix: str | bytes = "",
        ttl: float | None = 300,
        codec: str | Codec = "json",
    ) -> None:
        self.kvs = kvs
        self.ttl = ttl
        self.key_prefix = key_prefix if isinstance(key_prefix, bytes) else encode_key(key_prefix)
        self.codec = serializer(codec) if isinstance(codec, str) else checked(codec)
        self._loads = self.codec.loads
        self._dumps = self.codec.dumps
        self._default_lock = ProcessLock()
        #: Until when this process does not ask for the claim of a key, by ``time.monotonic()``.
        self._claims_asked_for: dict[str, float] = {}
        self._checks: list[Callable[[], None]] = []
        self._client = self._create_client(**dict(kvs_kwargs or {}))

    @classmethod
    def class_for(cls, kvs_kwargs: Mapping[str, Any]) -> type[KVS]:
        """Return the class for these arguments of the client: this one, or a subclass of it."""
        return cls

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        old_hooks.adapt(cls, KVS)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.kvs!r} prefix={self.key_prefix!r}>"

    # -- values ---------------------------------------------------------------------------

    def get(self, key: str | None, default: Any = None) -> Any:
        """Return the value; ``default`` if the key is missing, expired or ``None``.

        :raises CodecError: the stored data does not decode.
        """
        if key is None:
            return default
        data = self.raw_get(key)
        return default if data is None else self.decode(data)

    def set(self, key: str, value: Any, ttl: float | None = None) -> None:
        """Store a value; a ttl of 0 or less removes the key.

        :raises TypeError: the codec cannot write the value.
        :raises ValueTooLarge: the store cannot take it.
        """
        dumps = self._dumps
        data = dumps(value)
        ttl = self.ttl if ttl is None else checked_ttl(ttl)
        if ttl is not None and ttl <= 0:
            self.raw_delete(key)
        else:
            self.raw_set(key, data, ttl)

    def add(self, key: str, value: Any, ttl: float | None = None) -> bool:
        """Store a value if the key is absent, in one atomic step; return whether it was."""
        data = self._dumps(value)
        ttl = self.ttl if ttl is None else checked_ttl(ttl)
        if ttl is not None and ttl <= 0:
            return self.raw_load(key) is None
        return self.raw_add(key, data, ttl)

    def delete(self, key: str) -> Any:
        """Remove a key; return the value that was there, or ``None``."""
        data = self.raw_delete(key)
        return None if data is None else self._decode_removed(data)

    def _decode_removed(self, data: Any) -> Any:
        try:
            return self.decode(data)
        except CodecError:
            return None

    def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """Return the values of several keys, without the missing ones."""
        wanted = list(keys)
        found = self.raw_get_many(wanted) if wanted else {}
        return {key: self.decode(data) for key, data in found.items()}

    def set_many(self, mapping: Mapping[str, Any], ttl: float | None = None) -> None:
        """Store several values; all are encoded before the first one is sent."""
        dumped = {key: self._dumps(value) for key, value in mapping.items()}
        ttl = self.ttl if ttl is None else checked_ttl(ttl)
        if ttl is not None and ttl <= 0:
            self.raw_delete_many(list(dumped))
        elif dumped:
            self.raw_set_many(dumped, ttl)

    def delete_many(self, keys: Iterable[str]) -> None:
        """Remove several keys; missing ones are ignored."""
        wanted = list(keys)
        if wanted:
            self.raw_delete_many(wanted)

    def incr(self, key: str, delta: int = 1, ttl: float | None = None) -> int:
        """Add to a counter and return the new count, in one atomic step.

        The first call creates the counter and starts its ttl. Later calls leave the ttl alone,
        but give a counter without expiry one. A count may be negative.

        :param ttl: lifetime of a new counter; ``None`` means the driver's ttl.
        :raises TypeError: ``delta`` is not an integer.
        :raises KVSError: the value at this key is not an integer.
        :raises KVSUnavailable: the store did not answer; the count may or may not have changed.
        """
        ttl = self.ttl if ttl is None else checked_ttl(ttl)
        if ttl is not None and ttl <= 0:
            raise ValueError(f"ttl: found {ttl!r}, expected more than 0 seconds for a counter")
        return self.raw_incr(key, int(operator.index(delta)), ttl)

    def decr(self, key: str, delta: int = 1, ttl: float | None = None) -> int:
        """Subtract from a counter; see :meth:`incr`."""
        return self.incr(key, -delta, ttl)

    def ttl_of(self, key: str) -> float:
        """Return the seconds left; negative if the key is missing or never expires."""
        return self.raw_ttl(key)

    def expire(self, key: str, ttl: float | None) -> bool:
        """Give a key a new ttl; 0 or less removes it; return whether the key was there.

        :param ttl: ``None`` means the driver's ttl.
        """
        ttl = self.ttl if ttl is None else checked_ttl(ttl)
        if ttl is not None and ttl <= 0:
            return self.raw_delete(key) is not None
        return self.raw_expire(key, ttl)

    def update(self, key: str, change: Callable[[Any], T], ttl: float | None = None) -> T:
        """Change a value by an atomic read-modify-write; return the new value.

        :param change: gets the value or ``None`` and returns the new value; ``None`` removes the
            key. It runs again after each conflict, so it must have no other effect.
        :raises KVSConflict: other writers changed the key ``update_attempts`` times.
        """
        ttl = self.ttl if ttl is None else checked_ttl(ttl)
        removes = ttl is not None and ttl <= 0
        stored = self.raw_load(key)
        for attempt in range(self.update_attempts):
            value = change(None if stored is None else self.decode(stored.data))
            data = None if value is None or removes else self._dumps(value)
            if data is None and stored is None:
                return value
            swap = self.raw_swap(key, stored, data, ttl)
            if swap.done:
                return value
            stored = swap.current
            pause(attempt)
        raise KVSConflict(f"the key changed {self.update_attempts} times during one update")

    # -- the store ------------------------------------------------------------------------

    def get_keys(self, pattern: str = "*") -> list[str]:
        """Return the keys that match, without the prefix; only ``*`` and ``?`` are special."""
        raise KVSNotSupported(f"the {self.kvs} driver cannot list keys")

    def flush(self) -> None:
        """Remove all keys under this driver's prefix, and no others."""
        self.delete_many(self.get_keys("*"))

    def initialize_schema(self, dry_run: bool = False) -> None:
        """Create what the store needs; a second call changes nothing.

        :param dry_run: log what would be done, and do nothing.
        """

    def ping(self) -> bool:
        """Return whether the store can serve this application; never raises. See :meth:`check`."""
        try:
            self.check()
        except Exception:  # noqa: BLE001 (a client may raise anything)
            return False
        return True

    def check(self) -> None:
        """Raise the reason if the store cannot serve this application.

        Does what cache, sessions and limits need, with keys that exist for a few seconds: write,
        read, renew, compare and set, count, remove. So a store that is full, read-only or without
        its table does not pass, and neither does a user without permission for one of these.

        :raises KVSError: the reason.
        """
        for key in self._check_keys():
            self._check_key(key)
        for check in self._checks:
            check()

    def check_nodes(self) -> dict[str, str | None]:
        """Return what :meth:`check` says of each server, if the store consists of several.

        :returns: host and port of a server, and the reason why it cannot serve, or ``None``.
        """
        return {}

    def add_check(self, check: Callable[[], None]) -> None:
        """Have :meth:`check` call a function too, which does what only one feature needs."""
        self._checks.append(check)

    def _check_keys(self) -> Iterable[str]:
        """Return unused keys for :meth:`check`, on each server one."""
        return [CHECK_KEY + secrets.token_hex(8)]

    def _check_key(self, key: str) -> None:
        self.raw_set(key, "1", CHECK_TTL)
        stored = self.raw_load(key, CHECK_TTL)
        if stored is None or as_bytes(stored.data) != b"1":
            raise KVSError("a value that was just stored is not there")
        if not self.raw_swap(key, stored, "2", CHECK_TTL).done:
            raise KVSError("a value that was just stored has changed")
        if self.raw_incr(key, 1, CHECK_TTL) != 3:
            raise KVSError("a counter that was just stored has another count")
        self.raw_delete(key)

    def close(self) -> None:
        """Close the connections; a later call opens new ones."""


def _kvs_kwargs(
    kvs_kwargs: Mapping[str, Any] | None = None, *args: Any, **kwargs: Any
) -> Mapping[str, Any]:
    return kvs_kwargs or {}


def driver_class(name: str, extra: Mapping[str, type | str] | None = None) -> type[KVS]:
    """Return the class of the named driver, importing it on first use.

    :param extra: drivers that take precedence over those of the process, by name.
    :raises UnknownDriver: a ``LookupError`` that lists the known names.
    :raises DriverNotInstalled: an ``ImportError`` that says which package to install.
    :raises TypeError: the name is that of something other than a driver.
    """
    loaded = names.load(name, extra)
    if not (isinstance(loaded, type) and issubclass(loaded, KVS)):
        raise TypeError(
            f"driver {quoted(name)} is {quoted(loaded)}, not a subclass of pyramid_kvs.kvs.KVS"
        )
    return loaded

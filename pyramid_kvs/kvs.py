"""The driver contract, and the drivers by name.

``KVS(name, ...)`` builds the named driver, and every driver is an instance of :class:`KVS`. The
public methods take and give values; the hooks that a driver defines (``raw_*``) take and give
stored data. Bytes below, objects above: a driver never sees a value, a codec never a socket.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import operator
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any, NamedTuple, TypeVar

from . import limit_swaps
from .exceptions import CodecError, KVSConflict, KVSError, KVSNotSupported
from .limits import Hit, LimitCheck
from .serializer import Codec, Data, checked, serializer

__all__ = ["KVS", "Data", "Stored", "Swap", "driver_class", "driver_names", "register"]

T = TypeVar("T")
Number = re.compile(r"-?[0-9]{1,40}")


class Stored(NamedTuple):
    """What a store holds at a key: the data, what a swap compares, and memcached's flags."""

    data: Data
    token: Any = None
    flags: int = 0


class Swap(NamedTuple):
    """How a compare-and-set ended; when it is not done, ``current`` is what stands there now."""

    done: bool
    current: Stored | None = None


DONE = Swap(True)


class _NoClient:
    """Stands where a driver defines no ``_create_client``."""

    def __init__(self, driver: str) -> None:
        self._driver = driver

    def __getattr__(self, name: str) -> Any:
        raise KVSNotSupported(
            f"{self._driver} defines no _create_client(**kwargs), nor the hook that needs no client"
        )


class KVS:
    """A key-value store behind one set of operations; the base of all drivers.

    A driver defines ``_create_client(**kwargs)`` and those ``raw_*`` hooks that its store does
    better than the defaults here. Hooks get the key as text without the prefix, the ttl in
    seconds (above 0; ``None``: never expires), and data as the codec made it (``str`` for json).

    The defaults need only ``raw_get``, ``raw_set`` and ``delete`` of the driver, or a client
    with ``get(k)``, ``set(k, value, ttl)`` and ``delete(k)``. They are atomic among the threads
    of one process, not among processes.

    :param kvs: name of the driver.
    :param kvs_kwargs: passed to the driver's client.
    :param key_prefix: put before every key.
    :param ttl: default life of a value in seconds; ``None``: for ever.
    :param codec: name of a codec, or a codec.
    """

    #: How often ``update`` tries before it gives up with ``KVSConflict``.
    update_attempts = 200

    _client: Any

    def __new__(cls, kvs: str = "", *args: Any, **kwargs: Any) -> KVS:
        return object.__new__(driver_class(kvs) if cls is KVS else cls)

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
        self._default_lock = threading.RLock()
        self._removing = False
        self._client = self._create_client(**dict(kvs_kwargs or {}))

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _adapt_old_hooks(cls)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.kvs!r} prefix={self.key_prefix!r}>"

    # -- values ---------------------------------------------------------------------------

    def get(self, key: str | None, default: Any = None) -> Any:
        """Return the value, or ``default`` when the key is missing, expired or ``None``.

        :raises CodecError: what is stored does not decode.
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
        data = self._dumps(value)
        ttl = self.ttl if ttl is None else ttl
        if ttl is not None and ttl <= 0:
            self.raw_delete(key)
        else:
            self.raw_set(key, data, ttl)

    def add(self, key: str, value: Any, ttl: float | None = None) -> bool:
        """Store a value if the key is absent, in one atomic step; return whether it did."""
        data = self._dumps(value)
        ttl = self.ttl if ttl is None else ttl
        if ttl is not None and ttl <= 0:
            return self.raw_load(key) is None
        return self.raw_add(key, data, ttl)

    def delete(self, key: str) -> Any:
        """Remove a key; return the value that was there, or ``None``."""
        data = self.raw_delete(key)
        return None if data is None else self._decode_removed(data)

    def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """Return the values of those keys that are there."""
        wanted = list(keys)
        found = self.raw_get_many(wanted) if wanted else {}
        return {key: self.decode(data) for key, data in found.items()}

    def set_many(self, mapping: Mapping[str, Any], ttl: float | None = None) -> None:
        """Store several values; all are encoded before the first is sent."""
        dumped = {key: self._dumps(value) for key, value in mapping.items()}
        ttl = self.ttl if ttl is None else ttl
        if ttl is not None and ttl <= 0:
            self.raw_delete_many(list(dumped))
        elif dumped:
            self.raw_set_many(dumped, ttl)

    def delete_many(self, keys: Iterable[str]) -> None:
        """Remove several keys; missing ones do not matter."""
        wanted = list(keys)
        if wanted:
            self.raw_delete_many(wanted)

    def incr(self, key: str, delta: int = 1, ttl: float | None = None) -> int:
        """Add to a counter and return the new count, in one atomic step.

        The first call makes the counter and starts its clock; later calls leave the clock
        alone, but give a counter found without expiry its ttl. It may go below zero.

        :param ttl: life of a new counter; ``None``: the driver's own.
        :raises TypeError: ``delta`` is no whole number.
        :raises KVSError: what stands at the key is none.
        :raises KVSUnavailable: the store did not answer; the count may or may not have moved.
        """
        ttl = self.ttl if ttl is None else ttl
        if ttl is not None and ttl <= 0:
            raise ValueError(f"ttl {ttl!r}: a counter lives for more than 0 seconds")
        return self.raw_incr(key, int(operator.index(delta)), ttl)

    def decr(self, key: str, delta: int = 1, ttl: float | None = None) -> int:
        """Subtract from a counter; see :meth:`incr`."""
        return self.incr(key, -delta, ttl)

    def ttl_of(self, key: str) -> float:
        """Return the seconds left; negative when the key is missing or never expires."""
        return self.raw_ttl(key)

    def expire(self, key: str, ttl: float | None) -> bool:
        """Give a key a new ttl; 0 or less removes it; return whether the key was there.

        :param ttl: ``None``: the driver's own.
        """
        ttl = self.ttl if ttl is None else ttl
        if ttl is not None and ttl <= 0:
            return self.raw_delete(key) is not None
        return self.raw_expire(key, ttl)

    def update(self, key: str, change: Callable[[Any], T], ttl: float | None = None) -> T:
        """Change a value by an atomic read-modify-write; return the new value.

        :param change: gets the value or ``None``, returns the new one; ``None`` removes the
            key. It runs again after each conflict, so it must have no other effect.
        :raises KVSConflict: others changed the key ``update_attempts`` times meanwhile.
        """
        ttl = self.ttl if ttl is None else ttl
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
        """Create what the store needs; running it again changes nothing.

        :param dry_run: log what would be done, and do nothing.
        """

    def ping(self) -> bool:
        """Return whether the store answers; never raises."""
        try:
            self.raw_get("__kvs_ping")
        except Exception:  # noqa: BLE001 (whatever a client raises: it does not answer)
            return False
        return True

    def close(self) -> None:
        """Give the connections back; a later call opens them again."""

    # -- hooks: stored data ---------------------------------------------------------------

    def _create_client(self, **kwargs: Any) -> Any:
        """Return the client library's object, made from ``kvs_kwargs``; opens no connection.

        A driver without one keeps its data itself, by its own ``raw_*`` hooks and ``delete``.
        """
        return _NoClient(type(self).__name__)

    @classmethod
    def client_arguments(cls) -> frozenset[str]:
        """Return the names that ``kvs_kwargs`` may have, as far as they are known."""
        return named_parameters(cls._create_client) - {"self"}

    def raw_get(self, key: str, default: Any = None) -> Any:
        """Return the stored data, or ``default``."""
        data = self._client.get(self._get_key(key))
        return default if data is None else data

    def raw_set(self, key: str, value: Any, ttl: float | None) -> None:
        """Store data."""
        self._client.set(self._get_key(key), value, ttl)

    def raw_add(self, key: str, data: Data, ttl: float | None) -> bool:
        """Store data if the key is absent; return whether it did."""
        return self.raw_swap(key, None, data, ttl).done

    def raw_delete(self, key: str) -> Data | None:
        """Remove a key; return the data that was there."""
        with self._default_lock:
            if self._removing:  # an old driver's delete() that calls super().delete()
                self._remove(key)
                return None
            data: Data | None = self.raw_get(key)
            if data is not None:
                self._removing = True
                try:
                    self._remove(key)
                finally:
                    self._removing = False
            return data

    def _remove(self, key: str) -> None:
        self._client.delete(self._get_key(key))

    def raw_get_many(self, keys: list[str]) -> dict[str, Data]:
        """Return the data of those keys that are there."""
        found = ((key, self.raw_get(key)) for key in keys)
        return {key: data for key, data in found if data is not None}

    def raw_set_many(self, mapping: Mapping[str, Data], ttl: float | None) -> None:
        """Store several."""
        for key, data in mapping.items():
            self.raw_set(key, data, ttl)

    def raw_delete_many(self, keys: list[str]) -> None:
        """Remove several keys."""
        for key in keys:
            self.raw_delete(key)

    def raw_incr(self, key: str, delta: int, ttl: float | None) -> int:
        """Add to a counter, which is stored as decimal text; see :meth:`incr`."""
        with self._default_lock:
            stored = self.raw_load(key)
            count = (0 if stored is None else self._count(stored.data)) + delta
            left = -1.0 if stored is None else self._ttl_or_none(key)
            self.raw_set(key, str(count), left if left > 0 else ttl)
            return count

    def raw_ttl(self, key: str) -> float:
        """Return the seconds left, negative when missing or without expiry."""
        raise KVSNotSupported(f"the {self.kvs} driver cannot tell the ttl of a key")

    def raw_expire(self, key: str, ttl: float | None) -> bool:
        """Give a key a new ttl (``None``: never expires); return whether it was there."""
        with self._default_lock:
            stored = self.raw_load(key)
            if stored is not None:
                self.raw_set(key, stored.data, ttl)
            return stored is not None

    def raw_load(self, key: str, renew: float | None = None) -> Stored | None:
        """Return what a later :meth:`raw_swap` can compare with.

        :param renew: a new ttl that the read gives to the key, in the same round trip.
        """
        if renew is not None:
            return self._load_renewed(key, renew)
        data = self.raw_get(key)
        return None if data is None else Stored(data)

    def _load_renewed(self, key: str, ttl: float) -> Stored | None:
        with self._default_lock:
            data = self.raw_get(key)
            if data is None:
                return None
            self.raw_set(key, data, ttl)
            return Stored(data)

    def raw_load_many(self, keys: list[str]) -> dict[str, Stored]:
        """Return :meth:`raw_load` of several keys, without the missing."""
        found = ((key, self.raw_load(key)) for key in keys)
        return {key: stored for key, stored in found if stored is not None}

    def raw_swap(
        self,
        key: str,
        old: Stored | None,
        data: Data | None,
        ttl: float | None,
        flags: int | None = None,
    ) -> Swap:
        """Replace what was loaded by ``data``, unless somebody else changed it meanwhile.

        :param old: what :meth:`raw_load` or an earlier swap gave; ``None``: the key was absent.
        :param data: ``None`` removes the key.
        :param flags: memcached's flags to write; ``None``: those that suit the data.
        """
        with self._default_lock:
            current = self.raw_load(key)
            if (current and current.data) != (old and old.data):
                return Swap(False, current)
            if data is None:
                self._remove(key)
            else:
                self.raw_set(key, data, ttl)
            return DONE

    def raw_swap_many(
        self, swaps: list[tuple[str, Stored | None, Data, float | None]]
    ) -> list[Swap]:
        """Run several swaps, each by itself: (key, old, data, ttl); one round trip if it can be."""
        return [self.raw_swap(*swap) for swap in swaps]

    def raw_load_session(
        self, session_key: str | None, renew: float | None, keys: list[str]
    ) -> tuple[Stored | None, dict[str, Stored]]:
        """Load a session, and renew its ttl, with some other keys; one round trip if it can be."""
        session = None if session_key is None else self.raw_load(session_key, renew)
        return session, self.raw_load_many(keys) if keys else {}

    def raw_hit(
        self, checks: Sequence[LimitCheck], session_key: str | None, renew: float | None
    ) -> Hit:
        """Count one request against several limits: all of them let it in, or none counts it.

        :param session_key: the session whose being known decides where a check counts.
        :param renew: a new ttl for that session, if it is known.
        """
        return limit_swaps.hit(self, checks, session_key, renew, pause)

    # -- for drivers ----------------------------------------------------------------------

    def _get_key(self, key: str) -> bytes:
        """Return prefix + key, as bytes."""
        return self.key_prefix + encode_key(key)

    def encode(self, value: Any) -> Data:
        """Return the data to store for a value.

        :raises TypeError: the codec cannot write it.
        """
        return self._dumps(value)

    def decode(self, data: Any) -> Any:
        """Return the value of stored data; a counter's digits are a number in every codec.

        :raises CodecError: it does not decode.
        """
        if isinstance(data, int):  # of a client that has numbers
            return data
        try:
            return self._loads(data)
        except CodecError:
            text = data if isinstance(data, str) else data.decode("latin-1")
            if Number.fullmatch(text):
                return int(text)
            raise

    def _decode_removed(self, data: Any) -> Any:
        try:
            return self.decode(data)
        except CodecError:
            return None

    def _count(self, data: Any) -> int:
        if isinstance(data, int):
            return data
        text = data if isinstance(data, str) else data.decode("latin-1")
        if not Number.fullmatch(text):
            raise KVSError("what stands at the key is no whole number")
        return int(text)

    def _ttl_or_none(self, key: str) -> float:
        try:
            return self.raw_ttl(key)
        except KVSNotSupported:
            return -1.0


def encode_key(key: str) -> bytes:
    """Return the bytes of a key: UTF-8, lone surrogates included.

    :raises TypeError: the key is no text.
    """
    if not isinstance(key, str):
        raise TypeError(f"a key is text (str), not {type(key).__name__}")
    return key.encode("utf-8", "surrogatepass")


def decode_key(full_key: bytes) -> str:
    """Return the text of a key that :func:`encode_key` made."""
    return full_key.decode("utf-8", "surrogatepass")


def key_pattern(pattern: str) -> re.Pattern[str]:
    """Return the regular expression of a ``get_keys`` pattern: ``*`` and ``?`` are special."""
    parts = {"*": ".*", "?": "."}
    return re.compile("".join(parts.get(c) or re.escape(c) for c in pattern), re.DOTALL)


def pause(attempt: int) -> None:
    """Wait a random moment after a conflict, longer with each attempt, at most 20 ms."""
    if attempt > 0:
        time.sleep(random.uniform(0, min(0.02, 0.0005 * 2 ** min(attempt, 10))))


# -- drivers written for 1.0 -----------------------------------------------------------------


def _adapt_old_hooks(cls: type[KVS]) -> None:
    """Give 1.0's ``delete``, ``incr`` and ``get_keys`` the results and arguments of today."""
    defined = vars(cls)
    adapted: dict[str, Any] = {}
    if "delete" in defined and cls.raw_delete is KVS.raw_delete:
        adapted.update(_remove=_old_remove(defined["delete"], cls._remove), delete=KVS.delete)
    if "incr" in defined and "ttl" not in _parameters(defined["incr"]):
        adapted.update(raw_incr=_old_incr(defined["incr"], cls.raw_incr), incr=KVS.incr)
    pattern = _parameters(defined["get_keys"]).get("pattern") if "get_keys" in defined else None
    if pattern and pattern.default is pattern.empty:
        adapted.update(get_keys=_old_get_keys(defined["get_keys"]))
    for name, value in adapted.items():
        setattr(cls, name, value)


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(function).parameters


def _old_remove(
    delete: Callable[..., Any], default: Callable[[KVS, str], None]
) -> Callable[[KVS, str], None]:
    @functools.wraps(delete)
    def remove(self: KVS, key: str) -> None:
        delete(self, key)

    return _unless_inside(remove, default)


def _old_incr(
    incr: Callable[..., Any], default: Callable[..., int]
) -> Callable[[KVS, str, int, float | None], int]:
    @functools.wraps(incr)
    def raw_incr(self: KVS, key: str, delta: int, ttl: float | None) -> int:
        if delta == 1 and ttl == self.ttl:
            return int(incr(self, key))
        return default(self, key, delta, ttl)

    return _unless_inside(raw_incr, default)


def _old_get_keys(get_keys: Callable[[KVS, str], list[str]]) -> Callable[..., list[str]]:
    @functools.wraps(get_keys)
    def with_default(self: KVS, pattern: str = "*") -> list[str]:
        return get_keys(self, pattern)

    return with_default


def _unless_inside(hook: Callable[..., T], default: Callable[..., T]) -> Callable[..., T]:
    """Return the hook, for which ``default`` stands in while it runs.

    ``super().incr(key)`` in an old hook comes back to the hook by way of the public method.
    """
    running = threading.local()

    @functools.wraps(hook)
    def call(self: KVS, *args: Any) -> T:
        drivers = running.__dict__.setdefault("drivers", set())
        if id(self) in drivers:
            return default(self, *args)
        drivers.add(id(self))
        try:
            return hook(self, *args)
        finally:
            drivers.discard(id(self))

    return call


# -- drivers by name -------------------------------------------------------------------------

ENTRY_POINTS = "pyramid_kvs.drivers"

_BUILT_IN: dict[str, str] = {
    "memcache": "pyramid_kvs.drivers.memcache:MemcacheKVS",
    "memory": "pyramid_kvs.drivers.memory:MemoryKVS",
    "postgresql": "pyramid_kvs.drivers.postgresql:PostgresqlKVS",
    "redis": "pyramid_kvs.drivers.redis:RedisKVS",
}
_ALIASES = {"memcached": "memcache"}
_INSTALL = {
    "memcache": "python-memcached",
    "postgresql": "pyramid_kvs[postgresql]",
    "redis": "redis",
}
_registered: dict[str, type[KVS] | str] = {}


class UnknownDriver(LookupError):
    """No driver has the name; the message lists those that there are."""


class DriverNotInstalled(ImportError):
    """A driver's client library is missing; the message says what to install."""


def register(name: str, driver_class: type[KVS] | str) -> None:
    """Make a driver known under a name, in this process.

    :param driver_class: a subclass of :class:`KVS`, or ``"package.module:Class"``, which is
        imported on first use.
    """
    _registered[name] = driver_class


def driver_names(extra: Mapping[str, object] | None = None) -> list[str]:
    """Return the names of all known drivers, sorted, without aliases."""
    plugins = {point.name for point in entry_points(group=ENTRY_POINTS)}
    return sorted({*_BUILT_IN, *_registered, *plugins, *(extra or ())})


def canonical_name(name: str) -> str:
    """Return the name that an alias stands for."""
    return _ALIASES.get(name, name)


def driver_class(name: str, extra: Mapping[str, type[KVS] | str] | None = None) -> type[KVS]:
    """Return the class of the named driver, importing it on first use.

    :param extra: drivers that count before the process's own, by name.
    :raises UnknownDriver: a ``LookupError`` that lists the known names.
    :raises DriverNotInstalled: an ``ImportError`` that says which ``pip install`` mends it.
    """
    for known in (extra or {}, _registered):
        if name in known:
            return _resolve(name, known[name])
    built_in = canonical_name(name)
    if built_in in _BUILT_IN:
        return _resolve(built_in, _BUILT_IN[built_in])
    for point in entry_points(group=ENTRY_POINTS, name=name):
        return _resolve(name, point.value)
    raise UnknownDriver(unknown_name("driver", name, driver_names(extra)))


def unknown_name(kind: str, name: object, known: list[str]) -> str:
    """Return the message for a name that is not known, with the closest match."""
    hint = closest(name, known)
    if kind == "driver" and name == "mock":
        hint = "; 'mock' comes with pyramid.includes = pyramid_kvs.testing"
    return f"unknown {kind} {name!r} (known: {', '.join(known)}{hint})"


def named_parameters(function: Callable[..., Any]) -> frozenset[str]:
    """Return the names of a function's parameters, without those of ``*args`` and ``**kwargs``."""
    collecting = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(function).parameters.items()
    return frozenset(name for name, found in parameters if found.kind not in collecting)


def closest(found: object, known: Iterable[object]) -> str:
    """Return the end of a message that names what was probably meant; empty: nothing is close."""
    names = {str(item).lower(): str(item) for item in known}
    close = difflib.get_close_matches(str(found).lower(), names, 1)
    return f"; did you mean {names[close[0]]!r}?" if close else ""


def _resolve(name: str, found: type[KVS] | str) -> type[KVS]:
    loaded: Any = _load(name, found) if isinstance(found, str) else found
    if not (isinstance(loaded, type) and issubclass(loaded, KVS)):
        raise TypeError(f"driver {name!r} is {loaded!r}, not a subclass of pyramid_kvs.kvs.KVS")
    return loaded


def _load(name: str, dotted: str) -> Any:
    module, _, attribute = dotted.replace(":", ".").rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("pyramid_kvs"):
            raise
        package = _INSTALL.get(name, error.name)
        raise DriverNotInstalled(
            f"the {name} driver needs {error.name!r}, which is not installed: pip install {package}"
        ) from error

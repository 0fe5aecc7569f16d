"""The hooks of a driver, with their defaults: stored data in, stored data out."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from time import monotonic
from typing import Any

from ..exceptions import CodecError, KVSError, KVSNotSupported
from ..forks import ProcessLock
from ..serializer import Codec, Data, UnsignedData
from .breaker import Breakers
from .stored import (
    CLAIM_KEY,
    COUNT,
    DONE,
    PAUSED,
    Claim,
    Stored,
    Swap,
    SwapRequest,
    encode_key,
    is_owned,
    new_owner,
)

#: How long a process waits before it asks again for the claim of stale data, in seconds, and for
#: how many keys it does so.
CLAIM_AGAIN = 0.25
CLAIMS_REMEMBERED = 1000


def is_default(method: Callable[..., Any], default: Callable[..., Any]) -> bool:
    """Return whether a driver's class has the default of a method.

    The class of a driver that is observed has another function around each method.
    """
    return inspect.unwrap(method) is default


class Hooks:
    """What a driver may define. Each default uses the hooks above it, and works, but slower.

    A hook gets the key as a string without the prefix, the ttl in seconds (above 0, or ``None``
    if the data never expires), and data as the codec made it (``str`` for json). The defaults are
    atomic among the threads of one process, but not among processes.
    """

    #: How often a compare-and-set is tried before ``KVSConflict``.
    update_attempts = 200

    #: Whether other processes see the data.
    is_shared = True

    #: Whether the store tells the time; see :meth:`raw_load_timed`.
    has_clock = False

    kvs: str
    ttl: float | None
    key_prefix: bytes
    codec: Codec
    _client: Any
    _default_lock: ProcessLock
    _claims_asked_for: dict[str, float]
    _loads: Callable[[Any], Any]
    _dumps: Callable[[Any], Data]

    # -- the client -----------------------------------------------------------------------

    def _create_client(self, **kwargs: Any) -> Any:
        """Return the object of the client library that ``kvs_kwargs`` describe. Do not connect.

        A driver without a client library keeps its data itself, and defines ``raw_get``,
        ``raw_set`` and ``delete``.
        """
        return _NoClient(type(self).__name__)

    @classmethod
    def client_arguments(cls) -> frozenset[str]:
        """Return the names that ``kvs_kwargs`` may have, as far as they are known."""
        return named_parameters(cls._create_client) - {"self"}

    def share_breakers(self, breakers: Breakers) -> None:
        """Use the circuit breakers of an application, which its other drivers use too.

        A driver without circuit breakers does nothing.
        """

    def places(self) -> frozenset[str]:
        """Return names of the places that have the data, as far as they are known.

        Two drivers that have one in common find each other's keys.
        """
        return frozenset()

    def addresses(self) -> list[str]:
        """Return the servers as ``host:port``, or paths of sockets, as far as they are known."""
        return []

    def connection_pools(self) -> list[Any]:
        """Return the pools (:class:`pyramid_kvs.drivers.pool.Pool`) that the driver has now.

        A driver without such pools returns none.
        """
        return []

    # -- one key --------------------------------------------------------------------------

    def raw_get(self, key: str, default: Any = None) -> Any:
        """Return the stored data, or ``default``."""
        data = self._client.get(self._get_key(key))
        return default if data is None else data

    def raw_set(self, key: str, value: Any, ttl: float | None) -> None:
        """Store data."""
        self._client.set(self._get_key(key), value, ttl)

    def raw_add(self, key: str, data: Data, ttl: float | None) -> bool:
        """Store data if the key is absent; return whether it was.

        The default calls ``add(k, value, ttl)`` of a client that has it beside ``get`` and ``set``.
        """
        if self._has_client_with_add():
            return bool(self._client.add(self._get_key(key), data, ttl))
        return self.raw_swap(key, None, data, ttl).done

    def _has_client_with_add(self) -> bool:
        cls = type(self)
        uses_client = is_default(cls.raw_get, Hooks.raw_get)
        uses_client = uses_client and is_default(cls.raw_set, Hooks.raw_set)
        return uses_client and hasattr(type(self._client), "add")

    def raw_delete(self, key: str) -> Data | None:
        """Remove a key; return the data that was there."""
        with self._default_lock:
            data: Data | None = self.raw_get(key)
            if data is not None:
                self._remove(key)
            return data

    def _remove(self, key: str) -> None:
        delete = getattr(self._client, "delete", None)
        if delete is None:
            raise KVSNotSupported(
                f"the {self.kvs} driver cannot remove a key: it defines no delete(key), and its "
                "client has no delete(k)"
            )
        delete(self._get_key(key))

    def raw_incr(self, key: str, delta: int, ttl: float | None) -> int:
        """Add to a counter, stored as decimal digits; see :meth:`pyramid_kvs.kvs.KVS.incr`."""
        with self._default_lock:
            stored = self.raw_load(key)
            count = (0 if stored is None else self._count(stored.data)) + delta
            left = -1.0 if stored is None else self._ttl_or_none(key)
            self.raw_set(key, str(count), left if left > 0 else ttl)
            return count

    def raw_ttl(self, key: str) -> float:
        """Return the seconds left; negative if the key is missing or never expires."""
        raise KVSNotSupported(f"the {self.kvs} driver cannot tell the ttl of a key")

    def raw_expire(self, key: str, ttl: float | None) -> bool:
        """Give a key a new ttl; return whether the key was there."""
        with self._default_lock:
            stored = self.raw_load(key)
            if stored is not None:
                self.raw_set(key, stored.data, ttl)
            return stored is not None

    # -- several keys ---------------------------------------------------------------------

    def raw_get_many(self, keys: list[str]) -> dict[str, Data]:
        """Return the data of several keys, without the missing ones."""
        found = ((key, self.raw_get(key)) for key in keys)
        return {key: data for key, data in found if data is not None}

    def raw_set_many(self, mapping: Mapping[str, Data], ttl: float | None) -> None:
        """Store data at several keys."""
        for key, data in mapping.items():
            self.raw_set(key, data, ttl)

    def raw_delete_many(self, keys: list[str]) -> None:
        """Remove several keys."""
        for key in keys:
            self.raw_delete(key)

    def raw_ttl_many(self, keys: list[str]) -> dict[str, float]:
        """Return :meth:`raw_ttl` of several keys; in one round trip where the store can."""
        return {key: self.raw_ttl(key) for key in keys}

    # -- compare and set ------------------------------------------------------------------

    def raw_load(self, key: str, renew: float | None = None) -> Stored | None:
        """Return what a later :meth:`raw_swap` can compare with.

        :param renew: a new ttl for the key, given in the same round trip.
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
        """Return :meth:`raw_load` of several keys, without the missing ones."""
        found = ((key, self.raw_load(key)) for key in keys)
        return {key: stored for key, stored in found if stored is not None}

    def raw_load_with(
        self, key: str, renew: float | None, others: list[str]
    ) -> tuple[Stored | None, dict[str, Stored]]:
        """Load one key and renew it, and load other keys; in one round trip where the store can.

        :param renew: a new ttl for the key, but not for the others; ``None`` leaves its ttl alone.
        :returns: :meth:`raw_load` of the key, and :meth:`raw_load_many` of the others.
        """
        return self.raw_load(key, renew), self.raw_load_many(others) if others else {}

    def raw_load_timed(
        self, key: str | None, renew: float | None, others: list[str]
    ) -> tuple[Stored | None, dict[str, Stored], int]:
        """Load as :meth:`raw_load_with` does, and tell the time of the store's clock.

        Only drivers with ``has_clock`` define it.

        :param key: ``None`` means only the others.
        :returns: the time in milliseconds since 1970 too.
        """
        raise KVSNotSupported(f"the {self.kvs} driver does not define raw_load_timed")

    def raw_swap(
        self,
        key: str,
        old: Stored | None,
        data: Data | None,
        ttl: float | None,
        flags: int | None = None,
    ) -> Swap:
        """Replace what was loaded by ``data``, unless the key changed since.

        :param old: from :meth:`raw_load` or an earlier swap; ``None`` if the key was absent.
        :param data: ``None`` removes the key.
        :param flags: memcached's flags to write; ``None`` means those that fit the data.
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

    def raw_swap_many(self, swaps: list[SwapRequest]) -> list[Swap]:
        """Run several swaps, each atomic by itself; in one round trip where the store can."""
        return [self.raw_swap(*swap) for swap in swaps]

    # -- claims ---------------------------------------------------------------------------

    def raw_claim(self, key: str, stale: float, ttl: float, absent: bool = True) -> Claim:
        """Return the data at a key; claim the key for the caller unless the data are fresh.

        One caller at a time has the claim of a key. Readers of the key do not see the claim,
        which is stored at another key. Fresh data cost one round trip.

        :param stale: the data are fresh while they have more than this number of seconds left, or
            if the store cannot say how long they have.
        :param ttl: lifetime of the claim in seconds.
        :param absent: whether to claim a key without data.
        """
        found = self._look_at(key, stale)
        if found.is_fresh or (found.data is None and not absent):
            return found
        owner = new_owner()
        is_time = found.data is None or self._is_time_to_claim(key)
        if not (is_time and self.raw_add(CLAIM_KEY + key, owner, ttl)):
            return found
        found = self._look_at(key, stale)  # the one before may have stored and released since
        if not found.is_fresh:
            return found._replace(owner=owner)
        self.raw_release(key, owner)
        return found

    def _is_time_to_claim(self, key: str) -> bool:
        """Return whether to ask for the claim of stale data.

        A process asks a few times a second, because nobody waits for it.
        """
        if self._claims_asked_for.get(key, 0.0) > monotonic():
            return False
        self._do_not_claim(key, CLAIM_AGAIN)
        return True

    def _do_not_claim(self, key: str, seconds: float) -> None:
        if len(self._claims_asked_for) >= CLAIMS_REMEMBERED:
            self._claims_asked_for.clear()
        self._claims_asked_for[key] = monotonic() + seconds

    def _look_at(self, key: str, stale: float) -> Claim:
        data, left = self.raw_get_with_ttl(key) if stale else (self.raw_get(key), -1.0)
        return Claim(data, data is not None and not 0 <= left <= stale, None, left)

    def raw_get_with_ttl(self, key: str) -> tuple[Data | None, float]:
        """Return the stored data, and :meth:`raw_ttl`, or -1 if the store cannot tell it."""
        data = self.raw_get(key)
        return data, -1.0 if data is None else self._ttl_or_none(key)

    def raw_set_claimed(self, key: str, data: Data, ttl: float | None, owner: Any) -> None:
        """Store data and release the claim; in one round trip where the store can."""
        self.raw_set(key, data, ttl)
        with suppress(KVSNotSupported):  # a driver that cannot remove keys
            self.raw_release(key, owner)

    def raw_release(self, key: str, owner: Any, pause: float = 0) -> None:
        """Give up a claim, unless it has ended and somebody else has one.

        :param owner: of a :class:`~pyramid_kvs.kvs.stored.Claim`.
        :param pause: the number of seconds in which nobody can claim the key, unless
            :meth:`raw_end_pause` ends them.
        """
        self._claims_asked_for.pop(key, None)
        claim_key = CLAIM_KEY + key
        stored = self.raw_load(claim_key)
        if stored is None:
            if pause:
                self.raw_add(claim_key, f"{owner}{PAUSED}", pause)
        elif is_owned(stored.data, owner):
            data = f"{owner}{PAUSED}" if pause else None
            self.raw_swap(claim_key, stored, data, pause or None)

    def raw_end_pause(self, key: str) -> None:
        """Let the key be claimed again, if it cannot be because of a pause.

        A pause is for old data. Without data, others would wait for nobody.
        """
        claim_key = self._claim_key(key)
        stored = self.raw_load(claim_key)
        if stored is not None and is_owned(stored.data, PAUSED):
            self.raw_swap(claim_key, stored, None, None)

    def _claim_key(self, key: str) -> str:
        return CLAIM_KEY + key

    # -- for drivers ----------------------------------------------------------------------

    def _get_key(self, key: str) -> bytes:
        """Return the full key: prefix + key, as bytes.

        :raises TypeError: the key is not a string.
        """
        try:
            return self.key_prefix + key.encode("utf-8", "surrogatepass")
        except AttributeError:
            return self.key_prefix + encode_key(key)

    def encode(self, value: Any) -> Data:
        """Return the data to store for a value.

        :raises TypeError: the codec cannot write it.
        """
        return self._dumps(value)

    def decode(self, data: Any) -> Any:
        """Return the value of stored data. The digits of a counter are a number in every codec.

        The exception is a codec that signs: nobody signs the digits of a counter.

        :raises CodecError: the data does not decode.
        """
        if isinstance(data, int):  # from a client that has numbers
            return data
        loads = self._loads
        try:
            return loads(data)
        except UnsignedData:
            raise
        except CodecError:
            digits = _latin(data)
            if COUNT.fullmatch(digits):
                return int(digits)
            raise

    def _count(self, data: Any) -> int:
        if isinstance(data, int):
            return data
        digits = _latin(data)
        if not COUNT.fullmatch(digits):
            raise KVSError("the value at this key is not an integer")
        return int(digits)

    def _ttl_or_none(self, key: str) -> float:
        try:
            return self.raw_ttl(key)
        except KVSNotSupported:
            return -1.0


class _NoClient:
    """The client of a driver that defines no ``_create_client``."""

    def __init__(self, driver: str) -> None:
        self._driver = driver

    def __getattr__(self, name: str) -> Any:
        raise KVSNotSupported(
            f"{self._driver} defines neither _create_client(**kwargs) nor the hook that was called"
        )


def named_parameters(function: Callable[..., Any]) -> frozenset[str]:
    """Return the names of a function's parameters, without ``*args`` and ``**kwargs``."""
    collecting = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(function).parameters.items()
    return frozenset(name for name, found in parameters if found.kind not in collecting)


def _latin(data: Data) -> str:
    return data if isinstance(data, str) else data.decode("latin-1")

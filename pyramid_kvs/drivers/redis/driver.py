"""The redis driver: redis-py's connections, without the layers of its client.

redis-py connects, authenticates, speaks TLS and parses replies. Its pool, its retries and its
command dispatch would take longer than the network, so commands are packed here, and sent on
connections of the package's own pool. Redis 6.2 or newer (GETEX, GETDEL).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any

import redis

from ...exceptions import KVSError
from ...kvs import (
    DONE,
    KVS,
    Breakers,
    Claim,
    Data,
    PackedArguments,
    PreparedCall,
    RunsScripts,
    Script,
    Stored,
    Swap,
    decode_key,
    encode_key,
    key_pattern,
    named_parameters,
    new_tuple,
    pack_arguments,
    ttl_word,
)
from .client import Connections, new_client
from .commands import (
    CLAIM,
    GET,
    GETEX_PX,
    INCR,
    RELEASE,
    SET_PX,
    SWAP,
    SWAP_PX,
    batches,
    by_source,
    claim_call,
    claim_of,
    encoded,
    pack,
    pack_script,
    scan_command,
)
from .errors import is_unknown_script
from .options import ACCEPTED, NAMES, DriverOptions, Options, has_retries
from .sentinel import transport_of
from .transport import Repeatable
from .urls import kind_of

__all__ = ["RedisKVS", "Script", "pack"]

Reply = Any

#: For how many combinations of durations the call of a claim is kept.
CLAIM_CALLS = 100


class RedisKVS(RunsScripts):
    """Keys in redis; ``kvs_kwargs`` are those of ``redis.Redis``, and ``url``."""

    # The frequent operations call ``_call`` by a local variable: Python is faster at that than at
    # a call of what an attribute has.

    @classmethod
    def client_arguments(cls) -> frozenset[str]:
        return (named_parameters(redis.Redis) & ACCEPTED) | NAMES

    @classmethod
    def class_for(cls, kvs_kwargs: Mapping[str, Any]) -> type[KVS]:
        if cls is not RedisKVS or kind_of(kvs_kwargs.get("url")) != "cluster":
            return cls
        # Imported when needed, because that class is a subclass of this one.
        found: type[KVS] = import_module(".cluster", __package__).RedisClusterKVS
        return found

    def _create_client(self, **kwargs: Any) -> redis.Redis:
        given = DriverOptions.take(kwargs)
        client = new_client(kwargs)
        connections = Connections(client.connection_pool)
        sample, retries = connections.make(), has_retries(kwargs)
        options = Options.of(client.connection_pool, sample, given, retries)
        self._transport = self._new_transport(connections, options, kwargs.get("url"))
        self._call, self._call_many = self._transport.call, self._transport.call_many
        #: Whether no subclass makes full keys in another way.
        self._has_usual_keys = type(self)._get_key is RedisKVS._get_key
        self._claim_calls: dict[tuple[float, float, bool], bytes] = {}
        self._claim_key_size = 0
        return client

    def _new_transport(self, connections: Connections, options: Options, url: str | None) -> Any:
        """Return what sends commands."""
        if kind_of(url) == "cluster":
            raise ValueError("url: a driver for a cluster is a subclass of RedisClusterKVS")
        return transport_of(connections, options)

    def share_breakers(self, breakers: Breakers) -> None:
        self._transport.share_breakers(breakers)

    def places(self) -> frozenset[str]:
        database = self._client.connection_pool.connection_kwargs.get("db") or 0
        return frozenset({f"{self._transport.place}/{database}"})

    def addresses(self) -> list[str]:
        return [self._transport.breaker.address]

    def connection_pools(self) -> list[Any]:
        return [self._transport.pool]

    def run_packed(
        self,
        script: Script,
        keys: Sequence[bytes],
        args: PackedArguments,
        repeatable: Repeatable = False,
    ) -> Reply:
        first = keys[0] if keys else b""
        try:
            return self._call(first, pack_script(script.by_hash, keys, args), repeatable)
        except KVSError as error:
            if not is_unknown_script(error.__cause__):
                raise
        return self._run_source(script, keys, args, repeatable)

    def _run_source(
        self,
        script: Script,
        keys: Sequence[bytes],
        args: PackedArguments,
        repeatable: Repeatable = False,
    ) -> Reply:
        """Run a script that the server does not know; from then on, it knows the script."""
        first = keys[0] if keys else b""
        return self._call(first, pack_script(by_source(script), keys, args), repeatable)

    def run_prepared(self, prepared: PreparedCall, keys: Sequence[str]) -> Reply:
        if not self._has_usual_keys:
            return super().run_prepared(prepared, keys)
        prefix, call = self.key_prefix, self._call
        words: list[Any] = []  # the length and the bytes of each key
        for key in keys:
            full_key = prefix + key.encode("utf-8", "surrogatepass")  # as _get_key, without a call
            words += len(full_key), full_key
        try:
            return call(words[1], prepared.template % tuple(words))
        except KVSError as error:
            if not is_unknown_script(error.__cause__):
                raise
        return self._run_source(prepared.script, words[1::2], prepared.args)

    # -- values -----------------------------------------------------------------------------

    def raw_get(self, key: str, default: Any = None) -> Any:
        full_key, call = self._get_key(key), self._call
        data = call(full_key, GET % (len(full_key), full_key), True)
        return default if data is None else data

    def raw_set(self, key: str, value: Any, ttl: float | None) -> None:
        full_key, call = self._get_key(key), self._call
        call(full_key, self._set_command(full_key, value, ttl), True)

    def _set_command(self, full_key: bytes, data: Data, ttl: float | None) -> bytes:
        data = encoded(data)
        if ttl is None:
            return pack(b"SET", full_key, data)
        left = ttl_word(ttl)
        return SET_PX % (len(full_key), full_key, len(data), data, len(left), left)

    def raw_add(self, key: str, data: Data, ttl: float | None) -> bool:
        expiry = () if ttl is None else (b"PX", ttl_word(ttl))
        full_key = self._get_key(key)
        packed = pack(b"SET", full_key, encoded(data), b"NX", *expiry)
        return self._call(full_key, packed, _is_set) is not None

    def raw_delete(self, key: str) -> Data | None:
        full_key = self._get_key(key)
        data: bytes | None = self._call(full_key, pack(b"GETDEL", full_key), _is_set)
        return data

    def raw_get_many(self, keys: list[str]) -> dict[str, Data]:
        found: dict[str, Data] = {}
        for batch in batches(keys):
            replies = self._call(b"", pack(b"MGET", *map(self._get_key, batch)), repeatable=True)
            found.update(
                (k, data) for k, data in zip(batch, replies, strict=True) if data is not None
            )
        return found

    def raw_set_many(self, mapping: Mapping[str, Data], ttl: float | None) -> None:
        pairs = [(self._get_key(key), data) for key, data in mapping.items()]
        commands = [(full_key, self._set_command(full_key, data, ttl)) for full_key, data in pairs]
        without_errors(self._call_many(commands, True))

    def raw_delete_many(self, keys: list[str]) -> None:
        self._remove_all([self._get_key(key) for key in keys])

    def _remove_all(self, full_keys: list[bytes]) -> None:
        for batch in batches(full_keys):
            self._call(b"", pack(b"UNLINK", *batch), repeatable=True)

    def raw_incr(self, key: str, delta: int, ttl: float | None) -> int:
        full_key, by = self._get_key(key), b"%d" % delta
        if ttl is None:
            return int(self._call(full_key, pack(b"INCRBY", full_key, by)))
        return int(self.run_script(INCR, [full_key], [by, ttl_word(ttl)]))

    def raw_ttl(self, key: str) -> float:
        full_key = self._get_key(key)
        return _seconds(self._call(full_key, pack(b"PTTL", full_key), repeatable=True))

    def raw_ttl_many(self, keys: list[str]) -> dict[str, float]:
        full_keys = map(self._get_key, keys)
        commands = [(full_key, pack(b"PTTL", full_key)) for full_key in full_keys]
        replies = without_errors(self._call_many(commands, True))
        return dict(zip(keys, map(_seconds, replies), strict=True))

    def raw_expire(self, key: str, ttl: float | None) -> bool:
        full_key = self._get_key(key)
        if ttl is not None:
            packed = pack(b"PEXPIRE", full_key, ttl_word(ttl))
            return bool(self._call(full_key, packed, repeatable=True))
        commands = [(full_key, pack(name, full_key)) for name in (b"PERSIST", b"EXISTS")]
        return bool(without_errors(self._call_many(commands, True))[1])

    def raw_load(self, key: str, renew: float | None = None) -> Stored | None:
        if renew is None:
            data = self.raw_get(key)
        else:
            full_key, left, call = self._get_key(key), ttl_word(renew), self._call
            packed = GETEX_PX % (len(full_key), full_key, len(left), left)
            data = call(full_key, packed, True)
        return None if data is None else new_tuple(Stored, (data, None, 0))

    def raw_load_many(self, keys: list[str]) -> dict[str, Stored]:
        return {key: Stored(data) for key, data in self.raw_get_many(keys).items()}

    def raw_swap(
        self,
        key: str,
        old: Stored | None,
        data: Data | None,
        ttl: float | None,
        flags: int | None = None,
    ) -> Swap:
        full_key, call = self._get_key(key), self._call
        if old is None or data is None or ttl is None:
            return self._swap(full_key, old, data, ttl, self.run_packed)
        there, new, left = old.data, data, ttl_word(ttl)
        if isinstance(new, str):  # as encoded(), without a call
            new = new.encode("utf-8", "surrogatepass")
        if type(there) is not bytes:  # nearly never, because it comes from redis
            there = encoded(there)
        packed = SWAP_PX % (
            len(full_key), full_key, len(left), left, len(new), new, len(there), there,
        )  # fmt: skip
        try:
            reply = call(full_key, packed, _is_done)
        except KVSError as error:
            if not is_unknown_script(error.__cause__):
                raise
            return self._swap(full_key, old, data, ttl, self._run_source)
        return DONE if reply == 1 else _not_done(reply)

    def _swap(
        self,
        full_key: bytes,
        old: Stored | None,
        data: Data | None,
        ttl: float | None,
        run: Callable[..., Reply],
    ) -> Swap:
        """Swap what :data:`SWAP_PX` has no form for, or on a server that lacks the script.

        :param run: runs a script whose arguments are packed.
        """
        words = [
            b"" if data is None else b"1",
            b"" if ttl is None else ttl_word(ttl),
            b"" if data is None else encoded(data),
        ]
        if old is not None:
            words.append(encoded(old.data))
        reply = run(SWAP, [full_key], pack_arguments(words), _is_done)
        return DONE if reply == 1 else _not_done(reply)

    # -- claims -----------------------------------------------------------------------------

    def raw_claim(self, key: str, stale: float, ttl: float, absent: bool = True) -> Claim:
        full_key = self._get_key(key)
        size = len(full_key)
        durations = stale, ttl, absent
        call = self._claim_calls.get(durations) or self._new_claim_call(*durations)
        packed = call % (size, full_key, size + self._claim_key_size, full_key)
        # If a call is repeated whose reply was lost, nobody has the claim. That is harmless where
        # there are old data, for which nobody waits.
        try:
            reply = self._call(full_key, packed, not absent)
        except KVSError as error:
            if not is_unknown_script(error.__cause__):
                raise
            return self._claim_by_script(key, *durations)
        if not isinstance(reply, list):
            return new_tuple(Claim, (reply, reply is not None, None, -1.0))
        data, owner, left = reply
        return Claim(data, False, owner, left / 1000)

    def _claim_by_script(self, key: str, stale: float, ttl: float, absent: bool) -> Claim:
        keys, args = (self._get_key(key), self._claim_of(key)), _claim_arguments(stale, ttl, absent)
        reply = self.run_packed(CLAIM, keys, args, not absent)
        if not isinstance(reply, list):
            return Claim(reply, reply is not None)
        data, owner, left = reply
        return Claim(data, False, owner, left / 1000)

    def _new_claim_call(self, stale: float, ttl: float, absent: bool) -> bytes:
        """Return the call for claims with these durations, and keep it."""
        if len(self._claim_calls) >= CLAIM_CALLS:
            self._claim_calls.clear()
        self._claim_key_size = len(claim_of(self.key_prefix, b""))
        call = claim_call(self.key_prefix, _claim_arguments(stale, ttl, absent))
        self._claim_calls[stale, ttl, absent] = call
        return call

    def raw_release(self, key: str, owner: Any, pause: float = 0) -> None:
        words = (owner, ttl_word(pause) if pause else b"")
        args = pack_arguments(words)
        self.run_packed(RELEASE, (self._claim_of(key),), args, repeatable=True)

    def _claim_of(self, key: str) -> bytes:
        """Return the full key of the claim of a key."""
        return claim_of(self.key_prefix, self._get_key(key))

    def _claim_key(self, key: str) -> str:
        return decode_key(self._claim_of(key)[len(self.key_prefix) :])

    # -- the store --------------------------------------------------------------------------

    def get_keys(self, pattern: str = "*") -> list[str]:
        """Return the keys that match, by SCAN; keys that are not UTF-8 are left out."""
        matches = key_pattern(pattern).fullmatch
        found: dict[str, None] = {}
        for full_keys in self._scan(self.key_prefix, pattern):
            keys = map(self._key_in, full_keys)
            found.update((key, None) for key in keys if key is not None and matches(key))
        return list(found)

    def _key_in(self, full_key: bytes) -> str | None:
        """Return a key without the prefix, or ``None`` if it is not UTF-8."""
        return _text(full_key[len(self.key_prefix) :])

    def flush(self) -> None:
        for full_keys in self._scan(self.key_prefix, "*"):
            self._remove_all(full_keys)

    def _scan(self, prefix: bytes, pattern: str) -> Iterator[list[bytes]]:
        match, cursor = self._match(prefix, pattern), b"0"
        while True:
            packed = scan_command(cursor, match)
            cursor, full_keys = self._call(b"", packed, repeatable=True)
            yield full_keys
            if cursor == b"0":
                return

    def _match(self, prefix: bytes, pattern: str) -> bytes:
        return _literal(prefix) + _coarse(pattern)

    def close(self) -> None:
        self._transport.close()
        self._client.connection_pool.disconnect(inuse_connections=False)


def without_errors(replies: list[Reply]) -> list[Reply]:
    """Return the replies of several commands, or raise the first error among them."""
    for reply in replies:
        if isinstance(reply, KVSError):
            try:
                raise reply
            finally:
                del reply, replies  # the traceback has this frame
    return replies


def _is_set(reply: Reply) -> bool:
    """Return whether a command had no effect the first time: it found what it needs."""
    return reply is not None


def _is_done(reply: Reply) -> bool:
    """Return whether a swap had no effect the first time: the value was still the old one."""
    return bool(reply == 1)


def _not_done(reply: Reply) -> Swap:
    """Return the outcome of a swap that found another value."""
    return Swap(False, None if reply[0] is None else Stored(reply[0]))


def _seconds(left: int) -> float:
    return left / 1000 if left >= 0 else float(left)


def _claim_arguments(stale: float, ttl: float, absent: bool) -> PackedArguments:
    words = (ttl_word(stale), ttl_word(ttl))
    return pack_arguments((*words, b"1") if absent else words)


def _literal(text: bytes) -> bytes:
    """Return a pattern of redis that only matches the text."""
    return re.sub(rb"([*?\[\]\\^])", rb"\\\1", text)


def _coarse(pattern: str) -> bytes:
    """Return a pattern of redis that matches at least the keys that the package's one matches.

    In redis ``?`` is one byte, and here it is one character. Many ``*`` take redis exponential
    time.
    """
    return b"*".join(_literal(encode_key(part)) for part in re.split(r"[*?]+", pattern))


def _text(key: bytes) -> str | None:
    try:
        return decode_key(key)
    except UnicodeDecodeError:
        return None

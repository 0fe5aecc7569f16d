"""The redis driver: redis-py's connections, without the layers of its client.

redis-py connects, authenticates, speaks TLS and parses replies. Its pool, its retries and its
command dispatch would take longer than the network, so commands are packed here, and sent on
connections of the package's own pool. Redis 6.2 or newer (GETEX, GETDEL).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import redis

from ...exceptions import KVSError
from ...kvs import (
    CLAIM_KEY,
    DONE,
    Breakers,
    Claim,
    Data,
    PackedArguments,
    RunsScripts,
    Script,
    Stored,
    Swap,
    decode_key,
    encode_key,
    key_pattern,
    named_parameters,
    new_owner,
    pack_arguments,
    pack_words,
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
    batches,
    encoded,
    pack,
    pack_claim,
    pack_script,
    sends,
)
from .errors import is_unknown_script
from .options import NAMES, RETRY_OPTIONS, DriverOptions, Options
from .transport import Transport

__all__ = ["RedisKVS", "Script", "pack"]

Reply = Any

#: The key of a claim: the prefix, and the key as the part that a cluster hashes.
CLAIM_OF = b"%%b%b{%%b}" % CLAIM_KEY.encode()

#: For how many combinations of durations the words of a claim are kept.
CLAIMS_PACKED = 100


class RedisKVS(RunsScripts):
    """Keys in redis; ``kvs_kwargs`` are those of ``redis.Redis``, and ``url``."""

    @classmethod
    def client_arguments(cls) -> frozenset[str]:
        return named_parameters(redis.Redis) | NAMES

    def _create_client(self, **kwargs: Any) -> redis.Redis:
        given = DriverOptions.take(kwargs)
        client = new_client(kwargs)
        pool = client.connection_pool
        connections = Connections(pool)
        retries = bool(RETRY_OPTIONS & kwargs.keys())
        options = Options.of(pool, connections.make(), given, retries)
        self._transport = Transport(connections, options)
        self._call = self._transport.call
        self._claim_words: dict[tuple[float, float, bool], PackedArguments] = {}
        return client

    def share_breakers(self, breakers: Breakers) -> None:
        self._transport.share_breakers(breakers)

    def places(self) -> frozenset[str]:
        database = self._client.connection_pool.connection_kwargs.get("db") or 0
        return frozenset({f"{self._transport.server}/{database}"})

    def run_packed(
        self,
        script: Script,
        keys: Sequence[bytes],
        args: PackedArguments,
        repeatable: bool = False,
    ) -> Reply:
        try:
            return self._call(pack_script(script.by_hash, keys, args), repeatable)
        except KVSError as error:
            if not is_unknown_script(error.__cause__):
                raise
        by_source = pack_words((b"EVAL", script.source))
        return self._call(pack_script(by_source, keys, args), repeatable)

    # -- values -----------------------------------------------------------------------------

    def raw_get(self, key: str, default: Any = None) -> Any:
        full_key = self._get_key(key)
        data = self._call(GET % (len(full_key), full_key), True)
        return default if data is None else data

    def raw_set(self, key: str, value: Any, ttl: float | None) -> None:
        self._call(self._set_command(key, value, ttl), True)

    def _set_command(self, key: str, data: Data, ttl: float | None) -> bytes:
        full_key, data = self._get_key(key), encoded(data)
        if ttl is None:
            return pack(b"SET", full_key, data)
        left = ttl_word(ttl)
        return SET_PX % (len(full_key), full_key, len(data), data, len(left), left)

    def raw_add(self, key: str, data: Data, ttl: float | None) -> bool:
        expiry = () if ttl is None else (b"PX", ttl_word(ttl))
        packed = pack(b"SET", self._get_key(key), encoded(data), b"NX", *expiry)
        return self._call(packed) is not None

    def raw_delete(self, key: str) -> Data | None:
        data: bytes | None = self._call(pack(b"GETDEL", self._get_key(key)))
        return data

    def raw_get_many(self, keys: list[str]) -> dict[str, Data]:
        found: dict[str, Data] = {}
        for batch in batches(keys):
            replies = self._call(pack(b"MGET", *map(self._get_key, batch)), repeatable=True)
            found.update(
                (k, data) for k, data in zip(batch, replies, strict=True) if data is not None
            )
        return found

    def raw_set_many(self, mapping: Mapping[str, Data], ttl: float | None) -> None:
        commands = (self._set_command(key, data, ttl) for key, data in mapping.items())
        for group in sends(commands):
            self._call(b"".join(group), True, len(group))

    def raw_delete_many(self, keys: list[str]) -> None:
        self._remove_all([self._get_key(key) for key in keys])

    def _remove_all(self, full_keys: list[bytes]) -> None:
        for batch in batches(full_keys):
            self._call(pack(b"UNLINK", *batch), repeatable=True)

    def raw_incr(self, key: str, delta: int, ttl: float | None) -> int:
        full_key, by = self._get_key(key), b"%d" % delta
        if ttl is None:
            return int(self._call(pack(b"INCRBY", full_key, by)))
        return int(self.run_script(INCR, [full_key], [by, ttl_word(ttl)]))

    def raw_ttl(self, key: str) -> float:
        return _seconds(self._call(pack(b"PTTL", self._get_key(key)), repeatable=True))

    def raw_ttl_many(self, keys: list[str]) -> dict[str, float]:
        replies: list[int] = []
        for group in sends(pack(b"PTTL", self._get_key(key)) for key in keys):
            replies += self._call(b"".join(group), True, len(group))
        return dict(zip(keys, map(_seconds, replies), strict=True))

    def raw_expire(self, key: str, ttl: float | None) -> bool:
        full_key = self._get_key(key)
        if ttl is not None:
            packed = pack(b"PEXPIRE", full_key, ttl_word(ttl))
            return bool(self._call(packed, repeatable=True))
        commands = [pack(b"PERSIST", full_key), pack(b"EXISTS", full_key)]
        return bool(self._call(b"".join(commands), True, 2)[1])

    def raw_load(self, key: str, renew: float | None = None) -> Stored | None:
        if renew is None:
            data = self.raw_get(key)
        else:
            full_key, left = self._get_key(key), ttl_word(renew)
            data = self._call(
                GETEX_PX % (len(full_key), full_key, len(left), left), repeatable=True
            )
        return None if data is None else Stored(data)

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
        args = [
            b"" if data is None else b"1",
            b"" if ttl is None else ttl_word(ttl),
            b"" if data is None else encoded(data),
        ]
        if old is not None:
            args.append(encoded(old.data))
        reply = self.run_script(SWAP, [self._get_key(key)], args)
        if reply == 1:
            return DONE
        return Swap(False, None if reply[0] is None else Stored(reply[0]))

    # -- claims -----------------------------------------------------------------------------

    def raw_claim(self, key: str, stale: float, ttl: float, absent: bool = True) -> Claim:
        full_key, owner = self._get_key(key), new_owner().encode()
        claim_key = self._claim_key(full_key)
        words = self._claim_words.get((stale, ttl, absent)) or self._pack_claim(stale, ttl, absent)
        try:
            reply = self._call(pack_claim(full_key, claim_key, owner, words), True)
        except KVSError as error:
            if not is_unknown_script(error.__cause__):
                raise
            args = pack_words((owner,)) + words.data
            keys = (full_key, claim_key)
            reply = self.run_packed(CLAIM, keys, PackedArguments(words.number + 1, args), True)
        if not isinstance(reply, list):
            return tuple.__new__(Claim, (reply, reply is not None, None, -1.0))  # as Claim(...)
        data, is_claimed, left = reply
        return Claim(data, False, owner if is_claimed else None, left / 1000)

    def _pack_claim(self, stale: float, ttl: float, absent: bool) -> PackedArguments:
        """Return the words of a claim that many calls have in common, and keep them."""
        words = (ttl_word(stale), ttl_word(ttl), *((b"1",) if absent else ()))
        if len(self._claim_words) >= CLAIMS_PACKED:
            self._claim_words.clear()
        packed = self._claim_words[stale, ttl, absent] = pack_arguments(words)
        return packed

    def raw_release(self, key: str, owner: Any, pause: float = 0) -> None:
        words = (owner, ttl_word(pause) if pause else b"")
        keys = (self._claim_key(self._get_key(key)),)
        self.run_packed(RELEASE, keys, pack_arguments(words), repeatable=True)

    def _claim_key(self, full_key: bytes) -> bytes:
        """Return the key of a claim, which a cluster keeps where it keeps the key itself."""
        return CLAIM_OF % (self.key_prefix, full_key)

    # -- the store --------------------------------------------------------------------------

    def get_keys(self, pattern: str = "*") -> list[str]:
        """Return the keys that match, by SCAN; keys that are not UTF-8 are left out."""
        start, matches = len(self.key_prefix), key_pattern(pattern).fullmatch
        found: dict[str, None] = {}
        for full_keys in self._scan(self.key_prefix, pattern):
            keys = (_text(full_key[start:]) for full_key in full_keys)
            found.update((key, None) for key in keys if key is not None and matches(key))
        return list(found)

    def flush(self) -> None:
        for full_keys in self._scan(self.key_prefix, "*"):
            self._remove_all(full_keys)

    def _scan(self, prefix: bytes, pattern: str) -> Iterator[list[bytes]]:
        match = _literal(prefix) + _coarse(pattern)
        cursor = b"0"
        while True:
            words = (b"SCAN", cursor, b"MATCH", match, b"COUNT", b"1000")
            cursor, full_keys = self._call(pack(*words), repeatable=True)
            yield full_keys
            if cursor == b"0":
                return

    def close(self) -> None:
        self._transport.close()
        self._client.connection_pool.disconnect(inuse_connections=False)


def _seconds(left: int) -> float:
    return left / 1000 if left >= 0 else float(left)


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

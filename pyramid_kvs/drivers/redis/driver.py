"""The redis driver: redis-py's connections, without the layers of its client.

redis-py connects, authenticates, speaks TLS and parses replies. Its pool, its retries and its
command dispatch cost more than the network, so commands are packed here and sent on connections
from a pool of our own. Redis 6.2 or newer (GETEX, GETDEL).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import redis
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import NoScriptError, RedisError, ResponseError

from ...exceptions import KVSError, ValueTooLarge
from ...kvs import (
    DONE,
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
    pack_words,
    ttl_word,
)
from ..options import PoolOptions, take_pool_options
from ..pool import Pool
from .client import RETRY_OPTIONS, RedisConnection, new_client, new_connection, server_name
from .commands import (
    GET,
    GETEX_PX,
    INCR,
    SET_PX,
    SWAP,
    batches,
    encoded,
    pack,
    pack_script,
    sends,
)
from .errors import as_kvs_error, spoils_connection

__all__ = ["RedisKVS", "Script", "pack"]

#: A connection that lay free for longer (seconds) is looked at before it is used.
IDLE = 0.1

#: The setting for the longest value, what it is at least, and where nobody changed it.
BULK_LIMIT = b"proto-max-bulk-len"
LEAST_BULK_LIMIT = 2**20
USUAL_BULK_LIMIT = 2**29

Reply = Any


class RedisKVS(RunsScripts):
    """Keys in redis; ``kvs_kwargs`` are those of ``redis.Redis``, and ``url``."""

    @classmethod
    def client_arguments(cls) -> frozenset[str]:
        return named_parameters(redis.Redis) | {"url", *PoolOptions._fields}

    def _create_client(self, **kwargs: Any) -> redis.Redis:
        waiting = take_pool_options(kwargs)
        client = new_client(**kwargs)
        pool = client.connection_pool
        self._where = server_name(pool)
        self._pool = Pool(
            lambda _: RedisConnection(new_connection(pool)),
            pool.max_connections,
            timeout=waiting.pool_timeout,
            backlog=waiting.max_backlog,
        )
        self._retry: Any = None
        if RETRY_OPTIONS & kwargs.keys():
            self._retry = new_connection(pool).retry
        return client

    # -- one exchange -----------------------------------------------------------------------

    def call(self, packed: bytes, again: bool = False) -> Reply:
        """Send one packed command and return its reply; texts are bytes.

        :param again: it may run twice: send it once more where a free connection was dead.
        :raises KVSUnavailable: no reply, or a refusal for now.
        :raises KVSError: another refusal.
        """
        return self._exchange(packed, again, _read_reply)

    def call_many(self, commands: list[bytes], again: bool = False) -> list[Reply]:
        """Send packed commands in one go and return their replies, all read before an error."""

        def read(connection: RedisConnection) -> list[Reply]:
            return _read_replies(connection, len(commands))

        replies: list[Reply] = self._exchange(b"".join(commands), again, read)
        return replies

    def run_packed(self, script: Script, keys: Sequence[bytes], args: PackedArguments) -> Reply:
        try:
            return self._exchange(pack_script(script.by_hash, keys, args), False, _read_reply)
        except KVSError as error:
            if not isinstance(error.__cause__, NoScriptError):
                raise
        return self.call(pack_script(pack_words((b"EVAL", script.source)), keys, args))

    def _exchange(
        self, packed: bytes, again: bool, read: Callable[[RedisConnection], Reply]
    ) -> Reply:
        try:
            connection = self._take()
            try:
                return self._attempt(connection, packed, read)
            except NoConnection:
                if connection.is_new:
                    raise
                self._pool.close()
                if not again:
                    raise
            return self._attempt(self._pool.take(), packed, read)
        except (RedisError, OSError) as error:
            if again and self._retry is not None:
                return self._exchange_again(error, packed, read)
            raise self._translated(error, len(packed)) from error

    def _exchange_again(
        self, error: Exception, packed: bytes, read: Callable[[RedisConnection], Reply]
    ) -> Reply:
        """Go on after the first failure as ``kvs_kwargs`` say."""
        failures = [error]

        def ask() -> Reply:
            if failures:
                raise failures.pop()
            return self._attempt(self._pool.take(), packed, read)

        try:
            return self._retry.call_with_retry(ask, lambda _: None)
        except (RedisError, OSError) as last:
            raise self._translated(last, len(packed)) from last

    def _attempt(
        self,
        connection: RedisConnection,
        packed: bytes,
        read: Callable[[RedisConnection], Reply],
    ) -> Reply:
        try:
            connection.send((packed,), False)
            reply = read(connection)
        except ResponseError as error:
            self._take_back(connection, error)
            raise
        except BaseException:
            self._pool.drop(connection)
            raise
        # Not within the try: given and then dropped, a connection would have two users.
        self._pool.give(connection)
        return reply

    def _take_back(self, connection: RedisConnection, error: ResponseError) -> None:
        if spoils_connection(error):
            self._pool.drop(connection)
            self._pool.close()
        else:
            self._pool.give(connection)

    def _take(self) -> RedisConnection:
        connection = self._pool.take()
        if connection.taken_at - connection.used_at < IDLE:
            return connection
        try:
            if connection.is_alive():
                return connection
        except BaseException:
            self._pool.drop(connection)
            raise
        return self._pool.replace(connection)

    def _translated(self, error: Exception, size: int) -> KVSError:
        """Return our error for redis-py's.

        :param size: of what was sent; redis hangs up on a value that is too long for it.
        """
        if size > LEAST_BULK_LIMIT and isinstance(error, (NoConnection, ResponseError)):
            limit = self._bulk_limit()
            if size > limit:
                return ValueTooLarge(
                    f"redis at {self._where} takes {limit} bytes in a value, of {size} sent"
                )
        return as_kvs_error(error, self._where)

    def _bulk_limit(self) -> int:
        try:
            reply = self.call(pack(b"CONFIG", b"GET", BULK_LIMIT), again=True)
            return int(reply[BULK_LIMIT] if isinstance(reply, dict) else reply[1])
        except (KVSError, LookupError):
            return USUAL_BULK_LIMIT

    # -- values -----------------------------------------------------------------------------

    def raw_get(self, key: str, default: Any = None) -> Any:
        full_key = self._get_key(key)
        data = self._exchange(GET % (len(full_key), full_key), True, _read_reply)
        return default if data is None else data

    def raw_set(self, key: str, value: Any, ttl: float | None) -> None:
        self._exchange(self._set_command(key, value, ttl), True, _read_reply)

    def _set_command(self, key: str, data: Data, ttl: float | None) -> bytes:
        full_key, data = self._get_key(key), encoded(data)
        if ttl is None:
            return pack(b"SET", full_key, data)
        left = ttl_word(ttl)
        return SET_PX % (len(full_key), full_key, len(data), data, len(left), left)

    def raw_add(self, key: str, data: Data, ttl: float | None) -> bool:
        expiry = () if ttl is None else (b"PX", ttl_word(ttl))
        packed = pack(b"SET", self._get_key(key), encoded(data), b"NX", *expiry)
        return self.call(packed) is not None

    def raw_delete(self, key: str) -> Data | None:
        data: bytes | None = self.call(pack(b"GETDEL", self._get_key(key)))
        return data

    def raw_get_many(self, keys: list[str]) -> dict[str, Data]:
        found: dict[str, Data] = {}
        for batch in batches(keys):
            replies = self.call(pack(b"MGET", *map(self._get_key, batch)), again=True)
            found.update(
                (k, data) for k, data in zip(batch, replies, strict=True) if data is not None
            )
        return found

    def raw_set_many(self, mapping: Mapping[str, Data], ttl: float | None) -> None:
        commands = (self._set_command(key, data, ttl) for key, data in mapping.items())
        for group in sends(commands):
            self.call_many(group, again=True)

    def raw_delete_many(self, keys: list[str]) -> None:
        self._remove_all([self._get_key(key) for key in keys])

    def _remove_all(self, full_keys: list[bytes]) -> None:
        for batch in batches(full_keys):
            self.call(pack(b"UNLINK", *batch), again=True)

    def raw_incr(self, key: str, delta: int, ttl: float | None) -> int:
        full_key, by = self._get_key(key), b"%d" % delta
        if ttl is None:
            return int(self.call(pack(b"INCRBY", full_key, by)))
        return int(self.run_script(INCR, [full_key], [by, ttl_word(ttl)]))

    def raw_ttl(self, key: str) -> float:
        left: int = self.call(pack(b"PTTL", self._get_key(key)), again=True)
        return left / 1000 if left >= 0 else float(left)

    def raw_expire(self, key: str, ttl: float | None) -> bool:
        full_key = self._get_key(key)
        if ttl is not None:
            packed = pack(b"PEXPIRE", full_key, ttl_word(ttl))
            return bool(self.call(packed, again=True))
        commands = [pack(b"PERSIST", full_key), pack(b"EXISTS", full_key)]
        return bool(self.call_many(commands, again=True)[1])

    def raw_load(self, key: str, renew: float | None = None) -> Stored | None:
        if renew is None:
            data = self.raw_get(key)
        else:
            full_key, left = self._get_key(key), ttl_word(renew)
            data = self.call(GETEX_PX % (len(full_key), full_key, len(left), left), again=True)
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
            cursor, full_keys = self.call(pack(*words), again=True)
            yield full_keys
            if cursor == b"0":
                return

    def close(self) -> None:
        self._pool.close()
        self._client.connection_pool.disconnect(inuse_connections=False)


def _literal(text: bytes) -> bytes:
    """Return a pattern of redis that only matches the text."""
    return re.sub(rb"([*?\[\]\\^])", rb"\\\1", text)


def _coarse(pattern: str) -> bytes:
    """Return a pattern of redis that matches at least what ours does.

    In redis ``?`` is one byte, and ours one character; many ``*`` take it exponential time.
    """
    return b"*".join(_literal(encode_key(part)) for part in re.split(r"[*?]+", pattern))


def _text(key: bytes) -> str | None:
    try:
        return decode_key(key)
    except UnicodeDecodeError:
        return None


# -- replies ---------------------------------------------------------------------------------


def _read_reply(connection: RedisConnection) -> Reply:
    return connection.read(True)


def _read_replies(connection: RedisConnection, count: int) -> list[Reply]:
    """Read all replies, then raise the first error among them."""
    replies: list[Reply] = []
    errors: list[ResponseError] = []
    for _ in range(count):
        try:
            replies.append(connection.read(True))
        except ResponseError as error:  # noqa: PERF203
            errors.append(error)
    if errors:
        raise errors[0]
    return replies

"""The redis driver for a cluster."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterator, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any

from ....exceptions import KVSError
from ....kvs import (
    CLAIM_KEY,
    Claim,
    Data,
    RunsScriptsBySlot,
    ScriptCall,
    decode_key,
    encode_key,
)
from ....kvs.contract import CHECK_KEY
from ..client import Connections
from ..commands import GET, by_source, pack, pack_script
from ..connection import Reply
from ..driver import RedisKVS, without_errors
from ..errors import is_unknown_script
from ..options import Options
from ..slots import CompanionKey, companion, companion_in
from ..urls import kind_of, parse_url, place_of
from .nodes import Node
from .rounds import Cluster
from .scanning import scan
from .topology import Topology, slot_of

#: How many keys are tried for each node until there is one in its slots.
TRIES = 100


class RedisClusterKVS(RedisKVS, RunsScriptsBySlot):
    """Keys in a Redis Cluster; ``kvs_kwargs`` are those of ``redis.Redis``, and ``url``."""

    _transport: Cluster

    def _new_transport(self, connections: Connections, options: Options, url: str | None) -> Any:
        if kind_of(url) != "cluster":
            raise ValueError("url: expected redis+cluster://h1:6379,h2:6379")
        self._seeds = parse_url(url).hosts
        return Cluster(Topology(connections, options, self._seeds))

    @property
    def _topology(self) -> Topology:
        return self._transport.topology

    def places(self) -> frozenset[str]:
        return frozenset(f"redis at {place_of(*seed)}/0" for seed in self._seeds)

    def addresses(self) -> list[str]:
        return [place_of(*seed) for seed in self._seeds]

    def connection_pools(self) -> list[Any]:
        return [node.pool for node in self._topology.nodes()]

    # -- several keys -----------------------------------------------------------------------

    def raw_get_many(self, keys: list[str]) -> dict[str, Data]:
        full_keys = map(self._get_key, keys)
        commands = [(full_key, GET % (len(full_key), full_key)) for full_key in full_keys]
        replies = without_errors(self._call_many(commands, True))
        return {k: data for k, data in zip(keys, replies, strict=True) if data is not None}

    def _remove_all(self, full_keys: list[bytes]) -> None:
        commands = [(full_key, pack(b"UNLINK", full_key)) for full_key in full_keys]
        without_errors(self._call_many(commands, True))

    def run_many(self, calls: Sequence[ScriptCall]) -> list[Reply]:
        commands = [
            (keys[0], pack_script(script.by_hash, keys, args)) for script, keys, args in calls
        ]
        replies = self._call_many(commands)
        unknown = {place for place, reply in enumerate(replies) if _is_unknown(reply)}
        commands = [
            (keys[0], pack_script(by_source(script), keys, args))
            for place, (script, keys, args) in enumerate(calls)
            if place in unknown
        ]
        again = iter(self._call_many(commands) if commands else ())
        return [next(again) if place in unknown else reply for place, reply in enumerate(replies)]

    # -- keys in the same slot --------------------------------------------------------------

    def companion(self, home: str, key: str) -> str:
        return companion(self.key_prefix, home, key)

    def slot_of(self, key: str) -> int:
        return slot_of(self._get_key(key))

    def _get_key(self, key: str) -> bytes:
        if type(key) is str:  # without a call of encode_key
            return self.key_prefix + key.encode("utf-8", "surrogatepass")
        if type(key) is CompanionKey and key.prefix == self.key_prefix:
            return key.full_key
        return self.key_prefix + encode_key(key)

    def raw_claim(self, key: str, stale: float, ttl: float, absent: bool = True) -> Claim:
        if self._has_braces(key):
            return self._claim_by_script(key, stale, ttl, absent)
        return super().raw_claim(key, stale, ttl, absent)

    def _claim_of(self, key: str) -> bytes:
        if self._has_braces(key):
            return companion(self.key_prefix, key, CLAIM_KEY + key).full_key
        return super()._claim_of(key)

    def _claim_key(self, key: str) -> str:
        if self._has_braces(key):
            return companion(self.key_prefix, key, CLAIM_KEY + key)
        return super()._claim_key(key)

    def _has_braces(self, key: str) -> bool:
        """Return whether a claim that ends with the key in braces would be in another slot."""
        prefix = self.key_prefix
        if "{" in key or "}" in key or b"{" in prefix or b"}" in prefix:
            return True
        return not key and not prefix  # the cluster ignores braces with nothing in between

    # -- the store --------------------------------------------------------------------------

    def _scan(self, prefix: bytes, pattern: str) -> Iterator[list[bytes]]:
        for full_keys in scan(self._topology, self._match(prefix, pattern)):
            yield [full_key for full_key in full_keys if _is_own(prefix, full_key)]

    def _match(self, prefix: bytes, pattern: str) -> bytes:
        if not prefix:
            return super()._match(prefix, pattern)
        # A companion has the prefix inside of it, and a brace at any place of the key.
        return b"*" + super()._match(prefix, "*")

    def _key_in(self, full_key: bytes) -> str | None:
        found = companion_in(self.key_prefix, full_key)
        if found is None:
            return super()._key_in(full_key)
        with suppress(UnicodeDecodeError):
            return CompanionKey.of(self.key_prefix, decode_key(found), full_key)
        return None

    def _check_keys(self) -> list[str]:
        return list(self._keys_of_nodes().values())

    def check_nodes(self) -> dict[str, str | None]:
        try:
            keys = self._keys_of_nodes()
        except KVSError as error:
            return {place_of(*seed): str(error) for seed in self._seeds}
        return {node.place: self._reason(key) for node, key in keys.items()}

    def _reason(self, key: str) -> str | None:
        try:
            self._check_key(key)
        except KVSError as error:
            return str(error)
        return None

    def _keys_of_nodes(self) -> dict[Node, str]:
        """Return an unused key for each primary. A prefix with a hash tag has one primary only.

        :raises KVSError: no node tells which node has which slot.
        """
        topology = self._topology
        topology.refresh(monotonic())
        number = len(topology.primaries())
        keys: dict[Node, str] = {}
        for _ in itertools.repeat(None, TRIES * max(1, number)):
            key = CHECK_KEY + secrets.token_hex(8)
            keys.setdefault(topology.home(slot_of(self._get_key(key)), monotonic()), key)
            if len(keys) == number:
                break
        return keys


def _is_own(prefix: bytes, full_key: bytes) -> bool:
    """Return whether a full key has a prefix, or is a companion of such a key."""
    return full_key.startswith(prefix) or companion_in(prefix, full_key) is not None


def _is_unknown(reply: Reply) -> bool:
    return isinstance(reply, KVSError) and is_unknown_script(reply.__cause__)

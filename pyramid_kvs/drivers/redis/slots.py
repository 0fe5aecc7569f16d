"""Keys that have to be in the same slot of a cluster, so that one script reaches all of them.

A cluster hashes the hash tag of a key, which is the part between its first ``{`` and the next
``}``. Without a tag, or if it is empty, the cluster hashes the whole key.

A companion is a key in the slot of another one, its home. Clients choose some of the homes, for
example the tokens of sessions, with braces in them. A companion begins with ``{``, which no key
of a session does, and never is the companion of another home. Its tag is one of these:

- the home's full key, if that has no braces: the counter ``{session::abc}::ratelimit`` of the
  session ``session::abc``;
- a number with the slot of the home. The prefix and the whole key follow, as in
  ``{4711}session::sha256:...::ratelimit``.
"""

from __future__ import annotations

import functools

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from ...kvs import encode_key

__all__ = ["CompanionKey", "companion", "companion_in", "key_slot", "same_slot"]


class CompanionKey(str):
    """A key without the prefix, as on a single server, that knows its full key on a cluster.

    For drivers with another prefix it is a string like any other.
    """

    __slots__ = ("full_key", "prefix")
    prefix: bytes
    full_key: bytes

    @classmethod
    def of(cls, prefix: bytes, key: str, full_key: bytes) -> CompanionKey:
        made = cls(key)
        made.prefix, made.full_key = prefix, full_key
        return made


def same_slot(full_key: bytes) -> bytes:
    """Return a hash tag, without its braces, that has the slot of a full key.

    It is the key itself, its own tag, or a number.
    """
    if not _has_braces(full_key):
        return full_key or _numbers()[0]
    tag = full_key.partition(b"{")[2].partition(b"}")
    return tag[0] if tag[0] and tag[1] else _number(full_key)


def companion(prefix: bytes, home: str, key: str) -> CompanionKey:
    """Return a key in the slot of its home.

    :param prefix: of both keys.
    :param home: without the prefix.
    :param key: without the prefix, as on a single server. No other home has it.
    """
    full_home = prefix + encode_key(home)
    if full_home and key.startswith(home) and not _has_braces(full_home):
        full_key = b"{%b}%b" % (full_home, encode_key(key[len(home) :]))
    else:
        full_key = b"{%b}%b%b" % (_number(full_home), prefix, encode_key(key))
    return CompanionKey.of(prefix, key, full_key)


def companion_in(prefix: bytes, full_key: bytes) -> bytes | None:
    """Return the key of a companion without the prefix, encoded; ``None`` for other keys.

    If the prefix is empty, or begins with ``{``, a companion cannot be told from other keys.
    """
    if full_key[:1] != b"{" or full_key.startswith(prefix):
        return None
    tag, _, rest = full_key[1:].partition(b"}")
    if tag.startswith(prefix):
        return tag[len(prefix) :] + rest
    if tag.isdigit() and rest.startswith(prefix):
        return rest[len(prefix) :]
    return None


def _has_braces(full_key: bytes) -> bool:
    return b"{" in full_key or b"}" in full_key


def _number(full_key: bytes) -> bytes:
    return _numbers()[key_slot(full_key)]


@functools.cache
def _numbers() -> list[bytes]:
    """Return the smallest number of each slot, as decimal digits. It takes 0.05 s, once."""
    found: dict[int, bytes] = {}
    number = 0
    while len(found) < REDIS_CLUSTER_HASH_SLOTS:
        digits = b"%d" % number
        found.setdefault(key_slot(digits), digits)
        number += 1
    return [found[slot] for slot in range(REDIS_CLUSTER_HASH_SLOTS)]

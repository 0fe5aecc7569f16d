"""Lua scripts, and drivers whose store runs them."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ..exceptions import KVSNotSupported
from .contract import KVS

#: Redis takes times up to 2**63 ms after 1970; this is 3 million years.
_LONGEST_MS = 10**17


class Script:
    """A Lua script, called by its hash; its source is sent only if the server does not know it."""

    def __init__(self, source: str) -> None:
        self.source = source.strip().encode()
        sha = hashlib.sha1(self.source, usedforsecurity=False).hexdigest().encode()
        self.by_hash = pack_words((b"EVALSHA", sha))


class PackedArguments(NamedTuple):
    """Arguments of a script as they are sent: what many calls have in common is packed once."""

    number: int
    data: bytes


class ScriptCall(NamedTuple):
    """A script, and the full keys and arguments to run it with."""

    script: Script
    keys: Sequence[bytes]
    args: PackedArguments


class PreparedCall:
    """The call of a script with its arguments, packed but for its keys.

    :param number: of the keys.
    """

    __slots__ = ("args", "script", "template")

    def __init__(self, script: Script, number: int, args: PackedArguments) -> None:
        self.script = script
        self.args = args
        words = b"%b%b" % (script.by_hash, pack_words([b"%d" % number]))
        head, tail = words.replace(b"%", b"%%"), args.data.replace(b"%", b"%%")
        #: What is left are the length and the bytes of each key.
        self.template = b"*%d\r\n%b%b%b" % (
            *(3 + number + args.number, head),
            *(number * b"$%d\r\n%b\r\n", tail),
        )


class RunsScripts(KVS):
    """A driver whose store runs Lua scripts, each in one atomic step and one round trip."""

    def run_script(self, script: Script, keys: Sequence[bytes], args: Sequence[bytes]) -> Any:
        """Run a script and return its reply; strings in it are ``bytes``.

        :param keys: full keys.
        :raises KVSUnavailable: no reply, or a refusal for now.
        :raises KVSError: another refusal.
        """
        return self.run_packed(script, keys, pack_arguments(args))

    def run_packed(self, script: Script, keys: Sequence[bytes], args: PackedArguments) -> Any:
        """Run a script whose arguments are packed; see :meth:`run_script`."""
        raise KVSNotSupported(f"the {self.kvs} driver does not define run_packed")

    def run_prepared(self, prepared: PreparedCall, keys: Sequence[str]) -> Any:
        """Run a script that is often called with the same arguments; see :meth:`run_script`.

        :param keys: without the prefix.
        """
        full_keys = [self._get_key(key) for key in keys]
        return self.run_packed(prepared.script, full_keys, prepared.args)


class RunsScriptsBySlot(RunsScripts):
    """A driver whose store is a cluster: a script only reaches the keys of one slot.

    The first key of a script decides which node runs it.
    """

    def companion(self, home: str, key: str) -> str:
        """Return a key that is in the slot of another key, its home.

        :param key: the key as it would be on a single server. No other home has it.
        :returns: a string that equals ``key``, for this driver only.
        """
        raise KVSNotSupported(f"the {self.kvs} driver does not define companion")

    def slot_of(self, key: str) -> int:
        """Return the slot of a key."""
        raise KVSNotSupported(f"the {self.kvs} driver does not define slot_of")

    def run_many(self, calls: Sequence[ScriptCall]) -> list[Any]:
        """Run scripts, all at the same time.

        :returns: the reply to each call, or the :class:`~pyramid_kvs.exceptions.KVSError` of it.
        """
        raise KVSNotSupported(f"the {self.kvs} driver does not define run_many")


def pack_arguments(args: Sequence[bytes]) -> PackedArguments:
    """Return arguments of a script as they are sent."""
    return PackedArguments(len(args), pack_words(args))


def pack_words(words: Iterable[bytes]) -> bytes:
    """Return the words of a command in the protocol of redis, each with its length before it."""
    return b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words])


@functools.lru_cache(maxsize=256)
def ttl_word(ttl: float) -> bytes:
    """Return a ttl in the unit of redis and of scripts, at least 1."""
    return b"%d" % math.ceil(min(ttl * 1000, _LONGEST_MS))

"""What the hooks of drivers take and return: stored data, compare-and-set, and keys."""

from __future__ import annotations

import itertools
import os
import random
import re
import time
from numbers import Real
from typing import Any, NamedTuple

from ..serializer import Data, as_bytes

#: The stored form of a counter.
COUNT = re.compile(r"-?[0-9]{1,40}")

#: 30,000 years, in seconds. The largest time of PostgreSQL is not far behind.
LONGEST_TTL = 1e12

#: Makes a ``NamedTuple`` of the values of all its fields. A call of its class takes twice as long,
#: because ``NamedTuple`` has a ``__new__`` in Python.
new_tuple = tuple.__new__


class Stored(NamedTuple):
    """The data at a key, the token that a swap compares, and memcached's flags."""

    data: Data
    token: Any = None
    flags: int = 0


class Swap(NamedTuple):
    """The outcome of a compare-and-set; if it was not done, ``current`` is the data at the key."""

    done: bool
    current: Stored | None = None


DONE = Swap(True)


class SwapRequest(NamedTuple):
    """One of several compare-and-sets; see :meth:`pyramid_kvs.kvs.hooks.Hooks.raw_swap`."""

    key: str
    old: Stored | None
    data: Data
    ttl: float | None


class Claim(NamedTuple):
    """What is at a key, and whether the caller may replace it.

    See :meth:`pyramid_kvs.kvs.hooks.Hooks.raw_claim`.
    """

    data: Data | None
    #: Whether nobody has to replace the data. They are then not claimed.
    is_fresh: bool = False
    #: Proves that the claim is the caller's. ``None`` if it is not.
    owner: Any = None
    #: How long the store keeps the data, in seconds; negative if it does not say.
    left: float = -1.0


#: The claim of a key is stored at this string and the key.
CLAIM_KEY = "__kvs_claim::"

#: The end of a claim that nobody has, and that stops others from having it for a while.
PAUSED = " paused"

_process = os.urandom(6).hex()
_claims = itertools.count()


def new_owner() -> str:
    """Return what is stored as a claim. No other claim has it, and no codec decodes it."""
    return f"!claim {_process}-{os.getpid():x}-{next(_claims):x}"


def is_of_this_process(claim: Data | None) -> bool:
    """Return whether a claim was made by this process, and not by its parent."""
    return f" {_process}-{os.getpid():x}-" in str(claim)


def is_owned(data: Any, owner: str) -> bool:
    """Return whether the data of a claim are those of an owner, perhaps encoded once more."""
    return isinstance(data, (str, bytes)) and owner.encode() in as_bytes(data)


def checked_ttl(ttl: Any) -> float:
    """Return a ttl in seconds that every store can take: a number, at most :data:`LONGEST_TTL`.

    :raises TypeError: it is not a number.
    :raises ValueError: it is NaN.
    """
    if type(ttl) is not int:  # the usual type, which is neither a bool nor NaN
        if isinstance(ttl, bool) or not isinstance(ttl, Real):
            raise TypeError(f"ttl: found {ttl!r}, expected a number of seconds, or None")
        if ttl != ttl:
            raise ValueError(f"ttl: found {ttl!r}, expected a number of seconds, or None")
    return ttl if ttl < LONGEST_TTL else LONGEST_TTL


def encode_key(key: str) -> bytes:
    """Return the bytes of a key: UTF-8, lone surrogates included.

    :raises TypeError: the key is not a string.
    """
    if not isinstance(key, str):
        raise TypeError(f"a key is a string (str), not {type(key).__name__}")
    return key.encode("utf-8", "surrogatepass")


def decode_key(full_key: bytes) -> str:
    """Return the key that :func:`encode_key` encoded."""
    return full_key.decode("utf-8", "surrogatepass")


def key_pattern(pattern: str) -> re.Pattern[str]:
    """Return the regular expression of a ``get_keys`` pattern: ``*`` and ``?`` are special."""
    special = {"*": ".*", "?": "."}
    return re.compile("".join(special.get(c) or re.escape(c) for c in pattern), re.DOTALL)


def pause(attempt: int) -> None:
    """Wait a random time after a conflict: longer with each attempt, 20 ms at most."""
    if attempt > 0:
        time.sleep(random.uniform(0, min(0.02, 0.0005 * 2 ** min(attempt, 10))))

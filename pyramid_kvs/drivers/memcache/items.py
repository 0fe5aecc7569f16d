"""How data, ttl and flags become an item of memcached's, and back."""

from __future__ import annotations

import contextlib
import math
import re
import time
import zlib
from typing import NamedTuple

from ...exceptions import CodecError, KVSNotSupported
from ...kvs import Stored
from .protocol import Reply

#: What memcached takes for a relative time; a larger one is a date.
LONGEST_RELATIVE = 30 * 86400
LATEST_DATE = 2**31 - 1
LARGEST_TTL = 1e10

COMPRESSED, TEXT = 8, 16
LARGEST_INFLATED = 64 << 20

#: Begins data with a deadline of its own. No JSON text, pickle or Storable image begins so.
MAGIC = b"\x01kvs-until:"
WRAPPED = re.compile(rb"\x01kvs-until:([0-9]{1,11}\.[0-9]{6})?:")

#: python-memcached's ``decr`` leaves spaces where digits were.
PADDED = re.compile(rb"([0-9]+) +")


class Item(NamedTuple):
    """What memcached holds at a key, be its deadline over or not."""

    data: bytes
    flags: int
    cas: int
    ttl: int
    deadline: float | None

    def is_over(self) -> bool:
        return self.deadline is not None and self.deadline <= time.time()


def set_command(full_key: bytes, data: bytes, exptime: int, flags: int, mode: bytes) -> bytes:
    return b"ms %b %d T%d F%d%b\r\n%b\r\n" % (full_key, len(data), exptime, flags, mode, data)


def if_still(cas: int) -> bytes:
    """Return the flag that makes a command fail when the item has changed.

    :raises KVSNotSupported: the server gives all items the same number.
    """
    if not cas:
        raise KVSNotSupported("memcached runs with -C: it has no compare-and-set")
    return b" C%d" % cas


def has_fraction(ttl: float | None) -> bool:
    return ttl is not None and ttl % 1 != 0 and ttl < LARGEST_TTL


def exptime(ttl: float | None) -> int:
    """Return what memcached takes for a life in seconds: from 30 days on it wants a date."""
    if ttl is None:
        return 0
    if ttl <= LONGEST_RELATIVE:
        return math.ceil(ttl)
    seconds = math.ceil(min(ttl, LARGEST_TTL))
    now = int(time.time()) - 1  # the server's clock may be a tick behind
    if now + seconds <= LATEST_DATE:
        return now + seconds
    return LATEST_DATE if LATEST_DATE - now > LONGEST_RELATIVE else LONGEST_RELATIVE


def lasting(data: bytes, ttl: float | None) -> tuple[bytes, int]:
    """Return data and exptime that together make the ttl: the data as they are if they can."""
    if ttl is not None and has_fraction(ttl):
        return wrapped(data, time.time() + ttl)
    if data.startswith(MAGIC):
        data = MAGIC + b":" + data
    return data, exptime(ttl)


def wrapped(data: bytes, deadline: float) -> tuple[bytes, int]:
    """Return data that carry their deadline, and an exptime that is certainly later.

    An item with exptime 1 may be gone at once: memcached's clock ticks once in a second.
    """
    left = deadline - time.time()
    return b"%b%.6f:%b" % (MAGIC, deadline, data), exptime(max(left, 0) + 1)


def opened(data: bytes) -> tuple[bytes, float | None]:
    """Return data without what :func:`lasting` put before them, and their deadline."""
    if data.startswith(MAGIC):
        match = WRAPPED.match(data)
        if match:
            return data[match.end() :], float(match[1]) if match[1] else None
    elif data.endswith(b" "):
        padded = PADDED.fullmatch(data)
        if padded:
            return padded[1], None
    return data, None


def item(reply: Reply) -> Item:
    data, deadline = opened(reply.data)
    return Item(data, reply.number(2), reply.number(3), reply.number(4), deadline)


def stored(reply: Reply) -> Stored | None:
    data, deadline = opened(reply.data)
    if deadline is not None and deadline <= time.time():
        return None
    flags = reply.number(2)
    if is_compressed(flags):
        with contextlib.suppress(CodecError):
            return Stored(inflated(data), reply.number(3), flags & ~COMPRESSED)
    return Stored(data, reply.number(3), flags)


def is_value(reply: Reply) -> bool:
    return reply.words[0] == b"VA"


def readable(reply: Reply) -> bytes | None:
    data, deadline = opened(reply.data)
    if deadline is not None and deadline <= time.time():
        return None
    return inflated(data) if is_compressed(reply.number(2)) else data


def is_compressed(flags: int) -> bool:
    """Return whether python-memcached compressed the data.

    No other flag of its changes how data are read: for flag 1 it would unpickle them.
    """
    return bool(flags & COMPRESSED) and flags < 32


def inflated(data: bytes) -> bytes:
    """Return data as they were before python-memcached compressed them.

    :raises CodecError: they are damaged, or too large.
    """
    inflater = zlib.decompressobj()
    try:
        inflated = inflater.decompress(data, LARGEST_INFLATED)
    except zlib.error as error:
        raise CodecError("stored data are marked as compressed, and are not") from error
    if not inflater.eof:
        raise CodecError(f"compressed data are cut, or larger than {LARGEST_INFLATED} bytes")
    return inflated


def counts_in_place(item: Item, count: int, ttl: float | None) -> bool:
    """Return whether memcached's own arithmetic, which keeps the clock, can make the count."""
    has_its_clock = item.ttl >= 0 or ttl is None
    is_plain = item.deadline is None and item.data.isdigit() and len(item.data) <= 20
    return has_its_clock and is_plain and 0 <= count < 2**64

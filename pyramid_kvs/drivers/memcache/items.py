"""How data, ttl and flags become an item of memcached, and back."""

from __future__ import annotations

import contextlib
import math
import re
import time
import zlib
from typing import NamedTuple

from ...exceptions import CodecError, KVSError, KVSNotSupported
from ...kvs import Stored
from .protocol import Reply

#: What memcached takes for a relative time; a larger one is a date.
LONGEST_RELATIVE = 30 * 86400
LATEST_DATE = 2**31 - 1
LARGEST_TTL = 1e10

COMPRESSED, TEXT = 8, 16
LARGEST_INFLATED = 64 << 20

#: Data with a deadline begin with it. JSON, pickles and Storable images never do.
MAGIC = b"\x01kvs-until:"
WRAPPED = re.compile(rb"\x01kvs-until:([0-9]{1,11}\.[0-9]{6})?:")

#: Memcached's ``decr`` of 10 leaves a 9 and a space. Strings from a codec have the flag 16.
PADDED = re.compile(rb"([0-9]+) +")


class Token(NamedTuple):
    """What a compare-and-set compares: an item's number, and the server that gave it."""

    #: See :attr:`Connection.run_id`.
    run_id: bytes
    cas: int


class Item(NamedTuple):
    """An item of memcached, which may have a deadline that is over."""

    data: bytes
    flags: int
    token: Token
    ttl: int
    deadline: float | None

    def is_over(self) -> bool:
        return self.deadline is not None and self.deadline <= time.time()


def set_command(full_key: bytes, data: bytes, exptime: int, flags: int, mode: bytes) -> bytes:
    return b"ms %b %d T%d F%d%b\r\n%b\r\n" % (full_key, len(data), exptime, flags, mode, data)


def if_still(token: Token) -> bytes:
    """Return the flag that makes a command fail if the item has changed.

    :raises KVSNotSupported: the server gives all items the same number.
    """
    if not token.cas:
        raise KVSNotSupported("memcached runs with -C: it has no compare-and-set")
    return b" C%d" % token.cas


def has_fraction(ttl: float | None) -> bool:
    return ttl is not None and ttl % 1 != 0 and ttl < LARGEST_TTL


def exptime(ttl: float | None) -> int:
    """Return the time that memcached needs for a ttl: a date if it is longer than 30 days.

    It is a second longer, because memcached's clock ticks once a second. Its date may be up to a
    second ahead of the system's, or up to two seconds behind, as both are cut to whole seconds when
    it starts.
    """
    if ttl is None:
        return 0
    if ttl <= LONGEST_RELATIVE - 1:
        return math.ceil(ttl) + 1
    now = time.time()
    date = math.ceil(now + min(ttl, LARGEST_TTL)) + 1
    if date <= LATEST_DATE:
        return date
    return LATEST_DATE if LATEST_DATE - now > LONGEST_RELATIVE else LONGEST_RELATIVE


def lasting(data: bytes, ttl: float | None, flags: int) -> tuple[bytes, int]:
    """Return data and exptime that together make the ttl: the data as they are if they can."""
    if ttl is not None and has_fraction(ttl):
        return wrapped(data, time.time() + ttl)
    if data.startswith(MAGIC) or (data.endswith(b" ") and opened(data, flags)[0] != data):
        data = MAGIC + b":" + data
    return data, exptime(ttl)


def wrapped(data: bytes, deadline: float) -> tuple[bytes, int]:
    """Return data that carry their deadline, and an exptime that is certainly later."""
    left = max(deadline - time.time(), 0)
    return b"%b%.6f:%b" % (MAGIC, deadline, data), exptime(left)


def opened(data: bytes, flags: int) -> tuple[bytes, float | None]:
    """Return data without what :func:`lasting` put before them, and their deadline."""
    if data.startswith(MAGIC):
        match = WRAPPED.match(data)
        if match:
            return data[match.end() :], float(match[1]) if match[1] else None
    elif data.endswith(b" ") and not flags & TEXT:
        padded = PADDED.fullmatch(data)
        if padded:
            return padded[1], None
    return data, None


def item(reply: Reply) -> Item:
    """Return the item of a reply with data, flags, number and ttl."""
    flags = reply.number(2)
    data, deadline = opened(reply.data, flags)
    return Item(data, flags, Token(reply.run_id, reply.number(3)), reply.number(4), deadline)


def stored(reply: Reply) -> Stored | None:
    """Return the stored data of a reply with data, flags and number."""
    data = _current(reply)
    if data is None:
        return None
    flags = reply.number(2)
    token = Token(reply.run_id, reply.number(3))
    if is_compressed(flags):
        with contextlib.suppress(CodecError):
            return Stored(inflated(data), token, flags & ~COMPRESSED)
    return Stored(data, token, flags)


def is_value(reply: Reply) -> bool:
    """Return whether the reply has data."""
    return reply.words[0] == b"VA"


def check_stored(reply: Reply) -> None:
    """Raise an error for a reply to a command that stored nothing."""
    if reply.words[0] != b"HD":
        raise KVSError(f"memcached stored nothing: it answered {reply.words[0]!r}")


def readable(reply: Reply) -> bytes | None:
    """Return the data of a reply with data and flags, or ``None`` if their deadline is over."""
    data = _current(reply)
    return inflated(data) if data is not None and is_compressed(reply.number(2)) else data


def _current(reply: Reply) -> bytes | None:
    """Return data as :func:`readable` does, but perhaps compressed."""
    data = reply.data
    if not (data.startswith(MAGIC) or data.endswith(b" ")):
        return data
    data, deadline = opened(data, reply.number(2))
    return data if deadline is None or deadline > time.time() else None


def is_compressed(flags: int) -> bool:
    """Return whether python-memcached compressed the data.

    Its other flags do not change how data are read here. For flag 1 python-memcached unpickles.
    """
    return bool(flags & COMPRESSED) and flags < 32


def inflated(data: bytes) -> bytes:
    """Return data as they were before python-memcached compressed them.

    :raises CodecError: the data are damaged or too large.
    """
    inflater = zlib.decompressobj()
    try:
        inflated = inflater.decompress(data, LARGEST_INFLATED)
    except zlib.error as error:
        raise CodecError("the stored data are marked as compressed, but are not") from error
    if not inflater.eof:
        raise CodecError(
            f"the compressed data are incomplete, or larger than {LARGEST_INFLATED} bytes"
        )
    return inflated


def counts_in_place(item: Item, count: int, ttl: float | None) -> bool:
    """Return whether memcached's own arithmetic, which keeps its clock, can make the count.

    It has 64 bits, and fills up a shorter count with spaces.
    """
    if item.deadline is not None or not (item.ttl >= 0 or ttl is None):
        return False
    if not (item.data.isdigit() and len(item.data) <= 20):
        return False
    pads = len(str(count)) < len(item.data)
    return 0 <= count < 2**64 and int(item.data) < 2**64 and not (pads and item.flags & TEXT)

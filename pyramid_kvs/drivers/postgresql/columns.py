"""Keys, data and patterns in the binary form of the postgresql driver's table."""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from ...kvs import Data
from ...kvs.stored import LONGEST_TTL

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

    from .statements import Param

#: The object ids of types.
BOOL = 16
BYTEA = 17
FLOAT8 = 701

#: A B-tree entry has about 2,700 bytes. A longer key is shortened to a length that no key which
#: is stored unchanged has.
LONGEST_KEY = 1000

#: A batch takes a fraction of ``statement_timeout``: 5,000 rows of 100 bytes take 0.1 seconds.
BATCH_ROWS = 5_000
BATCH_BYTES = 8_000_000

T = TypeVar("T")


# -- types -----------------------------------------------------------------------------------


def float8(number: float) -> bytes:
    return struct.pack("!d", number)


def from_float8(data: bytes) -> float:
    return float(struct.unpack("!d", data)[0])


def int8(number: int) -> bytes:
    return struct.pack("!q", number)


def from_int8(data: bytes) -> int:
    return int.from_bytes(data, "big", signed=True)


def boolean(value: bool) -> bytes:
    return b"\x01" if value else b"\x00"


def array(oid: int, items: Sequence[Param]) -> bytes:
    """Return a PostgreSQL array with one dimension.

    :param oid: the type of its elements.
    """
    head = struct.pack("!iiI", 1, None in items, oid) + struct.pack("!ii", len(items), 1)
    return head + b"".join(_elements(items))


def _elements(items: Sequence[Param]) -> Iterator[bytes]:
    for item in items:
        if item is None:
            yield b"\xff\xff\xff\xff"
        else:
            yield struct.pack("!i", len(item))
            yield item


def rows(result: PGresult) -> Iterator[tuple[bytes | None, ...]]:
    """Return the rows of a result, with ``None`` for null."""
    columns = range(result.nfields)
    for row in range(result.ntuples):
        yield tuple(result.get_value(row, column) for column in columns)


# -- columns ---------------------------------------------------------------------------------


def stored_key(full_key: bytes) -> tuple[bytes, bytes | None]:
    """Return the columns ``key`` and ``long_key``."""
    if len(full_key) <= LONGEST_KEY:
        return full_key, None
    return full_key[:LONGEST_KEY] + hashlib.sha256(full_key).digest(), full_key


def encode_data(data: Data) -> tuple[bytes, bytes]:
    """Return the columns ``data`` and ``is_text``."""
    if isinstance(data, str):
        return data.encode("utf-8", "surrogatepass"), boolean(True)
    return bytes(data), boolean(False)


def decode_data(data: bytes, is_text: bytes) -> Data:
    return data.decode("utf-8", "surrogatepass") if is_text == b"\x01" else data


def seconds(ttl: float | None) -> bytes | None:
    return None if ttl is None else float8(min(ttl, LONGEST_TTL))


# -- batches ---------------------------------------------------------------------------------


def batches(items: Iterable[T], length: Callable[[T], int]) -> Iterator[list[T]]:
    """Split items into lists that are small enough for one statement.

    :param length: returns the number of bytes of an item. A larger one is a list by itself.
    """
    batch: list[T] = []
    room = BATCH_BYTES
    for item in items:
        room -= length(item)
        if batch and (room < 0 or len(batch) == BATCH_ROWS):
            yield batch
            batch, room = [], BATCH_BYTES - length(item)
        batch.append(item)
    if batch:
        yield batch


# -- patterns --------------------------------------------------------------------------------


def successor(prefix: bytes) -> bytes | None:
    """Return the least key above all that begin with the prefix, or ``None`` if there is none."""
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes([kept[-1] + 1]) if kept else None


def like(prefix: bytes, pattern: bytes) -> bytes:
    """Return a LIKE pattern of bytes that matches at least what a pattern of ``get_keys`` does."""
    rest = _escaped(pattern).replace(b"*", b"%").replace(b"?", b"_%")
    return _escaped(prefix) + rest


def _escaped(literal: bytes) -> bytes:
    return re.sub(rb"([\\%_])", rb"\\\1", literal)

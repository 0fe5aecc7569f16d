"""The header of an image: its version, its byte order, and the layout of its numbers."""

from __future__ import annotations

import struct
from typing import Any, Final, NamedTuple

from .floats import FLOAT_READERS, Unpack
from .format import FILE_MAGIC, StorableError

OLD_FILE_MAGIC: Final = b"perl-store"
BYTE_ORDERS: Final = {b"12345678": "<", b"1234": "<", b"87654321": ">", b"4321": ">"}


class Header(NamedTuple):
    """The content of a header; ``start`` is the offset of the first record."""

    major: int
    is_network: bool
    order: str
    iv_size: int
    nv_size: int
    long_size: int
    start: int


class _Cursor:
    """Reads the bytes of a header in order."""

    def __init__(self, data: bytes, pos: int) -> None:
        self.data = data
        self.pos = pos

    def take(self, length: int) -> bytes:
        taken = self.data[self.pos : self.pos + length]
        if len(taken) != length:
            raise StorableError("the image ends within its header", len(self.data))
        self.pos += length
        return taken

    def take_byte(self) -> int:
        return self.take(1)[0]


def parse_header(data: bytes) -> Header:
    """Read the header of an image in memory or in a file, of any major version up to 2."""
    if data.startswith(OLD_FILE_MAGIC):
        return _parse_oldest(_Cursor(data, len(OLD_FILE_MAGIC)))
    cursor = _Cursor(data, len(FILE_MAGIC) if data.startswith(FILE_MAGIC) else 0)
    version = cursor.take_byte()
    major, is_network = version >> 1, bool(version & 1)
    if major > 2:
        raise StorableError(
            f"not a Storable image: major version {major} (known: 0, 1 and 2)", cursor.pos - 1
        )
    minor = cursor.take_byte() if major == 2 else 0
    if is_network:
        return Header(major, True, ">", 0, 0, 4, cursor.pos)
    return _parse_native(cursor, major, major == 2 and minor >= 2)


def _parse_oldest(cursor: _Cursor) -> Header:
    """Read the header after ``perl-store``, where Storable 0.1 wrote no version byte."""
    version = cursor.take_byte()
    if version == 1:
        return Header(0, True, ">", 0, 0, 4, cursor.pos)
    if version > 1:
        cursor.pos -= 1
    return _parse_native(cursor, 0, False)


def _parse_native(cursor: _Cursor, major: int, has_nv_size: bool) -> Header:
    start = cursor.pos
    name = cursor.take(cursor.take_byte())
    order = BYTE_ORDERS.get(name)
    if order is None:
        known = ", ".join(order.decode() for order in BYTE_ORDERS)
        raise StorableError(f"unknown byte order (known: {known})", start)
    sizes = cursor.take(3)
    if not set(sizes) <= {4, 8}:
        raise StorableError(
            f"unknown sizes of int, long and pointer: {tuple(sizes)} (known: 4, 8)", cursor.pos - 3
        )
    nv_size = cursor.take_byte() if has_nv_size else 8
    if (order, nv_size) not in FLOAT_READERS:
        raise StorableError(f"unknown size of floats: {nv_size} (known: 8, 12, 16)", cursor.pos - 1)
    return Header(major, False, order, len(name), nv_size, sizes[1], cursor.pos)


def choose_numbers(header: Header) -> tuple[Unpack, Unpack]:
    """Return the functions that read the payloads of SX_INTEGER and SX_DOUBLE."""
    if header.is_network:
        return _refuse_number, _refuse_number
    integer = struct.Struct(header.order + ("q" if header.iv_size == 8 else "i")).unpack_from
    return integer, FLOAT_READERS[header.order, header.nv_size]


def _refuse_number(data: bytes, pos: int) -> tuple[Any, ...]:
    raise StorableError("an image in network order contains a native number", pos - 1)

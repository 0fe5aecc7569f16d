"""Builds images record by record, also those that no current perl writes."""

from __future__ import annotations

import struct

NETWORK = b"\x05\x0b"
SIZES = b"\x04\x08\x08"


def native(order: bytes = b"12345678", nv_size: int = 8, sizes: bytes = SIZES) -> bytes:
    """Return the header of a native image of major version 2."""
    return b"\x04\x0b" + bytes([len(order)]) + order + sizes + bytes([nv_size])


class Records:
    """Writes records with lengths in one byte order, "<" or ">"."""

    def __init__(self, order: str = ">") -> None:
        self.order = order

    def u32(self, number: int) -> bytes:
        return struct.pack(self.order + "I", number)

    def u64(self, number: int) -> bytes:
        return struct.pack(self.order + "Q", number)

    def array(self, *items: bytes) -> bytes:
        return b"\x02" + self.u32(len(items)) + b"".join(items)

    def hash(self, /, **items: bytes) -> bytes:
        body = [value + self.key(name.encode()) for name, value in items.items()]
        return b"\x03" + self.u32(len(items)) + b"".join(body)

    def flag_hash(self, *items: bytes, flags: int = 0) -> bytes:
        return b"\x19" + bytes([flags]) + self.u32(len(items)) + b"".join(items)

    def key(self, name: bytes) -> bytes:
        return self.u32(len(name)) + name

    def long_text(self, text: bytes, kind: int = 1) -> bytes:
        return bytes([kind]) + self.u32(len(text)) + text


BIG = Records()
LITTLE = Records("<")
u32 = BIG.u32
UNDEF = b"\x05"
HOOK = b"\x13\x00\x01A\x01h"
YES, NO = b"\x0f", b"\x10"


def byte(number: int) -> bytes:
    return bytes([8, number + 128])


def text(raw: bytes, kind: int = 10) -> bytes:
    return bytes([kind, len(raw)]) + raw


def ref(record: bytes, kind: int = 4) -> bytes:
    return bytes([kind]) + record


def same(tag: int) -> bytes:
    """Return an SX_OBJECT record, which names the object with this tag again."""
    return b"\x00" + struct.pack(">I", tag)


def bless(name: bytes, record: bytes) -> bytes:
    return b"\x11" + bytes([len(name)]) + name + record


def bless_again(number: int, record: bytes) -> bytes:
    return b"\x12" + bytes([number]) + record

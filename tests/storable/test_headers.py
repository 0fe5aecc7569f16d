"""Headers, byte orders and the layouts of numbers, in images that were built by hand."""

from __future__ import annotations

import math
import struct
from typing import Any

import pytest

from pyramid_kvs.storable import StorableError, thaw
from tests.storable.compare import assert_value
from tests.storable.images import SIZES, UNDEF, Records, byte, native, ref, same


@pytest.mark.parametrize(
    ("order", "number"),
    [(b"12345678", "<q"), (b"1234", "<i"), (b"87654321", ">q"), (b"4321", ">i")],
)
@pytest.mark.parametrize("sizes", [b"\x04\x04\x04", SIZES])
@pytest.mark.parametrize("magic", [b"", b"pst0"])
def test_byte_orders(order: bytes, number: str, sizes: bytes, magic: bytes) -> None:
    """Lengths, numbers and floats follow the byte order; object tags and SX_NETINT do not."""
    records = Records(number[0])
    body = records.array(
        b"\x06" + struct.pack(number, -140),
        b"\x07" + struct.pack(number[0] + "d", 1.5),
        b"\x09" + struct.pack(">i", -2),
        ref(records.array()),
        ref(same(5)),
        ref(records.hash(key=records.long_text(b"long"))),
        records.flag_hash(byte(1) + b"\x01" + records.key("ü".encode())),
        records.long_text("é".encode(), 24),
        b"\x16" + UNDEF + records.u32(7),
    )
    shared: list[Any] = []
    assert_value(
        magic + native(order, sizes=sizes) + body,
        [-140, 1.5, -2, shared, shared, {"key": "long"}, {"ü": 1}, "é", None],
    )


@pytest.mark.parametrize("minor", [0, 1, 2, 5, 11, 12, 99, 255])
def test_any_minor_version(minor: int) -> None:
    """Before minor version 2, a native header has no size of floats."""
    nv_size = b"\x08" if minor >= 2 else b""
    data = b"\x04" + bytes([minor]) + b"\x0812345678" + SIZES + nv_size
    assert thaw(data + b"\x07" + struct.pack("<d", -0.5)) == -0.5
    assert thaw(b"\x05" + bytes([minor]) + byte(3)) == 3


def encode_x87(value: float) -> bytes:
    sign = 0x8000 if math.copysign(1, value) < 0 else 0
    if math.isinf(value):
        return struct.pack("<QH", 1 << 63, sign | 0x7FFF)
    if value == 0:
        return struct.pack("<QH", 0, sign)
    fraction, exponent = math.frexp(abs(value))
    return struct.pack("<QH", int(math.ldexp(fraction, 64)), sign | (exponent + 16382))


def encode_quad(value: float, order: str) -> bytes:
    sign = 0x8000 if math.copysign(1, value) < 0 else 0
    if math.isinf(value):
        bits = (sign | 0x7FFF) << 112
    elif value == 0:
        bits = sign << 112
    else:
        fraction, exponent = math.frexp(abs(value))
        mantissa = int(math.ldexp(fraction, 53)) << 60
        bits = (sign | (exponent + 16382)) << 112 | (mantissa & ((1 << 112) - 1))
    return bits.to_bytes(16, "little" if order == "<" else "big")


FLOATS = [1.0, -1.5, 0.1, 1e300, -1e-300, 5e-324, 2.0**-1022, 1.7976931348623157e308]


@pytest.mark.parametrize("value", [*FLOATS, 0.0, -0.0, math.inf, -math.inf])
def test_long_doubles(value: float) -> None:
    """x87 numbers of 12 and 16 bytes with any padding, and IEEE quads of both orders."""
    x87 = b"\x07" + encode_x87(value)
    assert_value(native(b"1234", 12) + x87 + b"\xde\xad", value)
    assert_value(native(b"12345678", 16) + x87 + b"\0" * 6, value)
    assert_value(native(b"12345678", 16) + x87 + b"\xde\xad\xbe\xef\0\0", value)
    assert_value(native(b"87654321", 16) + b"\x07" + encode_quad(value, ">"), value)
    if value:
        assert_value(native(b"12345678", 16) + b"\x07" + encode_quad(value, "<"), value)


def test_known_x87_bytes() -> None:
    """The bytes that a perl on x86-64 with long doubles writes for 1/10 and pi."""
    head = native(b"12345678", 16) + b"\x07"
    assert thaw(head + bytes.fromhex("cdccccccccccccccfb3f") + b"\0" * 6) == 0.1
    assert thaw(head + bytes.fromhex("35c26821a2da0fc90040") + b"\0" * 6) == math.pi


def test_long_double_limits() -> None:
    """Too large numbers become infinity, too small ones zero; NaN remains NaN."""

    def x87(mantissa: int, exponent: int) -> Any:
        return thaw(native(nv_size=12) + b"\x07" + struct.pack("<QHH", mantissa, exponent, 0))

    assert x87(1 << 63, 16383 + 1024) == math.inf
    assert x87((1 << 64) - 1, 16383 + 1023) == math.inf
    assert x87(1 << 63, 0x7FFE) == math.inf
    assert x87(1 << 63, 1) == 0.0
    assert x87(1, 0) == 0.0
    assert x87(0, 0x7FFE) == 0.0
    assert x87((1 << 63) + 1, 16383 - 1075) == 5e-324
    assert x87((1 << 63) + (1 << 10), 16383) == 1.0
    assert math.isnan(x87(3 << 62, 0x7FFF))
    assert math.isnan(thaw(native(b"4321", 16) + b"\x07" + b"\x7f\xff\x80" + b"\0" * 13))


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\x05",
        b"\x06\x0b",
        b"\xff\x0b",
        b"pst0",
        b"pst1\x05\x0b",
        b"perl-store",
        native(b"12345679"),
        native(b"123456789"),
        native(b""),
        native(b"8765"),
        native(nv_size=10),
        native(nv_size=0),
        native(b"87654321", nv_size=12),
        native(sizes=b"\x04\x63\x08"),
        native()[:9],
        native()[:-1],
    ],
    ids=repr,
)
def test_bad_headers(head: bytes) -> None:
    with pytest.raises(StorableError) as error:
        thaw(head if len(head) < 3 or head == b"perl-store" else head + byte(1))
    assert error.value.offset is not None


def test_errors_show_no_data() -> None:
    """Data that are not an image can be private, and the message goes to the log."""
    with pytest.raises(StorableError, match=r"unknown byte order .known: 12345678, ") as error:
        thaw(b"\x04\x0b\x08hunter22" + SIZES)
    assert "hunter" not in str(error.value)

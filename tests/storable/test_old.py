"""Images of major versions 0 and 1, which perls wrote until 1999."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from pyramid_kvs.storable import StorableError, thaw
from tests.storable.compare import assert_value
from tests.storable.images import BIG, LITTLE, SIZES, byte, same, text, u32

NETWORK_1 = b"\x03"
NATIVE_1 = b"\x02\x0812345678" + SIZES
X = b"X"


def array(*items: bytes) -> bytes:
    return BIG.array(*items) + X


LOOP: list[Any] = []
LOOP.append(LOOP)
SHARED = ["s"]


@pytest.mark.parametrize(
    ("record", "value"),
    [
        (b"\x05" + X, None),
        (byte(-1) + X, -1),
        (b"\x09" + struct.pack(">i", -140) + X, -140),
        (text(b"\xff") + X, b"\xff"),
        (BIG.long_text(b"long") + X, "long"),
        (b"\x0f" + X, True),
        (array(byte(1) + X), [1]),
        (array(), []),
        (b"\x03" + u32(1) + byte(1) + X + BIG.key(b"k") + X, {"k": 1}),
        (b"\x04\x04" + byte(1) + X * 3, 1),
        (b"\x0c\x04" + array(byte(1) + X) + X * 2, [1]),
        (byte(1) + b"b\x01A" + X, 1),
        (byte(1) + b"B" + u32(300) + b"A" * 300 + b"b\x01A" + X, 1),
        (array(b"\x04" + same(0) + X), LOOP),
        (b"\x04" + array(same(1)) + X, LOOP),
        (array(b"\x04" + array(text(b"s") + X) + X, b"\x04" + same(2) + X), [SHARED, SHARED]),
    ],
    ids=lambda part: repr(part)[:30],
)
def test_major_1(record: bytes, value: Any) -> None:
    """Images in memory and in files are read, and every prefix is refused."""
    data = NETWORK_1 + record
    assert_value(data, value)
    assert_value(b"pst0" + data + b"more", value)
    assert_value(data, value, blessed=lambda _name, inner: inner)
    for end in range(len(data)):
        with pytest.raises(StorableError):
            thaw(data[:end])


def test_major_1_native() -> None:
    """The header has no size of floats, and they have eight bytes."""
    body = b"\x06" + struct.pack("<q", -(2**40)) + X, b"\x07" + struct.pack("<d", 0.1) + X
    assert_value(NATIVE_1 + LITTLE.array(*body) + X, [-(2**40), 0.1])
    order = b"\x02\x044321\x04\x04\x04"
    assert thaw(order + b"\x06" + struct.pack(">i", -140) + X) == -140


def record_0(identifier: int, body: bytes, notes: bytes = X) -> bytes:
    return u32(identifier) + body + notes


ZERO = record_0(
    7,
    b"\x02"
    + u32(4)
    + b"i" + record_0(100, byte(1))
    + b"I"
    + b"i" + record_0(3, b"\x04" + record_0(5, b"\x03" + u32(2)
        + b"v" + record_0(9, text(b"s")) + b"k" + BIG.key(b"a")
        + b"V" + b"k" + BIG.key(b"b")))
    + b"i" + record_0(11, b"\x04" + record_0(5, b"\0", b"")),
)  # fmt: skip


@pytest.mark.parametrize("head", [b"\x01", b"pst0\x01", b"perl-store\x01"])
def test_major_0(head: bytes) -> None:
    shared = {"a": "s", "b": None}
    assert_value(head + ZERO, [1, None, shared, shared])
    for end in range(len(head), len(head + ZERO)):
        with pytest.raises(StorableError):
            thaw((head + ZERO)[:end])


@pytest.mark.parametrize(
    "head", [b"\x00\x0812345678", b"perl-store\x00\x0812345678", b"perl-store\x0812345678"]
)
@pytest.mark.parametrize("long_size", [4, 8])
def test_major_0_native(head: bytes, long_size: int) -> None:
    """Identifiers have the size of a C long. The oldest files have no version byte."""
    one, two = (number.to_bytes(long_size, "little") for number in (1, 2))
    body = one + LITTLE.array()[:1] + LITTLE.u32(2)
    body += b"i" + two + b"\x06" + struct.pack("<q", -140) + X
    body += b"i" + one + b"\0" + X
    data = head + bytes([4, long_size, 8]) + body
    loop: list[Any] = [-140]
    loop.append(loop)
    assert_value(data, loop)


def test_classes() -> None:
    """The callback gets the class from the notes, inner objects first."""
    inner = b"\x04" + BIG.array(byte(1) + X) + b"b\x02In" + X + X
    data = NETWORK_1 + BIG.array(inner, byte(5) + b"b\x03Num" + X) + b"b\x03Out" + X
    assert thaw(data, blessed=lambda name, value: (name, value)) == (
        "Out",
        [("In", [1]), ("Num", 5)],
    )


def test_cycle_through_an_object() -> None:
    data = NETWORK_1 + BIG.array(b"\x04" + same(0) + X) + b"b\x01A" + X
    wrapped = thaw(data, blessed=lambda name, value: (name, value))
    assert wrapped[1][0] is wrapped


@pytest.mark.parametrize(
    "data",
    [
        NETWORK_1 + byte(1) + b"Y",
        NETWORK_1 + b"\x04" + same(0) + X,
        NETWORK_1 + same(0),
        NETWORK_1 + b"\x06" + b"\0" * 8 + X,
        NETWORK_1 + b"\x02" + u32(1 << 31) + X,
        NETWORK_1 + b"\x11\x01A" + byte(1) + X,
        NETWORK_1 + byte(1) + b"B" + u32(1 << 31) + X,
        b"\x01" + record_0(1, b"\x02" + u32(1) + b"v" + record_0(2, byte(1))),
        b"\x01" + record_0(1, b"\x03" + u32(1) + b"V" + b"x" + BIG.key(b"k")),
        b"\x01" + record_0(1, b"\0"),
        b"\x01" + record_0(1, b"\x04" + record_0(1, b"\0", b"")),
        b"\x01" + record_0(1, b"\x0f"),
        b"perl-store\x02",
    ],
    ids=repr,
)
def test_refused(data: bytes) -> None:
    with pytest.raises(StorableError) as error:
        thaw(data)
    assert error.value.offset is not None


@pytest.mark.parametrize("major", [0, 1])
def test_depth(major: int) -> None:
    identifier = u32(1) if major == 0 else b""
    mark = b"i" if major == 0 else b""
    level = identifier + b"\x04" + identifier + b"\x02" + u32(1) + mark
    value = thaw(bytes([1 + 2 * major]) + level * 50_000 + identifier + b"\x05X" + X * 100_000)
    for _ in range(50_000):
        (value,) = value
    assert value is None

"""Every record type and header, in images put together by hand."""

from __future__ import annotations

import math
import struct
import sys
from typing import Any

import pytest

from pyramid_kvs.exceptions import CodecError
from pyramid_kvs.storable import StorableError, retrieve, thaw
from tests.storable.compare import differ
from tests.storable.images import (
    BIG,
    LITTLE,
    NETWORK,
    NO,
    SIZES,
    UNDEF,
    YES,
    Records,
    bless,
    bless_again,
    byte,
    native,
    ref,
    same,
    text,
    u32,
)

NATIVE = native()


def net(record: bytes) -> Any:
    return thaw(NETWORK + record)


def assert_value(data: bytes, want: Any, **options: Any) -> None:
    assert differ(want, thaw(data, **options)) is None


# -- headers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "number"),
    [(b"12345678", "<q"), (b"1234", "<i"), (b"87654321", ">q"), (b"4321", ">i")],
)
@pytest.mark.parametrize("sizes", [b"\x04\x04\x04", SIZES])
@pytest.mark.parametrize("magic", [b"", b"pst0"])
def test_byte_orders(order: bytes, number: str, sizes: bytes, magic: bytes) -> None:
    """Lengths, numbers and floats follow the order string, object tags and SX_NETINT do not."""
    r = Records(number[0])
    body = r.array(
        b"\x06" + struct.pack(number, -140),
        b"\x07" + struct.pack(number[0] + "d", 1.5),
        b"\x09" + struct.pack(">i", -2),
        ref(r.array()),
        ref(same(5)),
        ref(r.hash(key=r.long_text(b"long"))),
        r.flag_hash(byte(1) + b"\x01" + r.key("ü".encode())),
        r.long_text("é".encode(), 24),
        b"\x16" + UNDEF + r.u32(7),
    )
    shared: list[Any] = []
    assert_value(
        magic + native(order, sizes=sizes) + body,
        [-140, 1.5, -2, shared, shared, {"key": "long"}, {"ü": 1}, "é", None],
    )


@pytest.mark.parametrize("minor", [0, 1, 2, 5, 11, 12, 99, 255])
def test_any_minor_version(minor: int) -> None:
    """Before minor 2 a native header has no size of floats."""
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
    """The bytes of 1/10 and of pi as an x86-64 perl with long doubles writes them."""
    head = native(b"12345678", 16) + b"\x07"
    assert thaw(head + bytes.fromhex("cdccccccccccccccfb3f") + b"\0" * 6) == 0.1
    assert thaw(head + bytes.fromhex("35c26821a2da0fc90040") + b"\0" * 6) == math.pi


def test_long_double_limits() -> None:
    """Rounds once, to infinity above the floats, to zero below them; not-a-numbers stay such."""

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
    """What is no image may be somebody's text, and the message goes to the log."""
    with pytest.raises(StorableError, match=r"unknown byte order .known: 12345678, ") as error:
        thaw(b"\x04\x0b\x08hunter22" + SIZES)
    assert "hunter" not in str(error.value)


# -- values ------------------------------------------------------------------------------------

SHARED: list[Any] = ["s"]
LOOP: list[Any] = []
LOOP.append(LOOP)
HOOK_LOOP: list[Any] = [b"h"]
HOOK_LOOP.append(HOOK_LOOP)
LAST = ref(BIG.array(text(b"s")))  # takes two tags for itself


def tagged(record: bytes, last: int) -> tuple[bytes, list[Any]]:
    """An array of a record and a list twice, the second time by tag number ``last``."""
    return BIG.array(record, LAST, ref(same(last))), [SHARED, SHARED]


SCALARS = [
    (UNDEF, None),
    (b"\x0e", None),
    (b"\x1f", None),
    (YES, True),
    (NO, False),
    (b"\x22", True),
    (b"\x23", False),
    (byte(-128), -128),
    (byte(127), 127),
    (b"\x09\xff\xff\xff\x74", -140),
    (text(b"12"), "12"),
    (text(b""), ""),
    (text(b"\xff"), b"\xff"),
    (text("é".encode()), "é"),
    (text(b"\xed\xa0\x80"), b"\xed\xa0\x80"),
    (text("é".encode(), 23), "é"),
    (text(b"\xed\xa0\x80", 23), b"\xed\xa0\x80"),
    (text(b"\xf4\x90\x80\x80", 23), b"\xf4\x90\x80\x80"),
    (BIG.long_text(b"x" * 70000), "x" * 70000),
    (BIG.long_text(b"\xff" * 300), b"\xff" * 300),
    (BIG.long_text("é".encode() * 300, 24), "é" * 300),
    (BIG.long_text(b"\xed\xa0\x80", 24), b"\xed\xa0\x80"),
]


@pytest.mark.parametrize(("record", "value"), SCALARS, ids=lambda part: repr(part)[:24])
def test_scalars(record: bytes, value: Any) -> None:
    """As the root, in a list, in a hash, behind references, in a class; each takes one tag."""
    assert_value(NETWORK + record, value)
    for kind in (4, 20, 27, 28, 11, 12, 13):
        assert_value(NETWORK + ref(record, kind), value)
        assert_value(NETWORK + BIG.array(ref(ref(record, kind)), same(1)), [value, value])
    assert_value(NETWORK + BIG.hash(k=record), {"k": value})
    assert_value(NETWORK + bless(b"A", ref(bless(b"B", record))), value)
    array, rest = tagged(record, 3)
    assert_value(NETWORK + array, [value, *rest])


HOOK = b"\x13\x00\x01A\x01h"
RARE = [
    (ref(byte(1)), 1, 2),
    (ref(ref(ref(byte(1)))), 1, 4),
    (b"\x0b" + ref(bless(b"T", BIG.array(byte(1)))), [1], 4),
    (b"\x0c" + BIG.hash(a=byte(1)), {"a": 1}, 3),
    (b"\x0d" + byte(5), 5, 2),
    (b"\x15" + ref(BIG.hash()) + text(b"key"), None, 4),
    (b"\x15" + BIG.array(byte(1), byte(2)) + BIG.hash(a=byte(3)), None, 6),
    (b"\x16" + ref(BIG.array()) + u32(3), None, 3),
    (ref(b"\x15" + UNDEF + UNDEF), None, 4),
    (ref(ref(b"\x16" + UNDEF + u32(0))), None, 4),
    (bless(b"A", byte(1)), 1, 1),
    (b"\x11\x80" + u32(3) + b"Abc" + byte(1), 1, 1),
    (b"\x11\xff" + u32(200) + b"A" * 200 + byte(1), 1, 1),
    (bless(b"A", bless_again(0, byte(1))), 1, 1),
    (bless(b"A", b"\x12\x80" + u32(0) + BIG.array()), [], 1),
    (bless(b"A", bless(b"B", BIG.hash())), {}, 1),
    (b"\x1d\x04v1.2" + text(b"\x01\x02"), "\x01\x02", 1),
    (b"\x1d\x02v1" + b"\x1d\x02v2" + BIG.array(byte(1)), [1], 2),
    (b"\x1e" + u32(4) + b"v1.2" + text(b"\x01", 23), "\x01", 1),
    (b"\x1a" + text(b"{ 1 }"), "{ 1 }", 2),
    (b"\x1a" + text(b"{ 1 }\0\xff\xfe"), "{ 1 }", 2),
    (b"\x1a" + BIG.long_text(b"\xff{ 1 }"), b"\xff{ 1 }", 2),
    (b"\x1a" + text("{ é }".encode(), 23), "{ é }", 2),
    (b"\x1a" + BIG.long_text("{ é }".encode(), 24), "{ é }", 2),
    (ref(bless(b"C", b"\x1a" + text(b"{}"))), "{}", 3),
    (bless(b"Regexp", b"\x20\x00\x02ab\x02ix"), "(?^ix:ab)", 1),
    (b"\x20\x01" + u32(300) + b"a" * 300 + b"\x00", "(?^:" + "a" * 300 + ")", 1),
    (b"\x20\x00\x01\xff\x00", b"(?^:\xff)", 1),
    (ref(b"\x20\x00\x00\x00"), "(?^:)", 2),
    (b"\x21\x01" + BIG.u64(2) + b"ab", "ab", 1),
    (b"\x21\x18" + BIG.u64(2) + "é".encode(), "é", 1),
    (b"\x21\x02" + BIG.u64(2) + byte(1) + byte(2), [1, 2], 3),
    (b"\x21\x02" + BIG.u64(0), [], 1),
    (b"\x21\x03" + BIG.u64(1) + byte(1) + BIG.key(b"k"), {"k": 1}, 2),
    (b"\x21\x19\x00" + BIG.u64(1) + byte(1) + b"\x02" + BIG.key(b"\xe9"), {"é": 1}, 2),
    (b"\x21\x13\x00\x01A" + BIG.u64(2) + b"hh", [b"hh"], 1),
    (b"\x21\x13\x08\x01A" + BIG.u64(2) + b"hh", [b"hh"], 1),
    (BIG.flag_hash(byte(1) + b"\x00" + BIG.key(b"a"), flags=1), {"a": 1}, 2),
    (BIG.flag_hash(byte(1) + b"\x05" + BIG.key("é".encode())), {"é": 1}, 2),
    (BIG.flag_hash(byte(1) + b"\x01" + BIG.key(b"\xff")), {b"\xff": 1}, 2),
    (BIG.flag_hash(byte(1) + b"\x06" + BIG.key(b"\xe9")), {"é": 1}, 2),
    (BIG.flag_hash(byte(1) + b"\x03" + BIG.key("é".encode())), {"é": 1}, 2),
    (BIG.flag_hash(byte(1) + b"\xe0" + BIG.key(b"a")), {"a": 1}, 2),
    (BIG.flag_hash(b"\x0e\x10" + BIG.key(b"gone"), byte(1) + b"\x00" + BIG.key(b"a")), {"a": 1}, 3),
    (BIG.flag_hash(b"\x0e\x11" + BIG.key("é".encode()), b"\x0e\x12" + BIG.key(b"\xe9")), {}, 3),
    (BIG.flag_hash(byte(1) + b"\x08" + text(b"rec")), {"rec": 1}, 3),
    (BIG.flag_hash(byte(1) + b"\x18" + text(b"rec")), {"rec": 1}, 3),
    (BIG.flag_hash(byte(1) + b"\x08" + byte(-5), byte(2) + b"\x08" + UNDEF), {"-5": 1, "": 2}, 5),
    (BIG.flag_hash(byte(1) + b"\x08" + ref(text(b"\xff"))), {b"\xff": 1}, 4),
    (BIG.flag_hash(BIG.array() + b"\x08" + bless(b"A", text(b"k"))), {"k": []}, 3),
    (b"\x03" + u32(2) + byte(1) + BIG.key(b"a") + byte(2) + BIG.key(b"a"), {"a": 2}, 3),
    (HOOK, [b"h"], 1),
    (ref(HOOK), [b"h"], 2),
    (bless(b"Outer", HOOK), [b"h"], 1),
    (b"\x13\x0c" + u32(1) + b"A" + u32(2) + b"\xff\xfe", [b"\xff\xfe"], 1),
    (b"\x13\x42" + BIG.array(byte(5)) + b"\x82\x01A\x01h\x01" + u32(1), [b"h", [5]], 3),
    (
        b"\x13\x42" + UNDEF + b"\x42" + byte(7) + b"\x82\x01A\x00\x02" + u32(2) + u32(1),
        [b"", 7, None],
        3,
    ),
    (b"\x13\x41" + HOOK + b"\x91\x01B\x00" + u32(2) + u32(1) + u32(1), [b"", *[[b"h"]] * 2], 2),
    (b"\x13\x90\x01A\x00" + struct.pack(">i", -1) + BIG.u64(0), None, 1),
    (b"\x13\x03\x04\x01A\x01t" + ref(byte(1)), [b"t"], 3),
    (b"\x13\x03\x05\x01A\x01t" + bless_again(0, BIG.array(byte(1))), [b"t"], 3),
    (b"\x13\x43\x06" + byte(1) + b"\x83\x01A\x01t\x01" + u32(1) + HOOK, [b"t", 1], 3),
    (b"\x13\x00\x00\x00", [b""], 1),
]


@pytest.mark.parametrize(("record", "value", "tags"), RARE, ids=lambda part: repr(part)[:40])
@pytest.mark.parametrize("callback", [None, lambda _name, value: value], ids=["plain", "callback"])
def test_rare_records(record: bytes, value: Any, tags: int, callback: Any) -> None:
    """As the root and in an array, with the number of tags that the record takes."""
    if value is None and b"\xff\xff\xff\xff" in record:
        value = [b""]
        value.append(value)
    assert_value(NETWORK + record, value, blessed=callback)
    if isinstance(value, list) and any(item is value for item in value):
        return
    if b"\x13\x42" in record or b"\x13\x41" in record or b"\x13\x43" in record:
        return  # their tag lists are counted from the root
    array, rest = tagged(record, 2 + tags)
    assert_value(NETWORK + array, [value, *rest], blessed=callback)


def test_worked_hook_example() -> None:
    data = (
        "050b 02 00000004 08 87 04 02 00000001 0a 01 7a 04 00 00000003 04 13 42 02 00000001 08 85"
        "82 02 4878 02 636b 01 00000008"
    )
    shared = ["z"]
    assert_value(bytes.fromhex(data), [7, shared, shared, [b"ck", [5]]])


def test_hook_classes_are_numbered_after_their_parts() -> None:
    """A class inside a hook has the smaller number; indexes of both sizes find them."""
    seen: list[str] = []
    inner = bless(b"In", BIG.array())
    hook = b"\x13\x41" + inner + b"\x01\x03Out\x00"
    again = [bless_again(0, BIG.hash()), bless_again(1, BIG.hash())]
    again += [b"\x13\x20\x01\x00", b"\x13\x24" + u32(0) + b"\x00"]
    thaw(NETWORK + BIG.array(hook, *again), blessed=lambda name, value: seen.append(name))
    assert seen == ["In", "Out", "In", "Out", "Out", "In"]


def test_long_class_numbers() -> None:
    """A number of four bytes that begin like a hash or an array, which it is not."""
    classes = [bless(b"C%d" % number, UNDEF) for number in range(1000)]
    objects = [b"\x12\x80" + LITTLE.u32(low + 512) + LITTLE.array(byte(1)) for low in (2, 3, 25)]
    value = thaw(NATIVE + LITTLE.array(*classes, *(ref(record) for record in objects)))
    assert value[1000:] == [[1]] * 3


@pytest.mark.parametrize("kind", [4, 20, 27, 28, 11, 12, 13])
def test_cycles(kind: int) -> None:
    assert_value(NETWORK + BIG.array(ref(same(0), kind)), LOOP)
    assert_value(NETWORK + ref(BIG.array(same(0)), kind), LOOP)
    assert_value(NETWORK + ref(ref(bless(b"A", BIG.array(same(1)))), kind), LOOP)
    assert_value(
        NETWORK + b"\x13\x41" + ref(same(0), kind) + b"\x81\x01A\x01h\x01" + u32(1), HOOK_LOOP
    )
    loop: dict[str, Any] = {}
    loop["k"] = loop
    assert_value(NETWORK + ref(BIG.flag_hash(same(0) + b"\x00" + BIG.key(b"k")), kind), loop)
    assert_value(NETWORK + ref(b"\x21\x03" + BIG.u64(1) + same(0) + BIG.key(b"k"), kind), loop)


@pytest.mark.parametrize("callback", [None, lambda name, value: value])
@pytest.mark.parametrize("kind", [4, 20, 27, 28, 11, 12, 13])
def test_hook_names_a_reference_to_itself(kind: int, callback: Any) -> None:
    """As perl writes it where a freeze method returns a reference to what refers to the object."""
    looped: list[Any] = [b"x"]
    looped += [looped, looped]
    for tags in (u32(0) + u32(1), u32(1) + u32(2)):
        hook = b"\x13\x82\x01H\x01x\x02" + tags
        assert_value(NETWORK + ref(ref(hook), kind), looped, blessed=callback)


def test_sharing_is_identity() -> None:
    """Shared lists are one object, equal ones are not, also when they are empty."""
    first, again, other = net(BIG.array(ref(BIG.array()), ref(same(2)), ref(BIG.array())))
    assert first is again
    assert first is not other
    assert thaw(NETWORK + BIG.array(BIG.array(), b"\x21\x00" + BIG.u64(1)))[1] == []


def test_large_object_in_native_order() -> None:
    value = thaw(NATIVE + LITTLE.array(ref(LITTLE.array()), b"\x21\x00" + LITTLE.u64(2)))
    assert value[0] is value[1]
    assert thaw(NATIVE + b"\x21\x01" + LITTLE.u64(1) + b"a") == "a"


# -- encoding ----------------------------------------------------------------------------------


def test_encoding_none_keeps_bytes() -> None:
    """Strings, hash keys, patterns and code without the flag stay bytes; flagged ones are text."""
    data = BIG.array(
        text(b"a"),
        BIG.long_text(b"b"),
        text(b"c", 23),
        BIG.hash(k=byte(1)),
        BIG.flag_hash(byte(1) + b"\x00" + BIG.key(b"k"), byte(2) + b"\x01" + BIG.key(b"k")),
        b"\x20\x00\x01p\x00",
        b"\x1a" + text(b"{}"),
    )
    want = [b"a", b"b", "c", {b"k": 1}, {b"k": 1, "k": 2}, b"(?^:p)", b"{}"]
    assert_value(NETWORK + data, want, encoding=None)


def test_encoding_latin1() -> None:
    data = BIG.array(
        text(b"\xe9"), text("é".encode(), 23), BIG.hash(k=BIG.long_text(b"\xe9" * 300))
    )
    assert_value(NETWORK + data, ["é", "é", {"k": "é" * 300}], encoding="latin-1")


def test_encoding_that_fails_leaves_bytes() -> None:
    data = NETWORK + BIG.array(text(b"\xff"), text(b"a"))
    assert_value(data, [b"\xff", "a"], encoding="ascii")
    assert_value(data, [b"\xff", b"a"], encoding="utf-16")
    assert_value(data, [b"\xff", "a"], encoding="UTF8")


@pytest.mark.parametrize("encoding", ["utf-88", "hex", "rot13", "", "a\0b"])
def test_unknown_encoding(encoding: str) -> None:
    """It is the caller's mistake, and not called a broken image."""
    with pytest.raises(ValueError, match="encoding: ") as error:
        thaw(NETWORK + byte(1), encoding=encoding)
    assert not isinstance(error.value, StorableError)


# -- what is refused ---------------------------------------------------------------------------

LONG = u32(0x7FFFFFFF)
HUGE = u32(0xFFFFFFFF)
COUNTED = (b"\x02", b"\x03", b"\x01", b"\x18", b"\x19\0")
LARGE = (0, 1, 2, 3, 19, 24, 25)
REFUSED = [
    *(bytes([kind, 0, 0, 0, 0]) for kind in range(36, 256)),
    b"\x06" + b"\0" * 8,
    b"\x07" + b"\0" * 8,
    same(0),
    ref(same(0)),
    ref(ref(same(0))),
    ref(ref(same(1))),
    ref(b"\x0c" + bless(b"A", same(1))),
    ref(b"\x1d\x01v" + same(0)),
    BIG.array(same(1)),
    BIG.array(same(0xFFFFFFFF)),
    BIG.array(ref(same(2))),
    b"\x21\x00" + BIG.u64(1 << 63),
    *(kind + count for kind in COUNTED for count in (LONG, HUGE)),
    *(b"\x21" + kind + BIG.u64(n) for kind in COUNTED for n in (9, 1 << 63, (1 << 64) - 1)),
    b"\x02" + u32(2) + UNDEF,
    b"\x03" + u32(1) + UNDEF + u32(5) + b"abcd",
    b"\x03" + u32(1) + UNDEF + HUGE + b"abcd",
    b"\x12\x00" + UNDEF,
    bless(b"A", bless_again(1, UNDEF)),
    bless(b"A", b"\x12\x80" + HUGE + UNDEF),
    b"\x11\x80" + LONG + b"A",
    *(b"\x21" + bytes([kind]) + b"\0" * 12 for kind in range(256) if kind not in LARGE),
    *(b"\x1a" + bytes([kind]) + b"\0" * 12 for kind in range(256) if kind not in (1, 10, 23, 24)),
    *(b"\x13\x03" + bytes([kind]) + b"\0" * 12 for kind in range(256) if kind not in (4, 5, 6)),
    b"\x13\x20\x00\x00",
    b"\x13\x24" + HUGE + b"\x00",
    b"\x13\x04" + LONG + b"A\0",
    b"\x13\x08\x01A" + LONG,
    b"\x13\x80\x01A\x00\x01" + u32(1),
    b"\x13\x90\x01A\x00" + LONG + u32(0),
    b"\x13\x90\x01A\x00" + u32(0x80000000) + BIG.u64(0),
    b"\x13\x90\x01A\x00" + HUGE + BIG.u64(1 << 40),
    b"\x1e" + LONG + b"v" + UNDEF,
    b"\x20\x01" + LONG + b"a\0",
    BIG.flag_hash(UNDEF + b"\x08" + BIG.array()),
    BIG.flag_hash(UNDEF + b"\x08" + ref(BIG.hash())),
    BIG.flag_hash(UNDEF + b"\x08" + HOOK),
    BIG.flag_hash(UNDEF + b"\x08" + YES),
]  # fmt: skip


@pytest.mark.parametrize("callback", [None, lambda _name, value: value], ids=["plain", "callback"])
def test_refused(callback: Any) -> None:
    for record in REFUSED:
        with pytest.raises(StorableError) as error:
            print(record, thaw(NETWORK + record, blessed=callback))
        assert error.value.offset is not None, record


def test_error_is_a_codec_error_with_its_place() -> None:
    with pytest.raises(CodecError, match=r"unknown record type 36 at byte 7$") as error:
        net(BIG.array(b"\x24"))
    assert isinstance(error.value, StorableError)
    assert isinstance(error.value, ValueError)
    assert error.value.offset == 7


def test_what_is_no_bytes() -> None:
    with pytest.raises(StorableError, match="an image is bytes, not str"):
        thaw("05 0b")  # type: ignore[arg-type]
    assert thaw(bytearray(NETWORK + byte(1))) == 1
    assert thaw(memoryview(NETWORK + byte(1))) == 1  # type: ignore[arg-type]


def test_max_size(tmp_path: Any) -> None:
    data = NETWORK + text(b"x" * 98)
    (tmp_path / "image").write_bytes(data)
    assert thaw(data, max_size=len(data)) == retrieve(tmp_path / "image", max_size=len(data))
    for call, source in ((thaw, data), (retrieve, tmp_path / "image")):
        with pytest.raises(StorableError, match=r"larger than 101 bytes \(max_size\)"):
            call(source, max_size=len(data) - 1)


def test_missing_file(tmp_path: Any) -> None:
    with pytest.raises(FileNotFoundError):
        retrieve(tmp_path / "nothing")


DEEP = {
    "arrays": (b"\x02" + u32(1), b"\x05", b""),
    "references": (b"\x04", b"\x05", b""),
    "array references": (b"\x04\x02" + u32(1), b"\x05", b""),
    "hashes": (b"\x04\x03" + u32(1), b"\x05", u32(1) + b"k"),
    "flag hashes": (b"\x19\0" + u32(1), b"\x05", b"\1" + u32(1) + b"k"),
    "blessed": (b"\x04\x11\x01A\x02" + u32(1), b"\x05", b""),
    "ties": (b"\x0c\x1b", b"\x05", b""),
    "version strings": (b"\x1d\0", b"\x05", b""),
    "blessings": (b"\x11\x01A", b"\x05", b""),
    "hooks": (b"\x13\x42", b"\x05", b"\x02\x01A\x01h"),
    "hook tails": (b"\x13\x03\x04\x01A\x01h", b"\x05", b""),
    "tied keys": (b"\x15", b"\x05", b"\x05"),
    "tied elements": (b"\x04\x16", b"\x05", u32(0)),
    "key records": (b"\x19\0" + u32(1) + b"\x05\x08", b"\x0a\x01k", b""),
    "large arrays": (b"\x21\x02" + BIG.u64(1), b"\x05", b""),
}


@pytest.mark.parametrize("callback", [None, lambda _name, value: value], ids=["plain", "callback"])
@pytest.mark.parametrize("kind", DEEP)
def test_depth(kind: str, callback: Any) -> None:
    """50,000 levels; the recursion limit is not touched."""
    limit = sys.getrecursionlimit()
    head, middle, tail = DEEP[kind]
    data = NETWORK + head * 50_000 + middle + tail * 50_000
    if kind == "key records":
        with pytest.raises(StorableError, match="a hash key is a dict"):
            thaw(data, blessed=callback)
    else:
        value = thaw(data, blessed=callback)
        with pytest.raises(StorableError):
            thaw(data[:-1], blessed=callback)
        levels = 0
        while isinstance(value, (list, dict)) and value:
            value = next(iter(value.values() if isinstance(value, dict) else value))
            levels += 1
        assert levels in (0, 1, 50_000)
    assert sys.getrecursionlimit() == limit

"""Every record type, in images that were built by hand."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from pyramid_kvs.storable import StorableError, thaw
from tests.storable.compare import assert_value
from tests.storable.images import (
    BIG,
    HOOK,
    LITTLE,
    NETWORK,
    NO,
    UNDEF,
    YES,
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
SHARED: list[Any] = ["s"]
LOOP: list[Any] = []
LOOP.append(LOOP)
HOOK_LOOP: list[Any] = [b"h"]
HOOK_LOOP.append(HOOK_LOOP)
LAST = ref(BIG.array(text(b"s")))  # the reference and the array have a tag each


def tagged(record: bytes, last: int) -> tuple[bytes, list[Any]]:
    """Return an array of a record and twice the list with tag ``last``, and the lists."""
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
    """They occur as the root, in a list or hash, behind references and in classes, with one tag."""
    assert_value(NETWORK + record, value)
    for kind in (4, 20, 27, 28, 11, 12, 13):
        assert_value(NETWORK + ref(record, kind), value)
        assert_value(NETWORK + BIG.array(ref(ref(record, kind)), same(1)), [value, value])
    assert_value(NETWORK + BIG.hash(k=record), {"k": value})
    assert_value(NETWORK + bless(b"A", ref(bless(b"B", record))), value)
    array, rest = tagged(record, 3)
    assert_value(NETWORK + array, [value, *rest])


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
    """They occur as the root and in an array; the number of their tags counts."""
    if value is None and b"\xff\xff\xff\xff" in record:
        value = [b""]
        value.append(value)
    assert_value(NETWORK + record, value, blessed=callback)
    if isinstance(value, list) and any(item is value for item in value):
        return
    if b"\x13\x42" in record or b"\x13\x41" in record or b"\x13\x43" in record:
        return  # their lists of tags are only right at the root
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
    """A class inside a hook has the smaller number. Indexes of one and four bytes find it."""
    seen: list[str] = []
    inner = bless(b"In", BIG.array())
    hook = b"\x13\x41" + inner + b"\x01\x03Out\x00"
    again = [bless_again(0, BIG.hash()), bless_again(1, BIG.hash())]
    again += [b"\x13\x20\x01\x00", b"\x13\x24" + u32(0) + b"\x00"]
    thaw(NETWORK + BIG.array(hook, *again), blessed=lambda name, value: seen.append(name))
    assert seen == ["In", "Out", "In", "Out", "Out", "In"]


def test_long_class_numbers() -> None:
    """The four bytes of a class number can look like the beginning of a hash or an array."""
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
    """Perl writes this if a freeze method returns a reference to a reference to the object."""
    looped: list[Any] = [b"x"]
    looped += [looped, looped]
    for tags in (u32(0) + u32(1), u32(1) + u32(2)):
        hook = b"\x13\x82\x01H\x01x\x02" + tags
        assert_value(NETWORK + ref(ref(hook), kind), looped, blessed=callback)


def test_sharing_is_identity() -> None:
    """Shared lists are one object. Equal lists are not, even if they are empty."""
    first, again, other = thaw(
        NETWORK + BIG.array(ref(BIG.array()), ref(same(2)), ref(BIG.array()))
    )
    assert first is again
    assert first is not other
    assert thaw(NETWORK + BIG.array(BIG.array(), b"\x21\x00" + BIG.u64(1)))[1] == []


def test_large_object_in_native_order() -> None:
    value = thaw(NATIVE + LITTLE.array(ref(LITTLE.array()), b"\x21\x00" + LITTLE.u64(2)))
    assert value[0] is value[1]
    assert thaw(NATIVE + b"\x21\x01" + LITTLE.u64(1) + b"a") == "a"


# -- encoding ----------------------------------------------------------------------------------


def test_encoding_none_keeps_bytes() -> None:
    """Strings, hash keys, patterns and code without the flag remain bytes, others become str."""
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
    """It is a mistake of the caller, not a damaged image."""
    with pytest.raises(ValueError, match="encoding: ") as error:
        thaw(NETWORK + byte(1), encoding=encoding)
    assert not isinstance(error.value, StorableError)

"""Damaged and deep images, and arguments of the wrong type."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from pyramid_kvs.exceptions import CodecError
from pyramid_kvs.storable import StorableError, retrieve, thaw
from tests.storable.images import (
    BIG,
    HOOK,
    NETWORK,
    UNDEF,
    YES,
    bless,
    bless_again,
    byte,
    ref,
    same,
    text,
    u32,
)

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
def test_damaged_images(callback: Any) -> None:
    for record in REFUSED:
        with pytest.raises(StorableError) as error:
            print(record, thaw(NETWORK + record, blessed=callback))
        assert error.value.offset is not None, record


def test_the_error_is_a_codec_error_with_a_position() -> None:
    with pytest.raises(CodecError, match=r"unknown record type 36 at byte 7$") as error:
        thaw(NETWORK + BIG.array(b"\x24"))
    assert isinstance(error.value, StorableError)
    assert isinstance(error.value, ValueError)
    assert error.value.offset == 7


def test_other_types_than_bytes() -> None:
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
    """Images of 50,000 levels are read without a change to the recursion limit."""
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

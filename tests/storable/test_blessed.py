"""The ``blessed`` callback, whose results replace the objects of Perl classes."""

from __future__ import annotations

from typing import Any

import pytest

from pyramid_kvs.storable import StorableError, thaw
from tests.storable.images import BIG, NETWORK, bless, bless_again, byte, ref, same, text


class Object:
    """A blessed value with the name of its class."""

    def __init__(self, name: str, value: Any) -> None:
        self.name = name
        self.value = value


def wrap(record: bytes) -> Any:
    return thaw(NETWORK + record, blessed=Object)


def test_the_callback_gets_complete_values() -> None:
    """The callback gets the complete value, in which inner objects are already replaced."""
    seen: list[Any] = []

    def note(name: str, value: Any) -> str:
        seen.append((name, repr(value)))
        return name

    inner = BIG.hash(n=byte(1), s=text(b"x"))
    data = BIG.array(byte(0), ref(bless(b"Out", BIG.array(ref(bless(b"In", inner)), byte(2)))))
    assert thaw(NETWORK + data, blessed=note) == [0, "Out"]
    assert seen == [("In", "{'n': 1, 's': 'x'}"), ("Out", "['In', 2]")]


@pytest.mark.parametrize(
    ("record", "value"),
    [
        (byte(5), 5),
        (text(b"\xff"), b"\xff"),
        (b"\x20\x00\x01a\x00", "(?^:a)"),
        (b"\x1a" + text(b"{}"), "{}"),
        (b"\x1d\x02v1" + text(b"\x01"), "\x01"),
        (b"\x0c" + BIG.hash(), {}),
        (b"\x21\x02" + BIG.u64(1) + byte(1), [1]),
        (BIG.flag_hash(byte(1) + b"\x01" + BIG.key("é".encode())), {"é": 1}),
        (b"\x15" + byte(1) + byte(2), None),
        (ref(byte(1)), 1),
    ],
    ids=lambda part: repr(part)[:30],
)
def test_kinds(record: bytes, value: Any) -> None:
    """An object is replaced at each place, also if a tag names it again."""
    root = wrap(bless(b"A", record))
    assert (root.name, root.value) == ("A", value)
    first, again = wrap(BIG.array(ref(bless(b"A", record)), ref(same(2))))
    assert (first.name, first.value) == ("A", value)
    assert again is first


def test_hooks() -> None:
    """The class of a hook object is the one that the hook names, not one before it."""
    first, tail, again = wrap(
        BIG.array(
            bless(b"No", b"\x13\x42" + byte(1) + b"\x82\x04Hook\x01h\x01\0\0\0\x02"),
            ref(b"\x13\x03\x04\x04Tail\x01t" + b"\x13\x00\x05Inner\x00"),
            ref(same(1)),
        )
    )
    assert (first.name, first.value) == ("Hook", [b"h", 1])
    assert (tail.name, tail.value) == ("Tail", [b"t"])
    assert again is first


def test_class_without_effect() -> None:
    """A class before another class, or before an object that was read, has no effect."""
    assert wrap(bless(b"No", bless(b"A", byte(1)))).name == "A"
    assert wrap(BIG.array(ref(BIG.array()), ref(bless(b"No", same(2)))))[1] == []
    assert wrap(BIG.array(ref(BIG.array()), ref(bless(b"No", b"\x21\0" + BIG.u64(2)))))[1] == []


def test_blessed_references() -> None:
    """Each level has a class, and a tag names one level."""
    outer, whole, middle, inner = wrap(
        BIG.array(
            ref(bless(b"Out", ref(bless(b"In", BIG.array(byte(1)))))),
            ref(same(1)),
            ref(same(2)),
            ref(same(3)),
        )
    )
    assert (outer.name, outer.value.name, outer.value.value) == ("Out", "In", [1])
    assert whole is outer
    assert middle is outer
    assert inner is outer.value


def test_cycles() -> None:
    """References to an object from inside it give the result of the callback too."""
    parts = BIG.array(ref(same(1)), byte(1))
    root = wrap(BIG.array(ref(bless(b"A", BIG.hash(self=ref(same(2)), parts=ref(parts))))))
    (node,) = root
    assert node.value["self"] is node
    assert node.value["parts"] == [node, 1]


def test_cycle_through_a_hook() -> None:
    (node, again) = wrap(
        BIG.array(
            ref(b"\x13\x42" + BIG.array(same(2)) + b"\x82\x01A\x01h\x02\0\0\0\x03\0\0\0\x02"),
            same(2),
        )
    )
    assert again is node
    assert node.value[2] is node
    assert node.value[1] == [node]


def test_class_names() -> None:
    """Names are UTF-8, or Latin-1 if they are not valid UTF-8; they can be long or numbered."""
    records = [bless("Café".encode(), byte(1)), bless(b"Caf\xe9", byte(2)), bless_again(1, byte(3))]
    records.append(b"\x11\x80" + BIG.u32(200) + b"L" * 200 + byte(4))
    names = [item.name for item in wrap(BIG.array(*records))]
    assert names == ["Café", "Café", "Café", "L" * 200]


@pytest.mark.parametrize("error", [IndexError, KeyError, StorableError])
def test_errors_of_the_callback_are_not_caught(error: type[Exception]) -> None:
    def fail(_name: str, _value: Any) -> None:
        raise error("mine")

    with pytest.raises(error, match=r"^mine$|^'mine'$"):
        thaw(NETWORK + BIG.array(bless(b"A", byte(1))), blessed=fail)


def test_a_damaged_image_after_a_callback() -> None:
    with pytest.raises(StorableError):
        wrap(BIG.array(bless(b"A", byte(1)), byte(1))[:-1])

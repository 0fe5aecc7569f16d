"""Time is proportional to the size of an image, whatever the image contains."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from pyramid_kvs.storable import thaw
from pyramid_kvs.storable.editor import REMOVED, Changes, edit_hash, read_hash
from tests.storable.growth import BOUND, growth
from tests.storable.hostile import ALL, Image, try_thaw
from tests.storable.images import BIG, NETWORK, UNDEF, bless, ref, same, u32

SIZE = 100_000
#: Strings are compared so fast that it only shows in large images.
LARGE = 500_000


@pytest.mark.parametrize("name", ALL)
def test_reading(name: str) -> None:
    """An image of four times the size takes about four times as long."""
    make, options = ALL[name]
    size = LARGE if "equal key" in name else SIZE
    assert growth(make, lambda image: try_thaw(image, options), size) < BOUND


def pairs(first: bytes, other: bytes, size: int, key: bytes = b"first") -> bytes:
    """A hash of one key and many others."""
    number = size // (len(other) + 12)
    others = (other + BIG.key(b"%08x" % place) for place in range(number))
    return b"\x03" + u32(number + 1) + first + BIG.key(key) + b"".join(others)


def long_class(size: int) -> bytes:
    """A hash of many objects, whose class has a long name."""
    first = b"\x04\x11\x80" + u32(size // 2) + b"A" * (size // 2) + BIG.array()
    return NETWORK + pairs(first, b"\x04\x12\0" + BIG.array(), size // 2)


def long_hook_class(size: int) -> bytes:
    """A hash of many objects, whose class has hooks and a long name."""
    first = b"\x04\x13\x04" + u32(size // 2) + b"A" * (size // 2) + b"\0"
    return NETWORK + pairs(first, b"\x04\x13\x20\0\0", size // 2)


def shared_list(size: int) -> bytes:
    """A hash whose keys share one long list."""
    return NETWORK + pairs(ref(BIG.array(*[UNDEF] * (size // 2))), ref(same(2)), size // 2)


def linked_lists(size: int) -> bytes:
    """A hash of many lists, each of which contains the list of the key ``first``."""
    return NETWORK + pairs(ref(BIG.array()), ref(BIG.array(ref(same(2)))), size)


def many_members(size: int) -> bytes:
    """What Cache::FileCache stores, with many other members in the object."""
    members = pairs(ref(BIG.hash(n=UNDEF)), b"\x04\x11\x01A" + BIG.array(), size, b"_Data")
    return NETWORK + BIG.array(UNDEF, ref(bless(b"Cache::Object", members)))


class Edit(NamedTuple):
    """A change to an image."""

    make: Image
    removed: str = ""
    appended: str = ""
    member: bytes | None = None

    def apply(self, image: bytes) -> None:
        current = thaw(image)
        if self.member is not None:
            current = current[1][self.member.decode()]
        changes = Changes({"new": ["é"]}, text_codec="utf-8")
        if self.removed:
            changes.values[self.removed] = REMOVED
        if self.appended:
            current[self.appended].append("é")
            changes.values[self.appended] = current[self.appended]
            changes.mutated.add(self.appended)
        edit_hash(read_hash(image, "utf-8", self.member), changes, current)


EDITS = {
    "add a key beside objects": Edit(long_class),
    "add a key beside objects with hooks": Edit(long_hook_class),
    "remove the object that names the class": Edit(long_class, removed="first"),
    "change a list that all keys share": Edit(shared_list, appended="first"),
    "change a list that all lists contain": Edit(linked_lists, appended="first"),
    "add a key to a member of an object": Edit(many_members, member=b"_Data"),
}


@pytest.mark.parametrize("name", EDITS)
def test_editing(name: str) -> None:
    """An image of four times the size takes about four times as long."""
    edit = EDITS[name]
    assert growth(edit.make, edit.apply, SIZE) < BOUND

"""The hash in an image as a list of pairs, with the bytes before and after it."""

from __future__ import annotations

import copy
import struct
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from ..format import (
    KEY_UTF8,
    KEY_WASUTF8,
    SX_ARRAY,
    SX_BLESS,
    SX_FLAG_HASH,
    SX_HASH,
    SX_IX_BLESS,
    StorableError,
    check_encoding,
    decode_text,
)
from .odd_records import ODD_REFERENCES, skip_class
from .scanner import RESTRICTED, Scanner
from .walk import Piece, Step

Key: TypeAlias = "str | bytes"

HASHES: Final = (SX_HASH, SX_FLAG_HASH)


class WireKey(NamedTuple):
    """A hash key as it is stored in an image."""

    raw: bytes
    flags: int

    @property
    def characters(self) -> Key:
        """The characters of the key, where a byte counts as one. In Perl they identify the key."""
        return decode_text(self.raw, "utf-8" if self.flags & KEY_UTF8 else "latin-1")


class Pair(NamedTuple):
    """One key of the hash, in Python and in the image, and the record of its value."""

    key: Key
    wire_key: WireKey
    piece: Piece


@dataclass
class HashImage:
    """An image in parts: the bytes before the hash, its pairs, and the bytes after it."""

    scanner: Scanner
    before: Piece
    is_flagged: bool
    pairs: list[Pair]
    after: Piece


def read_hash(data: bytes, encoding: str | None, member: bytes | None = None) -> HashImage:
    """Find the hash at the root of an image, and its pairs.

    :param encoding: the encoding of keys without Perl's UTF-8 flag, as in ``storable.thaw``.
    :param member: find another hash: this member of the object that is the second item of an array
        at the root.
    :raises StorableError: the image does not contain it, or has records that cannot be copied.
    """
    codec = check_encoding(encoding)
    scanner = Scanner(data)
    try:
        return _read_hash(scanner, codec, member)
    except (IndexError, struct.error):
        raise StorableError("the image ends within a record", len(data)) from None


def _read_hash(scanner: Scanner, codec: str | None, member: bytes | None) -> HashImage:
    scanner.begin()
    rest = [] if member is None else _enter_member(scanner, member)
    scanner.pos = _follow_references(scanner, HASHES)
    before = scanner.finish()
    scanner.root_tag = scanner.tag
    count, is_flagged = _open_hash(scanner)
    pairs = [_read_pair(scanner, is_flagged, codec) for _ in range(count)]
    scanner.begin()
    for step, times in rest:
        scanner.run(step, times)
    return HashImage(scanner, before, is_flagged, pairs, scanner.finish())


def _follow_references(scanner: Scanner, wanted: tuple[int, ...]) -> int:
    """Skip references and blessings up to a record of a wanted type; return its position."""
    while (kind := scanner.byte()) not in wanted:
        if kind in ODD_REFERENCES:
            scanner.tag += 1
        elif kind in (SX_BLESS, SX_IX_BLESS):
            skip_class(scanner, kind)
        else:
            expected = "a hash" if SX_HASH in wanted else "an array"
            raise StorableError(f"expected {expected}, found record type {kind}", scanner.pos - 1)
    return scanner.pos - 1


def _open_hash(scanner: Scanner) -> tuple[int, bool]:
    """Skip the beginning of a hash; return the number of pairs and whether keys have flags."""
    scanner.tag += 1
    is_flagged = scanner.byte() == SX_FLAG_HASH
    if is_flagged and scanner.byte():
        raise StorableError("a restricted hash can be read, but not changed")
    return scanner.number(), is_flagged


def _enter_member(scanner: Scanner, member: bytes) -> list[Step]:
    """Go to a member of the object in an array; return the steps from there to the end."""
    _follow_references(scanner, (SX_ARRAY,))
    scanner.tag += 1
    items = scanner.number()
    scanner.run(scanner.element)
    scanner.pos = _follow_references(scanner, HASHES)
    count, is_flagged = _open_hash(scanner)
    pair, key = (
        (scanner.flagged_pair, scanner.flagged_key) if is_flagged else (scanner.pair, scanner.key)
    )
    for passed in range(1, count + 1):
        if _is_next_key(scanner, member, is_flagged):
            steps = [(key, 1), (pair, count - passed), (scanner.element, items - 2)]
            return [(step, times) for step, times in steps if times > 0]
        scanner.run(pair)
    raise StorableError(f"the object in the image has no {member.decode()}")


def _is_next_key(scanner: Scanner, member: bytes, is_flagged: bool) -> bool:
    """Return whether the next pair has this key, which comes after its value."""
    ahead, known = copy.copy(scanner), len(scanner.classes)
    ahead.work = []
    ahead.begin()
    ahead.run(ahead.element)
    ahead.skip(is_flagged)
    # The two scanners share these lists.
    del scanner.classes[known:], scanner.class_obstacles[known:]
    return ahead.take(ahead.number()) == member


def _read_pair(scanner: Scanner, is_flagged: bool, codec: str | None) -> Pair:
    scanner.begin()
    scanner.run(scanner.element)
    piece = scanner.finish()
    flags = scanner.byte() if is_flagged else 0
    if flags & RESTRICTED:
        raise StorableError("a restricted hash can be read, but not changed")
    wire_key = WireKey(scanner.take(scanner.number()), flags)
    return Pair(_python_key(wire_key, codec), wire_key, piece)


def _python_key(key: WireKey, codec: str | None) -> Key:
    if key.flags & KEY_UTF8:
        return decode_text(key.raw, "utf-8")
    return decode_text(key.raw, "latin-1" if key.flags & KEY_WASUTF8 else codec)

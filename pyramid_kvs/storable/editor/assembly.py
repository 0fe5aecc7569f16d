"""Assembles the changed image from the pairs that stay and the new ones."""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Mapping
from typing import Any, TypeAlias

from ..format import (
    HOOK_INDEXED_CLASS,
    HOOK_LARGE_CLASS,
    SX_BLESS,
    SX_FLAG_HASH,
    SX_HASH,
    SX_IX_BLESS,
    StorableError,
)
from ..header import Header
from ..writer import Writer
from .hash_image import HashImage, Key, Pair, WireKey, read_hash
from .odd_records import TOP_BIT
from .walk import ClassUse, Piece

Patch: TypeAlias = "tuple[int, int, bytes]"

_be_u32 = struct.Struct(">I")


class Assembly:
    """Assembles an image: the bytes before the hash, its pairs, and the bytes after it.

    :param kept: the pairs that stay.
    :param wire_keys: the keys of the new pairs as they are stored.
    :param values: the values of the new pairs.
    :raises StorableError: a value cannot be written in the layout of the image.
    """

    def __init__(
        self,
        image: HashImage,
        kept: list[Pair],
        wire_keys: Mapping[Key, WireKey],
        values: dict[Key, Any],
    ) -> None:
        self.image = image
        self.kept = kept
        self.keys = [wire_keys[key] for key in values]
        self.new = _freeze(values, image.scanner.header)
        self.pack_u32 = image.scanner.u32.pack
        self.class_numbers: dict[int, int] = {}
        self._number_objects()

    def _number_objects(self) -> None:
        """Compute by how much the numbers of each piece's objects change."""
        tag = self.image.scanner.root_tag + 1
        pieces = [pair.piece for pair in self.kept]
        shifts = []
        for piece in pieces:
            shifts.append(tag - piece.first_tag)
            tag += piece.end_tag - piece.first_tag
        first = self.new.scanner.root_tag + 1
        self.new_shift = tag - first
        tag += self.new.after.first_tag - first
        self.starts = [*(piece.first_tag for piece in pieces), self.image.after.first_tag]
        self.shifts = [*shifts, tag - self.image.after.first_tag]

    def image_bytes(self) -> bytes:
        """Return the bytes of the changed image."""
        source = self.image.scanner
        is_flagged = self.image.is_flagged or any(key.flags for key in self.keys)
        parts = [source.data[: source.header.start], self._copy(self.image.before)]
        parts += [bytes([SX_FLAG_HASH, 0]) if is_flagged else bytes([SX_HASH])]
        parts += [self.pack_u32(len(self.kept) + len(self.keys))]
        for pair in self.kept:
            parts += [self._copy(pair.piece), self._key(pair.wire_key, is_flagged)]
        for key, new in zip(self.keys, self.new.pairs, strict=True):
            parts += [self._copy_new(new.piece), self._key(key, is_flagged)]
        return b"".join([*parts, self._copy(self.image.after)])

    def _key(self, key: WireKey, is_flagged: bool) -> bytes:
        return bytes([key.flags] * is_flagged) + self.pack_u32(len(key.raw)) + key.raw

    def _copy(self, piece: Piece) -> bytes:
        patches = [
            (use.start, use.start + 4, _be_u32.pack(self._shifted(use.tag)))
            for use in piece.tag_uses
        ]
        for use in piece.class_uses:
            patches += self._class_patches(use)
        return _patched(self.image.scanner.data, piece, patches)

    def _shifted(self, tag: int) -> int:
        place = bisect_right(self.starts, tag) - 1
        return tag if tag <= self.image.scanner.root_tag else tag + self.shifts[place]

    def _copy_new(self, piece: Piece) -> bytes:
        patches = [
            (use.start, use.start + 4, _be_u32.pack(use.tag + self.new_shift))
            for use in piece.tag_uses
        ]
        return _patched(self.new.scanner.data, piece, patches)

    def _class_patches(self, use: ClassUse) -> list[Patch]:
        """Name a class at its first place, and number it at the others."""
        numbers = self.class_numbers
        is_known = use.number in numbers
        number = numbers.setdefault(use.number, len(numbers))
        name = b"" if is_known else self.image.scanner.classes[use.number]
        value = number if is_known else len(name)
        if use.hook_flags is not None:
            return self._hook_patches(use, use.hook_flags, is_known, value, name)
        kind = bytes([SX_IX_BLESS if is_known else SX_BLESS])
        size = bytes([value]) if value < TOP_BIT else bytes([TOP_BIT]) + self.pack_u32(value)
        return [(use.start, use.end, kind + size + name)]

    def _hook_patches(
        self, use: ClassUse, place: int, is_known: bool, value: int, name: bytes
    ) -> list[Patch]:
        """Return the patches of the flags of a hook record, and of its class."""
        flags = self.image.scanner.data[place] & ~(HOOK_INDEXED_CLASS | HOOK_LARGE_CLASS)
        flags |= (HOOK_INDEXED_CLASS * is_known) | (HOOK_LARGE_CLASS * (value > 255))
        size = bytes([value]) if value <= 255 else self.pack_u32(value)
        return [(place, place + 1, bytes([flags])), (use.start, use.end, size + name)]


def _freeze(values: dict[Key, Any], header: Header) -> HashImage:
    """Return an image of the values in the layout of a header.

    :raises StorableError: Perl cannot represent a value, or the writer does not know the layout.
    """
    new = read_hash(Writer(header.is_network).write(values), None)
    found = new.scanner.header
    if (found.order, found.iv_size, found.nv_size) != (
        header.order,
        header.iv_size,
        header.nv_size,
    ):
        raise StorableError(
            "the session is a native image of a Perl that is not on a 64-bit PC: it can be read, "
            "but not changed"
        )
    return new


def _patched(data: bytes, piece: Piece, patches: list[Patch]) -> bytes:
    parts, pos = [], piece.start
    for start, end, new in sorted(patches):
        parts += [data[pos:start], new]
        pos = end
    return b"".join([*parts, data[pos : piece.end]])

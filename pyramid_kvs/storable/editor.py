"""Edits the hash in a Storable image, and leaves the bytes of what did not change as they are.

Python's values do not say all that an image does: which class an object has, what is a reference
to a scalar, whether a string is bytes or characters. So a changed session is not written anew from
its values. The pairs that changed are replaced in the image that perl wrote; the others are copied.
Objects are numbered in an image and refer to one another by number, as do the classes: these
numbers are corrected in what is copied.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

from .. import storable
from .format import (
    HOOK_INDEXED_CLASS,
    HOOK_LARGE_CLASS,
    KEY_UTF8,
    SX_BLESS,
    SX_FLAG_HASH,
    SX_HASH,
    SX_IX_BLESS,
    Header,
    StorableError,
)
from .scanner import (
    TOP_BIT,
    ClassUse,
    HashImage,
    Key,
    Pair,
    Piece,
    WireKey,
    read_hash,
)

__all__ = ["REMOVED", "Changes", "HashImage", "Key", "edit_hash", "read_hash"]

Patch: TypeAlias = "tuple[int, int, bytes]"

#: In the changes of :func:`edit_hash`: the key goes.
REMOVED: Final = object()

_be32 = struct.Struct(">I")


@dataclass
class Changes:
    """What becomes of the keys of a hash; every key that is not in ``values`` stays.

    :param values: by key; :data:`REMOVED` where the key goes.
    :param mutated: keys whose value is still the one that was read, with other content.
    :param objects: the lists and dicts that stand for objects of Perl classes, by ``id``.
    :param text_codec: how text is written; ``None``: as characters, with Perl's UTF-8 flag.
    """

    values: dict[Key, Any]
    mutated: set[Key] = field(default_factory=set)
    objects: dict[int, Any] = field(default_factory=dict)
    text_codec: str | None = None


def edit_hash(image: HashImage, changes: Changes, current: Mapping[Key, Any]) -> bytes:
    """Return the image with other pairs in its hash.

    What perl stored for other keys stays as it is, byte for byte. Where the data of a key shares
    a list or dict with that of a changed one, it is written anew as well.

    :param current: the values of the image, for those.
    :raises StorableError: a value has no form in Perl, or a changed one holds something that Python
        values cannot say: an object of a class, a reference to a scalar, code.
    """
    asked = changes.values.keys()
    changes = replace(changes, values=dict(changes.values), mutated=set(changes.mutated))
    dropped = _dropped(image, changes, current)
    for key, value in changes.values.items():
        if _holds_object(value, changes.objects):
            raise _unwritable(key, "an object of a Perl class") if key in asked else _linked(key)
    kept = [pair for place, pair in enumerate(image.pairs) if place not in dropped]
    return _Assembly(image, kept, _wire_keys(image, changes), _fresh_values(changes)).data()


def _dropped(image: HashImage, changes: Changes, current: Mapping[Key, Any]) -> set[int]:
    """Return the places of the pairs that go, and complete the changes by keys linked to others."""
    pairs, written = image.pairs, {key.characters for key in _wire_keys(image, changes).values()}
    dropped = {
        place
        for place, pair in enumerate(pairs)
        if pair.key in changes.values or pair.wire_key.characters in written
    }
    _refuse_obstacles(image, changes)
    uses, used_by = _links(image)
    todo = list(dropped)
    while todo:
        place = todo.pop()
        key = pairs[place].key
        linked = used_by[place] | (uses[place] if key in changes.mutated else set())
        for other in linked - dropped:
            _refuse_linked(image, other, key)
            changes.values.setdefault(pairs[other].key, current[pairs[other].key])
            changes.mutated.add(pairs[other].key)
            dropped.add(other)
            todo.append(other)
    return dropped


def _refuse_obstacles(image: HashImage, changes: Changes) -> None:
    for pair in image.pairs:
        if pair.key in changes.mutated and pair.piece.obstacle:
            raise _unwritable(pair.key, pair.piece.obstacle)


def _refuse_linked(image: HashImage, other: int, key: Key) -> None:
    pairs = image.pairs
    obstacle = image.after.obstacle if other == len(pairs) else pairs[other].piece.obstacle
    if other == len(pairs) or obstacle:
        name = "what is around the session" if other == len(pairs) else repr(pairs[other].key)
        raise StorableError(
            f"the key {key!r} cannot change alone: it shares data with {name}, which holds "
            f"{obstacle or 'it too'} and cannot be written back"
        )


def _links(image: HashImage) -> tuple[list[set[int]], list[set[int]]]:
    """Return which pairs each piece names objects of, and which pieces name objects of each pair.

    The piece after the hash counts as the last.
    """
    pieces = [*(pair.piece for pair in image.pairs), image.after]
    starts = [piece.first_tag for piece in pieces]
    uses: list[set[int]] = [set() for _ in pieces]
    used_by: list[set[int]] = [set() for _ in pieces]
    for place, piece in enumerate(pieces):
        for use in piece.tag_uses:
            owner = bisect_right(starts, use.tag) - 1
            if owner >= 0 and owner != place:
                uses[place].add(owner)
                used_by[owner].add(place)
    return uses, used_by


def _unwritable(key: Key, obstacle: str) -> StorableError:
    return StorableError(
        f"the value of {key!r} changed, and it holds {obstacle}, which cannot be written back; "
        "put a new value in its place, or keep such data under a key that only Perl changes"
    )


def _linked(key: Key) -> StorableError:
    return StorableError(
        f"what is to change shares an object of a Perl class with the key {key!r}, which cannot "
        "be written back"
    )


def _holds_object(value: Any, objects: Mapping[int, Any]) -> bool:
    """Return whether a value holds what was an object of a Perl class and would lose its class."""
    todo, seen = [value], set()
    while todo:
        item = todo.pop()
        if isinstance(item, (dict, list)) and id(item) not in seen:
            if id(item) in objects:
                return True
            seen.add(id(item))
            todo.extend(item.values() if isinstance(item, dict) else item)
    return False


def _wire_keys(image: HashImage, changes: Changes) -> dict[Key, WireKey]:
    """Return the keys to write; one that perl wrote is written as perl did."""
    known = {pair.key: pair.wire_key for pair in image.pairs}
    return {
        key: known.get(key) or _wire_key(key, changes.text_codec)
        for key, value in changes.values.items()
        if value is not REMOVED
    }


def _fresh_values(changes: Changes) -> dict[Key, Any]:
    """Return the values to write, by key."""
    values = {key: value for key, value in changes.values.items() if value is not REMOVED}
    if changes.text_codec is None:
        return values
    encoded = encode_text([*values.values()], changes.text_codec)
    return dict(zip(values, encoded, strict=True))


def _wire_key(key: Key, text_codec: str | None) -> WireKey:
    if isinstance(key, bytes):
        return WireKey(key, 0)
    try:
        is_flagged = text_codec is None and not key.isascii()
        return WireKey(key.encode(text_codec or "utf-8"), KEY_UTF8 if is_flagged else 0)
    except UnicodeEncodeError as error:
        raise StorableError(f"the key {key!r} is not written: {error.reason}") from None


def encode_text(value: Any, codec: str) -> Any:
    """Return a copy of lists and dicts in which all text that is not ASCII is bytes.

    :raises StorableError: the codec has no such character.
    """
    copies: dict[int, Any] = {}
    todo: list[Any] = []

    def copied(item: Any) -> Any:
        if isinstance(item, str) and not item.isascii():
            try:
                return item.encode(codec)
            except UnicodeEncodeError as error:
                raise StorableError(f"a text is not written in {codec}: {error.reason}") from None
        if not isinstance(item, (dict, list, tuple)):
            return item
        if id(item) not in copies:
            copies[id(item)] = {} if isinstance(item, dict) else []
            todo.append(item)
        return copies[id(item)]

    root = copied(value)
    while todo:
        item = todo.pop()
        if isinstance(item, dict):
            copies[id(item)].update({copied(key): copied(inner) for key, inner in item.items()})
        else:
            copies[id(item)].extend(map(copied, item))
    return root


class _Assembly:
    """Puts an image together: what is before the hash, its pairs, what is after it."""

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
        self.fresh = _freeze(values, image.scanner.header)
        self.u32 = image.scanner.u32.pack
        self.class_numbers: dict[int, int] = {}
        self._number_objects()

    def _number_objects(self) -> None:
        """Find by how much the numbers of each piece's objects change."""
        tag = self.image.scanner.root_tag + 1
        pieces = [pair.piece for pair in self.kept]
        shifts = []
        for piece in pieces:
            shifts.append(tag - piece.first_tag)
            tag += piece.end_tag - piece.first_tag
        first = self.fresh.scanner.root_tag + 1
        self.fresh_shift = tag - first
        tag += self.fresh.after.first_tag - first
        self.starts = [*(piece.first_tag for piece in pieces), self.image.after.first_tag]
        self.shifts = [*shifts, tag - self.image.after.first_tag]

    def _new_tag(self, tag: int) -> int:
        place = bisect_right(self.starts, tag) - 1
        return tag if tag <= self.image.scanner.root_tag else tag + self.shifts[place]

    def _fresh_tag(self, tag: int) -> int:
        return tag + self.fresh_shift

    def data(self) -> bytes:
        """Return the bytes of the image."""
        source = self.image.scanner
        is_flagged = self.image.is_flagged or any(key.flags for key in self.keys)
        parts = [source.data[: source.header.start], self._copy(self.image.before)]
        parts += [bytes([SX_FLAG_HASH, 0]) if is_flagged else bytes([SX_HASH])]
        parts += [self.u32(len(self.kept) + len(self.keys))]
        for pair in self.kept:
            parts += [self._copy(pair.piece), self._key(pair.wire_key, is_flagged)]
        for key, fresh in zip(self.keys, self.fresh.pairs, strict=True):
            parts += [self._copy_fresh(fresh.piece), self._key(key, is_flagged)]
        return b"".join([*parts, self._copy(self.image.after)])

    def _key(self, key: WireKey, is_flagged: bool) -> bytes:
        return bytes([key.flags] * is_flagged) + self.u32(len(key.raw)) + key.raw

    def _copy(self, piece: Piece) -> bytes:
        patches = [
            (use.start, use.start + 4, _be32.pack(self._new_tag(use.tag))) for use in piece.tag_uses
        ]
        for use in piece.class_uses:
            patches += self._class_patches(use)
        return _patched(self.image.scanner.data, piece, patches)

    def _copy_fresh(self, piece: Piece) -> bytes:
        patches = [
            (use.start, use.start + 4, _be32.pack(self._fresh_tag(use.tag)))
            for use in piece.tag_uses
        ]
        return _patched(self.fresh.scanner.data, piece, patches)

    def _class_patches(self, use: ClassUse) -> list[Patch]:
        """Name a class at its first place, and number it at the others."""
        scanner, numbers = self.image.scanner, self.class_numbers
        is_known = use.number in numbers
        number = numbers.setdefault(use.number, len(numbers))
        name = b"" if is_known else scanner.classes[use.number]
        value = number if is_known else len(name)
        if use.flags_at < 0:
            kind = bytes([SX_IX_BLESS if is_known else SX_BLESS])
            size = bytes([value]) if value < TOP_BIT else bytes([TOP_BIT]) + self.u32(value)
            return [(use.start, use.end, kind + size + name)]
        flags = scanner.data[use.flags_at] & ~(HOOK_INDEXED_CLASS | HOOK_LARGE_CLASS)
        flags |= (HOOK_INDEXED_CLASS * is_known) | (HOOK_LARGE_CLASS * (value > 255))
        size = bytes([value]) if value <= 255 else self.u32(value)
        return [
            (use.flags_at, use.flags_at + 1, bytes([flags])),
            (use.start, use.end, size + name),
        ]


def _freeze(values: dict[Key, Any], header: Header) -> HashImage:
    """Return an image of the values, laid out as one with that header.

    :raises StorableError: a value has no form in Perl, or this machine does not write that layout.
    """
    frozen = storable.nfreeze(values) if header.network else storable.freeze(values)
    fresh = read_hash(frozen, None)
    ours = fresh.scanner.header
    if (ours.order, ours.iv_size, ours.nv_size) != (header.order, header.iv_size, header.nv_size):
        raise StorableError(
            "the session is a native image of a perl with another layout than 64-bit PCs have: "
            "it can be read, but not changed"
        )
    return fresh


def _patched(data: bytes, piece: Piece, patches: list[Patch]) -> bytes:
    parts, pos = [], piece.start
    for start, end, new in sorted(patches):
        parts += [data[pos:start], new]
        pos = end
    return b"".join([*parts, data[pos : piece.end]])

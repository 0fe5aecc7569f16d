"""Decides which pairs of a hash are replaced, and refuses changes that would lose data."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from ..format import KEY_UTF8, StorableError
from .assembly import Assembly
from .hash_image import HashImage, Key, WireKey

#: In the changes of :func:`edit_hash`: the key is removed.
REMOVED: Final = object()


@dataclass
class Changes:
    """The changes to the keys of a hash; every key that is not in ``values`` stays.

    :param values: the new values by key, or :data:`REMOVED`.
    :param mutated: the keys whose value is the list or dict that was read, with other content.
    :param objects: the lists and dicts that represent objects of Perl classes, by ``id``.
    :param text_codec: the encoding in which strings are written. With ``None`` they are written as
        characters, with Perl's UTF-8 flag.
    """

    values: dict[Key, Any]
    mutated: set[Key] = field(default_factory=set)
    objects: dict[int, Any] = field(default_factory=dict)
    text_codec: str | None = None


def edit_hash(image: HashImage, changes: Changes, current: Mapping[Key, Any]) -> bytes:
    """Return the image with changes to its hash.

    The other keys keep the bytes that Perl stored. If a key shares a list or dict with a key that
    changed, it is written again as well.

    :param current: the values of the image, for these keys.
    :raises StorableError: Perl cannot represent a value, or a changed value contains something
        that Python cannot represent: an object of a class, a reference to a scalar, code.
    """
    asked = changes.values.keys()
    changes = replace(changes, values=dict(changes.values), mutated=set(changes.mutated))
    dropped = _dropped(image, changes, current)
    key = _find_object(changes)
    if key is not None:
        raise _unwritable(key, "an object of a Perl class") if key in asked else _linked(key)
    kept = [pair for place, pair in enumerate(image.pairs) if place not in dropped]
    return Assembly(image, kept, _wire_keys(image, changes), _new_values(changes)).image_bytes()


def _dropped(image: HashImage, changes: Changes, current: Mapping[Key, Any]) -> set[int]:
    """Return the places of the pairs to drop, and add the keys that share data to the changes."""
    dropped = _changed_places(image, changes)
    _refuse_obstacles(image, changes)
    uses, used_by = _links(image)
    todo = list(dropped)
    while todo:
        place = todo.pop()
        key = image.pairs[place].key
        linked = used_by[place] | (uses[place] if key in changes.mutated else set())
        for other in linked - dropped:
            _refuse_linked(image, other, key)
            other_key = image.pairs[other].key
            changes.values.setdefault(other_key, current[other_key])
            changes.mutated.add(other_key)
            dropped.add(other)
            todo.append(other)
    return dropped


def _changed_places(image: HashImage, changes: Changes) -> set[int]:
    """Return the places of the pairs whose keys, in Python or in Perl, are in the changes."""
    written = {key.characters for key in _wire_keys(image, changes).values()}
    return {
        place
        for place, pair in enumerate(image.pairs)
        if pair.key in changes.values or pair.wire_key.characters in written
    }


def _refuse_obstacles(image: HashImage, changes: Changes) -> None:
    for pair in image.pairs:
        if pair.key in changes.mutated and pair.piece.obstacle:
            raise _unwritable(pair.key, pair.piece.obstacle)


def _refuse_linked(image: HashImage, other: int, key: Key) -> None:
    pairs = image.pairs
    if other == len(pairs):
        name, obstacle = "data around the session", image.after.obstacle or "the session too"
    else:
        name, obstacle = f"the key {pairs[other].key!r}", pairs[other].piece.obstacle
    if obstacle:
        raise StorableError(
            f"the key {key!r} cannot change alone: it shares data with {name}, which cannot be "
            f"written back because it contains {obstacle}"
        )


def _links(image: HashImage) -> tuple[list[set[int]], list[set[int]]]:
    """Return which pairs' objects each piece refers to, and which pieces refer to each pair's.

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
        f"the value of {key!r} changed, and it contains {obstacle}, which cannot be written back; "
        "replace the whole value, or keep such data under a key that only Perl changes"
    )


def _linked(key: Key) -> StorableError:
    return StorableError(
        f"the changed data share an object of a Perl class with the key {key!r}, which cannot be "
        "written back"
    )


def _find_object(changes: Changes) -> Key | None:
    """Return the first key whose value contains an object of a Perl class.

    The object would lose its class. Data that several values share is visited once.
    """
    seen: set[int] = set()
    for key, value in changes.values.items():
        todo = [value]
        while todo:
            item = todo.pop()
            if isinstance(item, (dict, list)) and id(item) not in seen:
                if id(item) in changes.objects:
                    return key
                seen.add(id(item))
                todo.extend(item.values() if isinstance(item, dict) else item)
    return None


def _wire_keys(image: HashImage, changes: Changes) -> dict[Key, WireKey]:
    """Return the keys to write; a key that Perl wrote keeps its bytes."""
    known = {pair.key: pair.wire_key for pair in image.pairs}
    return {
        key: known.get(key) or _wire_key(key, changes.text_codec)
        for key, value in changes.values.items()
        if value is not REMOVED
    }


def _new_values(changes: Changes) -> dict[Key, Any]:
    """Return the values to write, by key."""
    values = {key: value for key, value in changes.values.items() if value is not REMOVED}
    if changes.text_codec is None:
        return values
    encoded = _StringEncoder(changes.text_codec).encode([*values.values()])
    return dict(zip(values, encoded, strict=True))


def _wire_key(key: Key, text_codec: str | None) -> WireKey:
    if isinstance(key, bytes):
        return WireKey(key, 0)
    try:
        is_flagged = text_codec is None and not key.isascii()
        return WireKey(key.encode(text_codec or "utf-8"), KEY_UTF8 if is_flagged else 0)
    except UnicodeEncodeError as error:
        raise StorableError(f"the key {key!r} cannot be written: {error.reason}") from None


class _StringEncoder:
    """Copies lists and dicts. In the copies, all strings that are not ASCII are bytes."""

    def __init__(self, codec: str) -> None:
        self.codec = codec
        self.copies: dict[int, Any] = {}
        self.todo: list[Any] = []

    def encode(self, value: Any) -> Any:
        """Return a copy of a value.

        :raises StorableError: the codec cannot encode a string.
        """
        root = self._copied(value)
        while self.todo:
            item = self.todo.pop()
            if isinstance(item, dict):
                pairs = ((self._copied(key), self._copied(inner)) for key, inner in item.items())
                self.copies[id(item)].update(pairs)
            else:
                self.copies[id(item)].extend(map(self._copied, item))
        return root

    def _copied(self, item: Any) -> Any:
        if isinstance(item, str):
            return _encode_string(item, self.codec)
        if not isinstance(item, (dict, list, tuple)) or item == ():
            return item
        if id(item) not in self.copies:
            self.copies[id(item)] = {} if isinstance(item, dict) else []
            self.todo.append(item)
        return self.copies[id(item)]


def _encode_string(text: str, codec: str) -> str | bytes:
    if text.isascii():
        return text
    try:
        return text.encode(codec)
    except UnicodeEncodeError as error:
        raise StorableError(f"a string cannot be written in {codec}: {error.reason}") from None

"""Read how a Storable image is built: its hash and pairs, and the places of objects and classes.

No values are made. With the result :mod:`pyramid_kvs.storable.editor` can assemble an image again.
"""

from __future__ import annotations

import copy
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

from .format import (
    CONSTANTS,
    HOOK_EXTRA,
    HOOK_HAS_LIST,
    HOOK_INDEXED_CLASS,
    HOOK_KIND,
    HOOK_LARGE_CLASS,
    HOOK_LARGE_LIST,
    HOOK_LARGE_STRING,
    HOOK_RECURSE,
    KEY_PLACEHOLDER,
    KEY_RECORD,
    KEY_UTF8,
    KEY_WASUTF8,
    SX_ARRAY,
    SX_BLESS,
    SX_BYTE,
    SX_CODE,
    SX_DOUBLE,
    SX_FLAG_HASH,
    SX_HASH,
    SX_HOOK,
    SX_INTEGER,
    SX_IX_BLESS,
    SX_LSCALAR,
    SX_LUTF8STR,
    SX_LVSTRING,
    SX_NETINT,
    SX_OBJECT,
    SX_OVERLOAD,
    SX_REF,
    SX_REGEXP,
    SX_SCALAR,
    SX_TIED_ARRAY,
    SX_TIED_HASH,
    SX_TIED_IDX,
    SX_TIED_KEY,
    SX_TIED_SCALAR,
    SX_UTF8STR,
    SX_VSTRING,
    SX_WEAKOVERLOAD,
    SX_WEAKREF,
    StorableError,
    check_encoding,
    decode_class,
    decode_text,
    parse_header,
)

__all__ = ["ClassUse", "HashImage", "Key", "Pair", "Piece", "Scanner", "WireKey", "read_hash"]

Key: TypeAlias = "str | bytes"
Step: TypeAlias = "tuple[Callable[[], None], int]"

ODD_REFERENCES: Final = {
    SX_REF: "a reference to a reference",
    SX_WEAKREF: "a weak reference",
    SX_OVERLOAD: "an overloaded object",
    SX_WEAKOVERLOAD: "a weak reference",
}
CONTAINERS: Final = (SX_ARRAY, SX_HASH, SX_FLAG_HASH)
SHORT_TEXTS: Final = (SX_SCALAR, SX_UTF8STR)
LONG_TEXTS: Final = (SX_LSCALAR, SX_LUTF8STR)
KEY_LOCKED: Final = 0x04
TOP_BIT: Final = 0x80

_be32 = struct.Struct(">I")


class TagUse(NamedTuple):
    """Four bytes that name an object by its number."""

    start: int
    tag: int


class ClassUse(NamedTuple):
    """Bytes that name a class, and the hook's flags that say how; -1: it is a blessing."""

    start: int
    end: int
    number: int
    flags_at: int


@dataclass
class Piece:
    """A part of an image that is copied or dropped as a whole.

    ``obstacle`` says what is in it that a Python value cannot say; empty: nothing.
    """

    start: int
    first_tag: int
    end: int = 0
    end_tag: int = 0
    tag_uses: list[TagUse] = field(default_factory=list)
    class_uses: list[ClassUse] = field(default_factory=list)
    obstacle: str = ""


class WireKey(NamedTuple):
    """A hash key as it stands in an image."""

    raw: bytes
    flags: int

    @property
    def characters(self) -> Key:
        """What makes two keys one for perl: their characters, where a byte counts as one."""
        return decode_text(self.raw, "utf-8" if self.flags & KEY_UTF8 else "latin-1")


class Pair(NamedTuple):
    """One key of the hash, as Python has it and as it stands there, and its value's record."""

    key: Key
    wire_key: WireKey
    piece: Piece


# -- reading the structure -------------------------------------------------------------------


class Scanner:
    """Walks through the records of an image and notes where objects and classes are named.

    ``work`` are the steps to come, the last one next: nothing calls itself, however deep the data.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.header = parse_header(data)
        if self.header.major != 2:
            raise StorableError("images of Storable before 0.7 can be read, but not changed")
        self.pos = self.header.start
        self.tag = 0
        self.root_tag = -1
        self.classes: list[bytes] = []
        self.containers: set[int] = set()
        self.piece = Piece(0, 0)
        self.work: list[Step] = []
        self.u32 = struct.Struct(self.header.order + "I")

    def begin(self) -> Piece:
        """Start a new piece at the current place."""
        self.piece = Piece(self.pos, self.tag)
        return self.piece

    def finish(self) -> Piece:
        """End the piece at the current place and return it."""
        if self.pos > len(self.data):
            raise StorableError("the image ends within a record", len(self.data))
        self.piece.end, self.piece.end_tag = self.pos, self.tag
        return self.piece

    def scan(self, step: Callable[[], None], times: int = 1) -> None:
        """Take a step, and all steps that follow from it."""
        work = self.work
        self._push(step, times)
        while work:
            step, left = work.pop()
            if left > 1:
                work.append((step, left - 1))
            step()

    def _push(self, step: Callable[[], None], times: int = 1) -> None:
        if times:
            self.work.append((step, times))

    def _note(self, obstacle: str) -> None:
        self.piece.obstacle = self.piece.obstacle or obstacle

    # -- fields

    def byte(self) -> int:
        value = self.data[self.pos]
        self.pos += 1
        return value

    def number(self) -> int:
        (value,) = self.u32.unpack_from(self.data, self.pos)
        self.pos += 4
        return int(value)

    def length(self, is_large: int) -> int:
        return self.number() if is_large else self.byte()

    def skip(self, length: int) -> None:
        self.pos += length

    def take(self, length: int) -> bytes:
        taken = self.data[self.pos : self.pos + length]
        self.pos += length
        return taken

    def object_tag(self) -> int:
        (tag,) = _be32.unpack_from(self.data, self.pos)
        self.piece.tag_uses.append(TagUse(self.pos, tag))
        self.pos += 4
        return int(tag)

    # -- records

    def element(self) -> None:
        """Pass the record of an item or of a hash's value."""
        kind = self.byte()
        if kind == SX_REF:
            self.tag += 1
            self._push(self.target)
        elif not self._scalar(kind):
            self._odd(kind)

    def target(self) -> None:
        """Pass the record that a reference in a container leads to."""
        kind = self.byte()
        if kind in CONTAINERS:
            self._container(kind)
        elif kind == SX_OBJECT:
            tag = self.object_tag()
            if tag == self.root_tag:
                self._note("a reference to the session itself")
            elif tag not in self.containers:
                self._note("a reference to a scalar")
        elif self._scalar(kind):
            self._note("a reference to a scalar")
        else:
            self._odd(kind)

    def _record(self) -> None:
        """Pass any record."""
        kind = self.byte()
        if not self._scalar(kind):
            self._odd(kind)

    def _scalar(self, kind: int) -> bool:
        if kind in SHORT_TEXTS:
            self.skip(self.byte())
        elif kind in LONG_TEXTS:
            self.skip(self.number())
        elif kind == SX_BYTE:
            self.pos += 1
        elif kind == SX_NETINT:
            self.pos += 4
        elif kind == SX_INTEGER:
            self.pos += self.header.iv_size
        elif kind == SX_DOUBLE:
            self.pos += self.header.nv_size
        elif kind not in CONSTANTS:
            return False
        self.tag += 1
        return True

    def _container(self, kind: int) -> None:
        self.containers.add(self.tag)
        self.tag += 1
        if kind == SX_ARRAY:
            self._push(self.element, self.number())
        elif kind == SX_HASH:
            self._push(self.pair, self.number())
        else:
            if self.byte():
                self._note("a restricted hash")
            self._push(self.flagged_pair, self.number())

    def pair(self) -> None:
        self._push(self.key)
        self._push(self.element)

    def key(self) -> None:
        self.skip(self.number())

    def flagged_pair(self) -> None:
        self._push(self.flagged_key)
        self._push(self.element)

    def flagged_key(self) -> None:
        flags = self.byte()
        if flags & (KEY_RECORD | KEY_PLACEHOLDER | KEY_LOCKED):
            self._note("a restricted hash")
        if flags & KEY_RECORD:
            self._push(self._record)
        else:
            self.key()

    # -- records that Python values cannot stand for

    def _odd(self, kind: int) -> None:
        opener = OPENERS.get(kind)
        if opener is None:
            raise StorableError(f"records of type {kind} cannot be copied", self.pos - 1)
        opener(self, kind)

    def _bare(self, kind: int) -> None:
        """Pass what only perl puts without a reference in front: inside a blessing, say."""
        self._note("an array or hash without a reference to it")
        self._container(kind)

    def _shared(self, kind: int) -> None:
        self._note("a value that two places share")
        self.object_tag()

    def _reference(self, kind: int) -> None:
        self._note(ODD_REFERENCES[kind])
        self.tag += 1
        self._push(self._record)

    def _tied(self, kind: int) -> None:
        self._note("tied data")
        self.tag += 1
        self._push(self._record)

    def _tied_key(self, kind: int) -> None:
        self._tied(kind)
        self._push(self._record)

    def _tied_index(self, kind: int) -> None:
        self._note("tied data")
        self.tag += 1
        self._push(self._skip_number)
        self._push(self._record)

    def _skip_number(self) -> None:
        self.pos += 4

    def _version(self, kind: int) -> None:
        self._note("a version string")
        self.skip(self.length(kind == SX_LVSTRING))
        self._push(self._record)

    def _code(self, kind: int) -> None:
        self._note("code")
        self.tag += 1
        self._push(self._record)

    def _regexp(self, kind: int) -> None:
        self._note("a pattern")
        self.tag += 1
        flags = self.byte()
        self.skip(self.length(flags & 1))
        self.skip(self.byte())

    def _blessing(self, kind: int) -> None:
        self.class_name(kind)
        self._push(self._record)

    def class_name(self, kind: int) -> None:
        """Pass the class of a blessing, whose type byte was the last."""
        start = self.pos - 1
        first = self.byte()
        value = self.number() if first & TOP_BIT else first
        number = self._class_number(value, kind == SX_IX_BLESS)
        self.piece.class_uses.append(ClassUse(start, self.pos, number, -1))

    def _class_number(self, value: int, is_indexed: bool) -> int:
        if not is_indexed:
            self.classes.append(self.take(value))
            value = len(self.classes) - 1
        elif value >= len(self.classes):
            raise StorableError(f"class number {value} is not given out", self.pos)
        self._note(f"an object of class {decode_class(self.classes[value])}")
        return value

    def _hook(self, kind: int) -> None:
        self._note("an object of a class with Storable hooks")
        flags_at, flags = self.pos, self.byte()
        self.tag += 1
        if flags & HOOK_KIND == HOOK_EXTRA:
            self.pos += 1
            self._push(self._record)
        self._hook_parts(flags_at, flags)

    def _hook_parts(self, flags_at: int, flags: int) -> None:
        if flags & HOOK_RECURSE:
            self._push(self._next_hook_parts)
            self._push(self._record)
        else:
            self._hook_end(flags_at, flags)

    def _next_hook_parts(self) -> None:
        flags_at = self.pos
        self._hook_parts(flags_at, self.byte())

    def _hook_end(self, flags_at: int, flags: int) -> None:
        start = self.pos
        value = self.length(flags & HOOK_LARGE_CLASS)
        number = self._class_number(value, bool(flags & HOOK_INDEXED_CLASS))
        self.piece.class_uses.append(ClassUse(start, self.pos, number, flags_at))
        self.skip(self.length(flags & HOOK_LARGE_STRING))
        if flags & HOOK_HAS_LIST:
            self._push(self._listed_tag, self._list_length(flags & HOOK_LARGE_LIST))

    def _list_length(self, is_large: int) -> int:
        length = self.length(is_large)
        if length > len(self.data):
            raise StorableError("a list of objects that is too large to be copied", self.pos)
        return length

    def _listed_tag(self) -> None:
        self.object_tag()


OPENERS: Final[dict[int, Callable[[Scanner, int], None]]] = {
    **dict.fromkeys(CONTAINERS, Scanner._bare),
    **dict.fromkeys(ODD_REFERENCES, Scanner._reference),
    **dict.fromkeys((SX_TIED_ARRAY, SX_TIED_HASH, SX_TIED_SCALAR), Scanner._tied),
    **dict.fromkeys((SX_BLESS, SX_IX_BLESS), Scanner._blessing),
    **dict.fromkeys((SX_VSTRING, SX_LVSTRING), Scanner._version),
    SX_OBJECT: Scanner._shared,
    SX_HOOK: Scanner._hook,
    SX_TIED_KEY: Scanner._tied_key,
    SX_TIED_IDX: Scanner._tied_index,
    SX_CODE: Scanner._code,
    SX_REGEXP: Scanner._regexp,
}


# -- the hash and its pairs ------------------------------------------------------------------


@dataclass
class HashImage:
    """An image in parts: what is before the hash, its pairs, what is after them."""

    scanner: Scanner
    before: Piece
    is_flagged: bool
    pairs: list[Pair]
    after: Piece


def read_hash(data: bytes, encoding: str | None, member: bytes | None = None) -> HashImage:
    """Find the hash at the root of an image, and its pairs.

    :param encoding: of keys without Perl's UTF-8 flag, as in ``storable.thaw``.
    :param member: of the object that is the second item of an array at the root: the hash is there.
    :raises StorableError: there is none, or the image has records that cannot be copied.
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
    start = _follow(scanner, (SX_HASH, SX_FLAG_HASH))
    scanner.pos = start
    before = scanner.finish()
    scanner.root_tag = scanner.tag
    count, is_flagged = _open_hash(scanner)
    pairs = [_read_pair(scanner, is_flagged, codec) for _ in range(count)]
    scanner.begin()
    for step, times in rest:
        scanner.scan(step, times)
    return HashImage(scanner, before, is_flagged, pairs, scanner.finish())


def _follow(scanner: Scanner, wanted: tuple[int, ...]) -> int:
    """Pass references and blessings up to a record of a wanted type; return where it starts."""
    while (kind := scanner.byte()) not in wanted:
        if kind in ODD_REFERENCES:
            scanner.tag += 1
        elif kind in (SX_BLESS, SX_IX_BLESS):
            scanner.class_name(kind)
        else:
            raise StorableError("there is no hash at the root of the image", scanner.pos - 1)
    return scanner.pos - 1


def _open_hash(scanner: Scanner) -> tuple[int, bool]:
    """Pass the beginning of a hash; return the number of pairs and whether keys have flags."""
    scanner.tag += 1
    is_flagged = scanner.byte() == SX_FLAG_HASH
    if is_flagged and scanner.byte():
        raise StorableError("a restricted hash can be read, but not changed")
    return scanner.number(), is_flagged


def _enter_member(scanner: Scanner, member: bytes) -> list[Step]:
    """Go to a member of the object in an array; return the steps from there to the end."""
    _follow(scanner, (SX_ARRAY,))
    scanner.tag += 1
    items = scanner.number()
    scanner.scan(scanner.element)
    scanner.pos = _follow(scanner, (SX_HASH, SX_FLAG_HASH))
    count, is_flagged = _open_hash(scanner)
    pair, key = (
        (scanner.flagged_pair, scanner.flagged_key) if is_flagged else (scanner.pair, scanner.key)
    )
    for passed in range(1, count + 1):
        if _comes_next(scanner, member, is_flagged):
            steps = [(key, 1), (pair, count - passed), (scanner.element, items - 2)]
            return [(step, times) for step, times in steps if times > 0]
        scanner.scan(pair)
    raise StorableError(f"the object in the image has no {member.decode()}")


def _comes_next(scanner: Scanner, member: bytes, is_flagged: bool) -> bool:
    """Return whether the next pair has that key, which stands behind its value."""
    ahead, known = copy.copy(scanner), len(scanner.classes)
    ahead.work = []
    ahead.begin()
    ahead.scan(ahead.element)
    ahead.pos += is_flagged
    del scanner.classes[known:]  # the two share the list
    return ahead.take(ahead.number()) == member


def _read_pair(scanner: Scanner, is_flagged: bool, codec: str | None) -> Pair:
    scanner.begin()
    scanner.scan(scanner.element)
    piece = scanner.finish()
    flags = scanner.byte() if is_flagged else 0
    if flags & (KEY_RECORD | KEY_PLACEHOLDER | KEY_LOCKED):
        raise StorableError("a restricted hash can be read, but not changed")
    wire_key = WireKey(scanner.take(scanner.number()), flags)
    return Pair(_python_key(wire_key, codec), wire_key, piece)


def _python_key(key: WireKey, codec: str | None) -> Key:
    if key.flags & KEY_UTF8:
        return decode_text(key.raw, "utf-8")
    return decode_text(key.raw, "latin-1" if key.flags & KEY_WASUTF8 else codec)

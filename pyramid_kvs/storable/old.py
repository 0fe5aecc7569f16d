"""Reads Storable images of major versions 0 and 1, which perl wrote until 1999.

Their class names are in notes after the record of an object, which end with ``X``. In major version
0 each record also begins with an identifier, by which later records name it, and each item begins
with a mark.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from .format import (
    SX_ARRAY,
    SX_BYTE,
    SX_DOUBLE,
    SX_HASH,
    SX_INTEGER,
    SX_LSCALAR,
    SX_NETINT,
    SX_OBJECT,
    SX_REF,
    SX_SCALAR,
    SX_SV_NO,
    SX_SV_UNDEF,
    SX_SV_YES,
    SX_TIED_ARRAY,
    SX_TIED_HASH,
    SX_TIED_SCALAR,
    SX_UNDEF,
    Blessed,
    StorableError,
    decode_class,
    decode_text,
)
from .header import Header
from .state import MORE, PENDING, State

REFERENCES: Final = frozenset({SX_REF, SX_TIED_ARRAY, SX_TIED_HASH, SX_TIED_SCALAR})

NOTES_END: Final = ord("X")
NOTE_CLASS: Final = ord("b")
NOTE_LONG_CLASS: Final = ord("B")
MARKS: Final = {SX_ARRAY: b"iI", SX_HASH: b"vV"}
"""In major version 0: the mark of an item that is a record, and of one that is missing."""
MARK_KEY: Final = ord("k")

_be_u32 = struct.Struct(">I").unpack_from
_be_i32 = struct.Struct(">i").unpack_from


@dataclass
class Frame:
    """A container that is being read, and the number of items to come.

    ``first`` and ``last`` are the tags of the references that lead to it and of itself, because
    each of them has notes after the container.
    """

    kind: int
    target: Any
    items: int
    first: int
    last: int


class OldReader(State):
    """Reads one image of major version 0 or 1; use it once."""

    def __init__(
        self, data: bytes, header: Header, codec: str | None, blessed: Blessed | None
    ) -> None:
        super().__init__(data, header, codec, blessed)
        self.has_marks = header.major == 0
        self.scalars = OLDEST_SCALARS if self.has_marks else OLD_SCALARS
        self.identifiers: dict[bytes, int] = {}
        self.identifier = b""
        self.frames: list[Frame] = []

    def read_records(self) -> Any:
        value = self._read_record(None)
        while self.frames:
            if value is MORE:
                value = self._read_item(self.frames[-1])
            else:
                value = self._add_item(self.frames[-1], value)
        return value

    def _read_item(self, frame: Frame) -> Any:
        """Read the mark of an item, and the item itself, if it is not missing."""
        if self.has_marks:
            mark = self.data[self.pos]
            if mark not in MARKS[frame.kind]:
                raise StorableError(f"unknown mark of an item: {mark:#04x}", self.pos)
            self.pos += 1
            if mark == MARKS[frame.kind][1]:
                return None
        return self._read_record(frame.target)

    def _add_item(self, frame: Frame, value: Any) -> Any:
        """Add an item to its container; return the container if it is complete."""
        if frame.kind == SX_ARRAY:
            frame.target.append(value)
        else:
            frame.target[self._read_old_key()] = value
        frame.items -= 1
        if frame.items:
            return MORE
        self.frames.pop()
        return self._read_notes(frame.first, frame.last, frame.target)

    def _read_old_key(self) -> str | bytes:
        if self.has_marks:
            if self.data[self.pos] != MARK_KEY:
                raise StorableError(f"unknown mark of a key: {self.data[self.pos]:#04x}", self.pos)
            self.pos += 1
        return self.read_key(self.pos, 0)

    def _read_record(self, parent: Any) -> Any:
        """Read a record with the references that lead to it, or open it if it contains records."""
        first = len(self.tags)
        kind = self._follow_references()
        if kind == SX_OBJECT:
            value = self._find_old(parent)
            return self._read_notes(first, len(self.tags) - 1, value)
        if kind in (SX_ARRAY, SX_HASH):
            return self._open_old(kind, first)
        reader = self.scalars.get(kind)
        if reader is None:
            raise StorableError(
                f"unknown record type {kind} in version {self.header.major}", self.pos - 1
            )
        return self._read_notes(first, len(self.tags) - 1, reader(self))

    def _follow_references(self) -> int:
        """Give tags to references and to the record they lead to, and return its type."""
        while True:
            identifier = self.take(self.header.long_size) if self.has_marks else b""
            kind = self.data[self.pos]
            self.pos += 1
            if kind == SX_OBJECT:
                self.identifier = identifier
                return kind
            if self.has_marks:
                self.identifiers[identifier] = len(self.tags)
            self.tags.append(PENDING)
            if kind not in REFERENCES:
                return kind

    def _find_old(self, parent: Any) -> Any:
        if not self.has_marks:
            (tag,) = _be_u32(self.data, self.pos)
            self.pos += 4
            return self.find(tag, parent)
        if self.identifier not in self.identifiers:
            raise StorableError("unknown object identifier", self.pos)
        return self.find(self.identifiers[self.identifier], parent)

    def _open_old(self, kind: int, first: int) -> Any:
        value: Any = [] if kind == SX_ARRAY else {}
        last = len(self.tags) - 1
        self.tags[first:] = [value] * (len(self.tags) - first)
        items = self.take_u32()
        self.check_count(kind, items)
        if not items:
            return self._read_notes(first, last, value)
        self.frames.append(Frame(kind, value, items, first, last))
        return MORE

    def _read_notes(self, first: int, last: int, value: Any) -> Any:
        """Read the notes of the records with these tags, from the last tag to the first."""
        for tag in range(last, first - 1, -1):
            name = self._read_class_note()
            if name is not None:
                value = self.call_blessed(decode_class(name), value)
            self.tags[tag] = value
        return value

    def _read_class_note(self) -> bytes | None:
        name = None
        while True:
            note = self.data[self.pos]
            self.pos += 1
            if note == NOTES_END:
                return name
            if note not in (NOTE_CLASS, NOTE_LONG_CLASS):
                raise StorableError(f"unknown note {note:#04x}", self.pos - 1)
            name = self.take(self.take_size(note == NOTE_LONG_CLASS))

    def _take_text(self, is_long: int) -> str | bytes:
        return decode_text(self.take(self.take_size(is_long)), self.codec)

    def _take_byte(self) -> int:
        return self.take_size(0) - 128

    def _take_netint(self) -> int:
        (value,) = _be_i32(self.data, self.pos)
        self.pos += 4
        return int(value)

    def _take_integer(self) -> int:
        (value,) = self.read_integer(self.data, self.pos)
        self.pos += self.header.iv_size
        return int(value)

    def _take_double(self) -> float:
        (value,) = self.read_double(self.data, self.pos)
        self.pos += self.header.nv_size
        return float(value)


OLDEST_SCALARS: Final[dict[int, Callable[[OldReader], Any]]] = {
    SX_LSCALAR: lambda reader: reader._take_text(1),
    SX_SCALAR: lambda reader: reader._take_text(0),
    SX_UNDEF: lambda _: None,
    SX_INTEGER: OldReader._take_integer,
    SX_DOUBLE: OldReader._take_double,
    SX_BYTE: OldReader._take_byte,
    SX_NETINT: OldReader._take_netint,
}
OLD_SCALARS: Final[dict[int, Callable[[OldReader], Any]]] = {
    **OLDEST_SCALARS,
    SX_SV_UNDEF: lambda _: None,
    SX_SV_YES: lambda _: True,
    SX_SV_NO: lambda _: False,
}

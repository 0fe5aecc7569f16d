"""The state of a walk through the records of an image: its position, and what it found so far."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from ..format import StorableError, decode_class
from ..header import parse_header

Step: TypeAlias = "tuple[Callable[[], None], int]"

_be_u32 = struct.Struct(">I")


class TagUse(NamedTuple):
    """Four bytes that refer to an object by its number."""

    start: int
    tag: int


class ClassUse(NamedTuple):
    """Bytes that name a class.

    ``hook_flags`` is the offset of the flags that say how a hook record does it. It is None for a
    blessing.
    """

    start: int
    end: int
    number: int
    hook_flags: int | None


@dataclass
class Piece:
    """A part of an image that is copied or dropped as a whole.

    ``obstacle`` is something in it that Python values cannot represent. It is empty if there is no
    such thing.
    """

    start: int
    first_tag: int
    end: int = 0
    end_tag: int = 0
    tag_uses: list[TagUse] = field(default_factory=list)
    class_uses: list[ClassUse] = field(default_factory=list)
    obstacle: str = ""


class Walk:
    """Skips the fields of records, and notes where objects and classes are named.

    ``work`` is a stack of the steps to come. It replaces recursion, so that the depth of the data
    is not limited.
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
        self.class_obstacles: list[str] = []
        self.containers: set[int] = set()
        self.piece = Piece(0, 0)
        self.work: list[Step] = []
        self.u32 = struct.Struct(self.header.order + "I")

    def begin(self) -> Piece:
        """Start a new piece at the current position."""
        self.piece = Piece(self.pos, self.tag)
        return self.piece

    def finish(self) -> Piece:
        """End the piece at the current position and return it."""
        if self.pos > len(self.data):
            raise StorableError("the image ends within a record", len(self.data))
        self.piece.end, self.piece.end_tag = self.pos, self.tag
        return self.piece

    def run(self, step: Callable[[], None], times: int = 1) -> None:
        """Take a step, and all steps that follow from it."""
        work = self.work
        self.push(step, times)
        while work:
            step, left = work.pop()
            if left > 1:
                work.append((step, left - 1))
            step()

    def push(self, step: Callable[[], None], times: int = 1) -> None:
        """Take a step next."""
        if times:
            self.work.append((step, times))

    def note(self, obstacle: str) -> None:
        self.piece.obstacle = self.piece.obstacle or obstacle

    # -- records

    def record(self) -> None:
        """Skip a record of any type."""
        raise NotImplementedError

    def container(self, kind: int) -> None:
        """Skip an array or hash after its type byte."""
        raise NotImplementedError

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
        """Skip the number of an object, and note its place."""
        (tag,) = _be_u32.unpack_from(self.data, self.pos)
        self.piece.tag_uses.append(TagUse(self.pos, tag))
        self.pos += 4
        return int(tag)

    def use_class(self, start: int, is_indexed: bool, value: int, hook_flags: int | None) -> None:
        """Skip the name of a class, or its number, and note its place.

        :param start: the offset at which the place begins.
        :param value: the class number if the class is indexed, else the length of the name.
        """
        if not is_indexed:
            value = self._add_class(self.take(value))
        elif value >= len(self.classes):
            raise StorableError(f"unknown class {value}, there are {len(self.classes)}", self.pos)
        self.note(self.class_obstacles[value])
        self.piece.class_uses.append(ClassUse(start, self.pos, value, hook_flags))

    def _add_class(self, name: bytes) -> int:
        """Add a name to the class list and return its number.

        It is decoded only here: many short records can refer to a long name.
        """
        self.classes.append(name)
        self.class_obstacles.append(f"an object of class {decode_class(name)}")
        return len(self.classes) - 1

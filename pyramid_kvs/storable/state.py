"""The state of reading one image: the position, the objects and classes so far, open records.

Nothing here is recursive. A record that contains records puts a frame on the stack and returns
:data:`MORE`. The main loop then reads the next record and gives its value to the frame.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from .format import (
    KEY_UTF8,
    KEY_WASUTF8,
    SX_ARRAY,
    SX_FLAG_HASH,
    SX_HASH,
    Blessed,
    StorableError,
    decode_class,
    decode_text,
    make_key,
)
from .header import Header, choose_numbers

# The modes of frames. A frame is (mode, target, count). In the modes LIST, HASH, FLAG_HASH and
# DROP the target is the value, and the count is the number of records to come. In the other modes
# they have other meanings.
ROOT: Final = 0
LIST: Final = 1
HASH: Final = 2
FLAG_HASH: Final = 3
KEY: Final = 4
DROP: Final = 5
TIED_INDEX: Final = 6
FILL: Final = 7
LEAD: Final = 8
HOOK: Final = 9
HOOK_TAIL: Final = 10
HOOK_DONE: Final = 11

MODES: Final = {SX_ARRAY: LIST, SX_HASH: HASH, SX_FLAG_HASH: FLAG_HASH}
CONTAINER_MODES: Final = (LIST, HASH, FLAG_HASH)
ITEM_SIZES: Final = {SX_ARRAY: 1, SX_HASH: 5, SX_FLAG_HASH: 3}
"""The minimum number of bytes of one item of a container."""

SMALL_KEY: Final = 256
"""Shorter keys, with their length, are looked up by their bytes instead of decoded again."""

PENDING: Final = object()
"""In the list of tags: the value of a reference that is not known yet."""
MORE: Final = object()
"""The result of a record whose frame is on the stack, because it contains the next record."""

NO_CLASS: Final = -1
CLASS_OF_HOOK: Final = -2
"""Instead of a class number: the class of a hook record, which is only known at its end."""


class State:
    """The state of reading one image; use it once.

    :param data: the whole image.
    :param header: the content of its header.
    :param codec: the codec of strings without Perl's UTF-8 flag. With None they remain bytes.
    :param blessed: called with class name and value of each object; its result replaces the object.
    """

    def __init__(
        self, data: bytes, header: Header, codec: str | None, blessed: Blessed | None
    ) -> None:
        self.data = data
        self.pos = header.start
        self.codec = codec
        self.blessed = blessed
        self.header = header
        self.read_u32 = struct.Struct(header.order + "I").unpack_from
        self.read_u64 = struct.Struct(header.order + "Q").unpack_from
        self.read_integer, self.read_double = choose_numbers(header)
        self.tags: list[Any] = []
        self.classes: list[str] = []
        self.stack: list[tuple[int, Any, int]] = []
        self.hook_class = NO_CLASS
        self.repairs = Repairs()
        self.unique_keys: dict[str | bytes, str | bytes] = {}
        self.record_keys: dict[int, tuple[str | bytes, Any]] = {}
        self.in_callback = False

    def read(self) -> Any:
        """Read the root record and everything in it.

        :raises StorableError: the image is damaged or has no value.
        """
        try:
            value = self.read_records()
        except (IndexError, struct.error):
            if self.in_callback:
                raise
            raise StorableError("the image ends within a record", len(self.data)) from None
        if self.pos > len(self.data):
            raise StorableError("the image ends within a record", len(self.data))
        self.repairs.apply(self.tags)
        return value

    def read_records(self) -> Any:
        """Read records until the root is complete.

        Reading past the end of a slice need not be checked. The slice is only shorter, and then
        the next byte raises IndexError, or :meth:`read` finds that the position is past the end.
        """
        raise NotImplementedError

    # -- fields

    def take(self, length: int) -> bytes:
        start = self.pos
        if length > len(self.data) - start:
            raise StorableError(f"too few bytes for a length of {length}", start)
        self.pos = start + length
        return self.data[start : self.pos]

    def take_u32(self) -> int:
        (number,) = self.read_u32(self.data, self.pos)
        self.pos += 4
        return int(number)

    def take_u64(self) -> int:
        (number,) = self.read_u64(self.data, self.pos)
        self.pos += 8
        return int(number)

    def take_size(self, is_large: int) -> int:
        """Read a length or number, of four bytes if it is large, else of one."""
        if is_large:
            return self.take_u32()
        self.pos += 1
        return self.data[self.pos - 1]

    def read_key(self, start: int, flags: int) -> str | bytes:
        """Read the length and the bytes of a hash key."""
        (length,) = self.read_u32(self.data, start)
        self.pos = start + 4 + length
        codec = self.codec
        if flags & (KEY_UTF8 | KEY_WASUTF8):
            codec = "utf-8" if flags & KEY_UTF8 else "latin-1"
        key = decode_text(self.data[start + 4 : self.pos], codec)
        return key if length < SMALL_KEY else self.unique_keys.setdefault(key, key)

    def make_key(self, value: Any, offset: int) -> str | bytes:
        """Convert the value of a key that is stored as a record to a hash key.

        Equal long keys are one object in the whole image. Otherwise a dict could have to compare
        two equal long strings for each of its keys, because records of a few bytes can name them.
        """
        known = self.record_keys.get(id(value))
        if known is None:
            key = make_key(value, offset)
            known = self.record_keys[id(value)] = (self.unique_keys.setdefault(key, key), value)
        return known[0]

    # -- containers

    def open_container(self, kind: int, items: int) -> Any:
        """Create a list or dict, and put its frame on the stack if it has items."""
        value: Any = [] if kind == SX_ARRAY else {}
        self.tags.append(value)
        self.check_count(kind, items)
        if not items:
            return value
        self.stack.append((MODES[kind], value, items))
        return MORE

    def check_count(self, kind: int, items: int) -> None:
        """Refuse a number of items for which the image is too short."""
        if items * ITEM_SIZES[kind] > len(self.data) - self.pos:
            raise StorableError(f"too few bytes for {items} items", self.pos)

    # -- objects and classes

    def find(self, tag: int, parent: Any) -> Any:
        """Return the object with a tag, which the caller puts into the container ``parent``."""
        if tag >= len(self.tags):
            raise StorableError(f"unknown object {tag}, there are {len(self.tags)}", self.pos)
        value = self.tags[tag]
        if value is PENDING:
            raise StorableError("a reference leads only to itself", self.pos)
        if self.blessed is not None and parent is not None:
            self.repairs.note(parent, value, tag)
        return value

    def find_parent(self) -> Any:
        """Return the container that the record belongs to; None if it is in another record."""
        depth = -2 if self.stack[-1][0] == LEAD else -1
        mode, target, _ = self.stack[depth]
        return target if mode in CONTAINER_MODES else None

    def add_class(self, name: bytes) -> int:
        """Add a name to the class list and return its number.

        It is decoded only here: many short records can refer to a long name.
        """
        self.classes.append(decode_class(name))
        return len(self.classes) - 1

    def check_class(self, number: int) -> int:
        if number >= len(self.classes):
            raise StorableError(f"unknown class {number}, there are {len(self.classes)}", self.pos)
        return number

    def call_blessed(self, name: str, value: Any) -> Any:
        """Return what replaces an object."""
        if self.blessed is None:
            return value
        self.in_callback = True
        value = self.blessed(name, value)
        self.in_callback = False
        return value


class Repairs:
    """Replaces objects in cycles by the results of their ``blessed`` calls.

    While an object is being read, a reference to it can only give the plain list or dict. These
    places are noted and corrected at the end, each container in one pass.
    """

    def __init__(self) -> None:
        self.places: dict[int, tuple[Any, dict[int, tuple[Any, int]]]] = {}

    def note(self, parent: Any, value: Any, tag: int) -> None:
        """Note that ``parent`` contains ``value``, which is the object with this tag."""
        if isinstance(value, (list, dict)):
            found = self.places.setdefault(id(parent), (parent, {}))[1]
            found[id(value)] = (value, tag)

    def apply(self, tags: list[Any]) -> None:
        for parent, found in self.places.values():
            pairs = parent.items() if isinstance(parent, dict) else enumerate(parent)
            for key, value in list(pairs):
                if id(value) in found:
                    parent[key] = tags[found[id(value)][1]]

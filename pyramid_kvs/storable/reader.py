"""Reads Storable images of major version 2, the ones that perl has written since 2000.

The main loop knows the records that nearly all data consists of; it keeps everything it touches in
local variables, because that decides the speed. Whatever else there is goes through
:meth:`Reader._read_rare`. Nothing calls itself: a record that contains records pushes a frame on
the stack, and the main loop reads on.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

from pyramid_kvs.storable.format import (
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
    SX_LOBJECT,
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
    Blessed,
    Header,
    Repairs,
    StorableError,
    choose_numbers,
    decode_class,
    decode_text,
    make_key,
)

# Frames are (mode, target, count). For LIST, HASH, FLAG_HASH and DROP the count is that of the
# records to come, and the target is the value; the other modes use both as they need.
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
ITEM_SIZES: Final = {SX_ARRAY: 1, SX_HASH: 5, SX_FLAG_HASH: 3}
"""The fewest bytes that one item of a container can have."""

REFERENCES: Final = frozenset(
    {SX_REF, SX_OVERLOAD, SX_WEAKREF, SX_WEAKOVERLOAD, SX_TIED_ARRAY, SX_TIED_HASH, SX_TIED_SCALAR}
)
LEADS: Final = REFERENCES | {SX_BLESS, SX_IX_BLESS, SX_VSTRING, SX_LVSTRING}
"""The records that only lead to the one with the value."""
TEXT_KINDS: Final = (SX_LSCALAR, SX_SCALAR, SX_UTF8STR, SX_LUTF8STR)
TIED_FRAMES: Final = {SX_TIED_KEY: (DROP, None, 2), SX_TIED_IDX: (TIED_INDEX, None, 1)}
LEFT_TO_MAIN_LOOP: Final = frozenset(
    {*TEXT_KINDS, SX_INTEGER, SX_DOUBLE, SX_BYTE, SX_NETINT, *CONSTANTS, *TIED_FRAMES}
)
CONTAINER_MODES: Final = (LIST, HASH, FLAG_HASH)

HOOK_EXTRAS: Final = (4, 5, 6)

PENDING: Final = object()
"""Stands in the tag list for a reference that has not led to its value yet."""
MORE: Final = object()
"""Says that the record goes on: its frame is on the stack, the next record belongs to it."""

LARGE: Final = 2
HAS_TAIL: Final = 1
NO_CLASS: Final = -1
CLASS_OF_HOOK: Final = -2
"""Stands for the class of a hook record, which is known at its end only."""
SMALL_KEY: Final = 256
SHORT_CLASSES: Final = 128
"""So many class numbers fit in one byte."""

_be_u32 = struct.Struct(">I").unpack_from
_be_i32 = struct.Struct(">i").unpack_from


class Reader:
    """Reads one image; use once.

    :param data: the whole image.
    :param header: what its header says; the major version is 2.
    :param codec: how strings without Perl's UTF-8 flag are decoded; None: they stay bytes.
    :param blessed: called with class name and value of each object, returns what stands for it.
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
        self.classes: list[bytes] = []
        self.stack: list[tuple[int, Any, int]] = []
        self.hook_class = NO_CLASS
        self.repairs = Repairs()
        self.in_callback = False

    def read(self) -> Any:
        """Read the root record and all that it contains.

        :raises StorableError: the image is broken or has no value.
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

    # Reading past the end of a string is not checked where it happens: the slice is only shorter,
    # and then the next byte raises IndexError, or read() finds the position behind the end.
    def read_records(self) -> Any:  # noqa: C901
        """Read records and hand each to the frame that waits for it, until the root is whole.

        It is one long function because calls are what costs here: split up, it takes twice as long.
        """
        data, pos, size = self.data, self.pos, len(self.data)
        tags, stack, codec = self.tags, self.stack, self.codec
        read_u32, read_integer, read_double = self.read_u32, self.read_integer, self.read_double
        integer_end, double_end = 1 + self.header.iv_size, 1 + self.header.nv_size
        classes, skips_classes = self.classes, self.blessed is None
        low_byte = 0 if self.header.order == "<" else 3
        keys: dict[bytes, str | bytes] = {}
        flagged_keys: dict[bytes, str | bytes] = {}
        value: Any
        target: Any
        mode, target, count = ROOT, None, 1
        while True:
            kind = data[pos]
            if kind == SX_SCALAR:
                start = pos + 2
                pos = start + data[pos + 1]
                value = data[start:pos]
                if codec is not None:
                    try:
                        value = value.decode(codec)
                    except UnicodeError:
                        value = data[start:pos]
                tags.append(value)
            elif kind == SX_BYTE:
                value = data[pos + 1] - 128
                pos += 2
                tags.append(value)
            elif kind == SX_NETINT:
                (value,) = _be_i32(data, pos + 1)
                pos += 5
                tags.append(value)
            elif kind == SX_UTF8STR:
                start = pos + 2
                pos = start + data[pos + 1]
                try:
                    value = data[start:pos].decode()
                except UnicodeDecodeError:
                    value = data[start:pos]
                tags.append(value)
            else:
                is_reference = False
                if kind == SX_REF:
                    # Look through the reference, and the class if nobody asks for it.
                    inner = pos + 1
                    is_object = skips_classes and data[inner] == SX_IX_BLESS
                    if is_object and data[pos + 2] < len(classes) <= SHORT_CLASSES:
                        inner = pos + 3
                    if data[inner] in MODES:
                        is_reference = True
                        pos = inner
                        kind = data[pos]
                if kind in MODES:
                    value = [] if kind == SX_ARRAY else {}
                    tags.append(value)
                    if is_reference:
                        tags.append(value)
                    if kind == SX_FLAG_HASH:
                        pos += 1
                    (items,) = read_u32(data, pos + 1)
                    pos += 5
                    if items:
                        if items * ITEM_SIZES[kind] > size - pos:
                            raise StorableError(f"{items} items are more than fit", pos - 4)
                        stack.append((mode, target, count))
                        mode, target, count = MODES[kind], value, items
                        continue
                elif kind == SX_REF and data[pos + 1] == SX_OBJECT and skips_classes:
                    (tag,) = _be_u32(data, pos + 2)
                    if tag >= len(tags):
                        raise StorableError(f"object {tag} of {len(tags)}", pos + 2)
                    value = tags[tag]
                    tags.append(value)
                    pos += 6
                elif kind in CONSTANTS:
                    value = CONSTANTS[kind]
                    pos += 1
                    tags.append(value)
                elif kind == SX_INTEGER:
                    (value,) = read_integer(data, pos + 1)
                    pos += integer_end
                    tags.append(value)
                elif kind == SX_DOUBLE:
                    (value,) = read_double(data, pos + 1)
                    pos += double_end
                    tags.append(value)
                elif kind == SX_LSCALAR or kind == SX_LUTF8STR:  # noqa: SIM109
                    (length,) = read_u32(data, pos + 1)
                    start = pos + 5
                    pos = start + length
                    value = decode_text(data[start:pos], codec if kind == SX_LSCALAR else "utf-8")
                    tags.append(value)
                elif kind == SX_TIED_KEY or kind == SX_TIED_IDX:  # noqa: SIM109
                    tags.append(None)
                    pos += 1
                    stack.append((mode, target, count))
                    mode, target, count = TIED_FRAMES[kind]
                    continue
                elif kind in REFERENCES and data[pos + 1] in LEFT_TO_MAIN_LOOP:
                    pos += 1
                    if data[pos] not in TIED_FRAMES:
                        stack.append((mode, target, count))
                        mode, target, count = FILL, None, len(tags)
                    tags.append(None)
                    continue
                else:
                    self.pos = pos
                    stack.append((mode, target, count))
                    value = self._read_rare()
                    pos = self.pos
                    mode, target, count = stack.pop()
                    if value is MORE:
                        continue

            while True:
                if mode == LIST:
                    target.append(value)
                elif mode == HASH:
                    # Most keys came before: the bytes of length and key together find them again.
                    start = pos
                    pos += 4 + data[pos + low_byte]
                    key = keys.get(data[start:pos])
                    if key is None:
                        key = self.read_key(start, 0)
                        pos = self.pos
                        if pos - start < SMALL_KEY:
                            keys[data[start:pos]] = key
                    target[key] = value
                elif mode == FLAG_HASH:
                    flags = data[pos]
                    if flags & KEY_RECORD:
                        pos += 1
                        stack.append((mode, target, count))
                        mode, target, count = KEY, value, 1
                        break
                    start = pos
                    pos += 5 + data[pos + 1 + low_byte]
                    key = flagged_keys.get(data[start:pos])
                    if key is not None:
                        target[key] = value
                    else:
                        key = self.read_key(start + 1, flags)
                        pos = self.pos
                        if not flags & KEY_PLACEHOLDER:
                            target[key] = value
                            if pos - start < SMALL_KEY:
                                flagged_keys[data[start:pos]] = key
                elif mode == KEY:
                    key, value = make_key(value, pos), target
                    mode, target, count = stack.pop()
                    target[key] = value
                elif mode == FILL:
                    tags[count] = value
                    mode, target, count = stack.pop()
                    continue
                elif mode == ROOT:
                    self.pos = pos
                    return value
                elif mode != DROP:
                    self.pos = pos
                    value = self._resume(mode, target, count, value)
                    pos = self.pos
                    mode, target, count = stack.pop()
                    if value is MORE:
                        break
                    continue
                count -= 1
                if count:
                    break
                value = target
                mode, target, count = stack.pop()

    def read_key(self, start: int, flags: int) -> str | bytes:
        """Read the length and the bytes of a hash key."""
        (length,) = self.read_u32(self.data, start)
        self.pos = start + 4 + length
        raw = self.data[start + 4 : self.pos]
        if flags & KEY_UTF8:
            return decode_text(raw, "utf-8")
        if flags & KEY_WASUTF8:
            return raw.decode("latin-1")
        return decode_text(raw, self.codec)

    # -- records that are rare -------------------------------------------------------------------

    def _read_rare(self) -> Any:
        """Read a record that the main loop leaves over, with all references that lead to it.

        References stand for what they lead to, so their tags get the value of the record at the
        end: a list or dict as soon as it is there, since its own items may point back at it.
        """
        kind = self.data[self.pos]
        if kind not in LEADS:
            return self._open_blessed_hook() if self._has_own_class(kind) else self._open(kind)
        tags, first = self.tags, len(self.tags)
        wraps = self._follow()
        last = len(tags)
        kind = self.data[self.pos]
        if wraps or kind in LEFT_TO_MAIN_LOOP:
            self.stack.append((LEAD, (last, *wraps), first))
        if kind in LEFT_TO_MAIN_LOOP:
            if kind in TIED_FRAMES:
                tags[first:last] = [None] * (last - first)
            return MORE
        value = self._open(kind)
        if last > first:
            known = self.stack[-1][1] if value is MORE else value
            tags[first:last] = [known] * (last - first)
        if wraps and value is not MORE:
            self.stack.pop()
            value = self._finish_lead((last, *wraps), first, value)
        return value

    def _has_own_class(self, kind: int) -> bool:
        """Tell if a record is a hook, which names its class itself, and somebody asks for it."""
        if self.blessed is None:
            return False
        return kind == SX_HOOK or (kind == SX_LOBJECT and self.data[self.pos + 1] == SX_HOOK)

    def _open_blessed_hook(self) -> Any:
        tag = len(self.tags)
        self.stack.append((HOOK_DONE, None, tag))
        value = self._open(self.data[self.pos])
        if value is not MORE:
            self.stack.pop()
            value = self.tags[tag] = self._wrap(CLASS_OF_HOOK, value)
        return value

    def _open(self, kind: int) -> Any:
        opener = OPENERS.get(kind)
        if opener is None:
            raise StorableError(f"unknown record type {kind}", self.pos)
        self.pos += 1
        return opener(self)

    def _follow(self) -> list[int]:
        """Pass over references, ties, blessings and version strings; give the references tags.

        :returns: tag, class number, tag, class number... of the objects on the way and of the one
            at its end, for the ``blessed`` callback; empty if there is none.
        """
        data, tags, pos = self.data, self.tags, self.pos
        wraps: list[int] = []
        class_number, is_wanted = NO_CLASS, self.blessed is not None
        while (kind := data[pos]) in LEADS:
            pos += 1
            if kind in REFERENCES:
                if class_number != NO_CLASS:
                    wraps += (len(tags), class_number)
                    class_number = NO_CLASS
                tags.append(PENDING)
            elif kind == SX_VSTRING:
                pos += 1 + data[pos]
            elif kind == SX_LVSTRING:
                pos += 4 + self.read_u32(data, pos)[0]
            else:
                self.pos = pos
                number = self._read_class(kind)
                class_number = number if is_wanted else NO_CLASS
                pos = self.pos
        self.pos = pos
        if self._has_own_class(kind):
            class_number = CLASS_OF_HOOK
        if class_number != NO_CLASS and not self._is_old_object(kind):
            wraps += (len(tags), class_number)
        return wraps

    def _is_old_object(self, kind: int) -> bool:
        """Tell if a record names an object that is there already, and so keeps its class."""
        inner = self.data[self.pos + 1] if kind == SX_LOBJECT else kind
        return inner == SX_OBJECT

    def _read_class(self, kind: int) -> int:
        """Read what follows SX_BLESS or SX_IX_BLESS and return the number of the class."""
        short = self.data[self.pos]
        self.pos += 1
        number = self.take_u32() if short & 0x80 else short
        if kind == SX_BLESS:
            self.classes.append(self.take(number))
            return len(self.classes) - 1
        return self._check_class(number)

    def _check_class(self, number: int) -> int:
        if number >= len(self.classes):
            raise StorableError(f"class number {number} of {len(self.classes)}", self.pos)
        return number

    def take_u32(self) -> int:
        (number,) = self.read_u32(self.data, self.pos)
        self.pos += 4
        return int(number)

    def _take_u64(self) -> int:
        (number,) = self.read_u64(self.data, self.pos)
        self.pos += 8
        return int(number)

    def take_size(self, is_large: int) -> int:
        """Read a length or number of four bytes, or else of one."""
        if is_large:
            return self.take_u32()
        self.pos += 1
        return self.data[self.pos - 1]

    def take(self, length: int) -> bytes:
        start = self.pos
        if length > len(self.data) - start:
            raise StorableError(f"a length of {length} is more than is left", start)
        self.pos = start + length
        return self.data[start : self.pos]

    def _read_object(self) -> Any:
        (tag,) = _be_u32(self.data, self.pos)
        self.pos += 4
        return self.find(tag, self._find_parent())

    def find(self, tag: int, parent: Any) -> Any:
        """Return the object of a tag, to be put into the container ``parent``."""
        if tag >= len(self.tags):
            raise StorableError(f"object {tag} of {len(self.tags)}", self.pos)
        value = self.tags[tag]
        if value is PENDING:
            raise StorableError("a reference leads to nothing but itself", self.pos)
        if self.blessed is not None and parent is not None:
            self.repairs.note(parent, value, tag)
        return value

    def _find_parent(self) -> Any:
        """Return the container that the record belongs to; None if it is in another record."""
        depth = -2 if self.stack[-1][0] == LEAD else -1
        mode, target, _ = self.stack[depth]
        return target if mode in CONTAINER_MODES else None

    def _open_array(self) -> Any:
        return self._open_container(SX_ARRAY, self.take_u32())

    def _open_hash(self) -> Any:
        return self._open_container(SX_HASH, self.take_u32())

    def _open_flag_hash(self) -> Any:
        self.pos += 1
        return self._open_container(SX_FLAG_HASH, self.take_u32())

    def _open_container(self, kind: int, items: int) -> Any:
        value: Any = [] if kind == SX_ARRAY else {}
        self.tags.append(value)
        self.check_count(kind, items)
        if not items:
            return value
        self.stack.append((MODES[kind], value, items))
        return MORE

    def check_count(self, kind: int, items: int) -> None:
        """Refuse a count that the rest of the image cannot hold."""
        if items * ITEM_SIZES[kind] > len(self.data) - self.pos:
            raise StorableError(f"{items} items are more than fit", self.pos)

    def _read_code(self) -> str | bytes:
        """Read source text; perl before 5.10 wrote its whole buffer, so the text ends at a NUL."""
        kind = self.data[self.pos]
        if kind not in TEXT_KINDS:
            raise StorableError(f"code is a record of type {kind}", self.pos)
        self.pos += 1
        raw = self.take(self.take_size(kind in (SX_LSCALAR, SX_LUTF8STR)))
        codec = self.codec if kind in (SX_SCALAR, SX_LSCALAR) else "utf-8"
        value = decode_text(raw.partition(b"\0")[0], codec)
        self.tags += (value, decode_text(raw, codec))
        return value

    def _read_regexp(self) -> str | bytes:
        """Read a pattern and write it as perl prints it."""
        self.pos += 1
        pattern = self.take(self.take_size(self.data[self.pos - 1] & 1))
        modifiers = self.take(self.take_size(0))
        value = decode_text(b"(?^%b:%b)" % (modifiers, pattern), self.codec)
        self.tags.append(value)
        return value

    def _open_large(self) -> Any:
        """Read a record whose lengths and counts have eight bytes."""
        kind = self.data[self.pos]
        self.pos += 1
        if kind == SX_OBJECT:
            return self.find(self._take_u64(), self._find_parent())
        if kind in (SX_LSCALAR, SX_LUTF8STR):
            raw = self.take(self._take_u64())
            self.tags.append(decode_text(raw, self.codec if kind == SX_LSCALAR else "utf-8"))
            return self.tags[-1]
        if kind in MODES:
            self.pos += kind == SX_FLAG_HASH
            return self._open_container(kind, self._take_u64())
        if kind == SX_HOOK:
            return self._open_hook(LARGE)
        raise StorableError(f"a large object of type {kind}", self.pos - 1)

    def _open_hook(self, form: int = 0) -> Any:
        """Begin the object of a class with a freeze method: a list of what the method returned."""
        flags = self.data[self.pos]
        self.pos += 1
        has_tail = flags & HOOK_KIND == HOOK_EXTRA
        if has_tail:
            if self.data[self.pos] not in HOOK_EXTRAS:
                raise StorableError(f"a hook of kind {self.data[self.pos]}", self.pos)
            self.pos += 1
        value: list[Any] = []
        if self.tags and self.tags[-1] is PENDING:
            self._settle(value)
        self.tags.append(value)
        return self._continue_hook(value, flags, form | has_tail)

    def _settle(self, value: Any) -> None:
        """Give the references that lead to a hook their value: its own list may name them."""
        tags, tag = self.tags, len(self.tags) - 1
        while tag >= 0 and tags[tag] is PENDING:
            tags[tag] = value
            tag -= 1

    def _continue_hook(self, value: list[Any], flags: int, form: int) -> Any:
        """Go on after a flag byte: with a record that only gets a tag, or to the object itself."""
        if flags & HOOK_RECURSE:
            self.stack.append((HOOK, value, form))
            return MORE
        number = self._read_hook_class(flags)
        length = self._take_u64() if form & LARGE else self.take_size(flags & HOOK_LARGE_STRING)
        value.append(self.take(length))
        if flags & HOOK_HAS_LIST:
            for tag in self._read_hook_tags(flags):
                value.append(self.find(tag, value))
        if form & HAS_TAIL:
            self.stack.append((HOOK_TAIL, value, number))
            return MORE
        self.hook_class = number
        return value

    def _read_hook_class(self, flags: int) -> int:
        number = self.take_size(flags & HOOK_LARGE_CLASS)
        if flags & HOOK_INDEXED_CLASS:
            return self._check_class(number)
        self.classes.append(self.take(number))
        return len(self.classes) - 1

    def _read_hook_tags(self, flags: int) -> tuple[int, ...]:
        number = self.take_size(flags & HOOK_LARGE_LIST)
        order, code, size = ">", "I", 4
        if number > 0x7FFFFFFF:
            number, order, code, size = 2**32 - number, self.header.order, "Q", 8
        return struct.unpack(f"{order}{number}{code}", self.take(number * size))

    def _resume(self, mode: int, target: Any, count: int, value: Any) -> Any:
        """Go on with a record after one that it contains."""
        if mode == LEAD:
            return self._finish_lead(target, count, value)
        if mode == HOOK:
            self.pos += 1
            return self._continue_hook(target, self.data[self.pos - 1], count)
        if mode == HOOK_TAIL:
            self.hook_class = count
            return target
        if mode == HOOK_DONE:
            self.tags[count] = self._wrap(CLASS_OF_HOOK, value)
            return self.tags[count]
        self.take_u32()  # TIED_INDEX
        return None

    def _finish_lead(self, lead: tuple[int, ...], first: int, value: Any) -> Any:
        """Give the references from tag ``first`` up to the object ``lead[0]`` their value."""
        last, *wraps = lead
        for tag in range(last, first - 1, -1):
            if wraps and wraps[-2] == tag:
                value = self._wrap(wraps.pop(), value)
                wraps.pop()
            elif tag == last:
                continue
            self.tags[tag] = value
        return value

    def _wrap(self, number: int, value: Any) -> Any:
        """Let the callback replace an object of the class of this number."""
        name = self.classes[self.hook_class if number == CLASS_OF_HOOK else number]
        return self.call_blessed(name, value)

    def call_blessed(self, name: bytes, value: Any) -> Any:
        if self.blessed is None:
            return value
        self.in_callback = True
        value = self.blessed(decode_class(name), value)
        self.in_callback = False
        return value


OPENERS: Final[dict[int, Callable[[Reader], Any]]] = {
    SX_OBJECT: Reader._read_object,
    SX_ARRAY: Reader._open_array,
    SX_HASH: Reader._open_hash,
    SX_FLAG_HASH: Reader._open_flag_hash,
    SX_HOOK: Reader._open_hook,
    SX_CODE: Reader._read_code,
    SX_REGEXP: Reader._read_regexp,
    SX_LOBJECT: Reader._open_large,
}

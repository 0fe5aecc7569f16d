"""Reads Storable images of major version 2, which perl has written since 2000.

The main loop knows the records of which nearly all data consists. It keeps everything that it uses
in local variables, because that decides its speed. All other records go through
:mod:`pyramid_kvs.storable.rare`.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from .format import (
    CONSTANTS,
    KEY_PLACEHOLDER,
    KEY_RECORD,
    SX_ARRAY,
    SX_BYTE,
    SX_DOUBLE,
    SX_FLAG_HASH,
    SX_INTEGER,
    SX_IX_BLESS,
    SX_LSCALAR,
    SX_LUTF8STR,
    SX_NETINT,
    SX_OBJECT,
    SX_REF,
    SX_SCALAR,
    SX_TIED_IDX,
    SX_TIED_KEY,
    SX_UTF8STR,
    StorableError,
    decode_text,
)
from .rare import LEFT_TO_MAIN_LOOP, REFERENCES, TIED_FRAMES, read_rare, resume
from .state import (
    DROP,
    FILL,
    FLAG_HASH,
    HASH,
    ITEM_SIZES,
    KEY,
    LIST,
    MODES,
    MORE,
    ROOT,
    SMALL_KEY,
    State,
)

SHORT_CLASSES: Final = 128
"""The number of classes whose numbers fit in one byte."""

_be_u32 = struct.Struct(">I").unpack_from
_be_i32 = struct.Struct(">i").unpack_from


class Reader(State):
    """Reads one image of major version 2; use it once."""

    def read_records(self) -> Any:  # noqa: C901
        """Read records and give each to the frame that waits for it, until the root is complete.

        It is one long function because function calls are expensive here: split up, it takes twice
        as long.
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
                    # Skip the reference, and the class if there is no callback.
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
                            raise StorableError(f"too few bytes for {items} items", pos - 4)
                        stack.append((mode, target, count))
                        mode, target, count = MODES[kind], value, items
                        continue
                elif kind == SX_REF and data[pos + 1] == SX_OBJECT and skips_classes:
                    (tag,) = _be_u32(data, pos + 2)
                    if tag >= len(tags):
                        raise StorableError(f"unknown object {tag}, there are {len(tags)}", pos + 2)
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
                    value = read_rare(self)
                    pos = self.pos
                    mode, target, count = stack.pop()
                    if value is MORE:
                        continue

            while True:
                if mode == LIST:
                    target.append(value)
                elif mode == HASH:
                    # Most keys occurred before. Look them up by the bytes of length and key.
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
                    key, value = self.make_key(value, pos), target
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
                    value = resume(self, mode, target, count, value)
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

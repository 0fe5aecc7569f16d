"""Reads the records that the main loop does not know: references, blessings, and rare values.

A lead is a record that only leads to the one with the value: a reference, a tie, a blessing or a
version string.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

from .format import (
    CONSTANTS,
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
    StorableError,
    decode_text,
)
from .hooks import LARGE, continue_hook, open_hook
from .state import (
    CLASS_OF_HOOK,
    DROP,
    HOOK,
    HOOK_DONE,
    HOOK_TAIL,
    LEAD,
    MODES,
    MORE,
    NO_CLASS,
    PENDING,
    TIED_INDEX,
    State,
)

REFERENCES: Final = frozenset(
    {SX_REF, SX_OVERLOAD, SX_WEAKREF, SX_WEAKOVERLOAD, SX_TIED_ARRAY, SX_TIED_HASH, SX_TIED_SCALAR}
)
VERSION_STRINGS: Final = frozenset({SX_VSTRING, SX_LVSTRING})
LEADS: Final = REFERENCES | VERSION_STRINGS | {SX_BLESS, SX_IX_BLESS}
TEXT_KINDS: Final = (SX_LSCALAR, SX_SCALAR, SX_UTF8STR, SX_LUTF8STR)
TIED_FRAMES: Final = {SX_TIED_KEY: (DROP, None, 2), SX_TIED_IDX: (TIED_INDEX, None, 1)}
LEFT_TO_MAIN_LOOP: Final = frozenset(
    {*TEXT_KINDS, SX_INTEGER, SX_DOUBLE, SX_BYTE, SX_NETINT, *CONSTANTS, *TIED_FRAMES}
)

_be_u32 = struct.Struct(">I").unpack_from


def read_rare(state: State) -> Any:
    """Read a record, with all leads before it.

    References have the value of the record that they lead to. Their tags get a list or dict as
    soon as it exists, because its own items may refer back to it.
    """
    if state.data[state.pos] not in LEADS:
        return _read_value(state)
    tags, first = state.tags, len(state.tags)
    wraps = _follow_leads(state)
    last, kind = len(tags), state.data[state.pos]
    if wraps or kind in LEFT_TO_MAIN_LOOP:
        state.stack.append((LEAD, (last, *wraps), first))
    if kind in LEFT_TO_MAIN_LOOP:
        if kind in TIED_FRAMES:
            tags[first:last] = [None] * (last - first)
        return MORE
    value = _open(state, kind)
    known = state.stack[-1][1] if value is MORE else value
    tags[first:last] = [known] * (last - first)
    if wraps and value is not MORE:
        state.stack.pop()
        value = _finish_lead(state, (last, *wraps), first, value)
    return value


def resume(state: State, mode: int, target: Any, count: int, value: Any) -> Any:
    """Continue a record after a record that it contains; the arguments are its frame."""
    if mode == LEAD:
        return _finish_lead(state, target, count, value)
    if mode == HOOK:
        return continue_hook(state, target, count)
    if mode == HOOK_TAIL:
        state.hook_class = count
        return target
    if mode == HOOK_DONE:
        state.tags[count] = _wrap(state, CLASS_OF_HOOK, value)
        return state.tags[count]
    state.take_u32()  # TIED_INDEX
    return None


# -- leads


def _follow_leads(state: State) -> list[int]:
    """Skip all leads and give the references among them tags.

    :returns: for the ``blessed`` callback, the tags and class numbers of the objects on the way and
        of the one at its end: tag, class number, tag, class number... Empty without a callback.
    """
    tags = state.tags
    wraps: list[int] = []
    class_number = NO_CLASS
    while (kind := state.data[state.pos]) in LEADS:
        state.pos += 1
        if kind in REFERENCES:
            if class_number != NO_CLASS:
                wraps += (len(tags), class_number)
                class_number = NO_CLASS
            tags.append(PENDING)
        elif kind in VERSION_STRINGS:
            length = state.take_size(kind == SX_LVSTRING)
            state.pos += length
        else:
            class_number = _read_class(state, kind)
    if state.blessed is None:
        return []
    if _is_hook(state, kind):
        class_number = CLASS_OF_HOOK
    if class_number != NO_CLASS and not _is_known_object(state, kind):
        wraps += (len(tags), class_number)
    return wraps


def _read_class(state: State, kind: int) -> int:
    """Read the payload of SX_BLESS or SX_IX_BLESS and return the number of the class."""
    short = state.take_size(0)
    number = state.take_u32() if short & 0x80 else short
    return state.add_class(state.take(number)) if kind == SX_BLESS else state.check_class(number)


def _is_known_object(state: State, kind: int) -> bool:
    """Tell if a record names an object that was read before, which keeps its class."""
    inner = state.data[state.pos + 1] if kind == SX_LOBJECT else kind
    return inner == SX_OBJECT


def _is_hook(state: State, kind: int) -> bool:
    """Tell if a record is a hook, which names its own class."""
    return kind == SX_HOOK or (kind == SX_LOBJECT and state.data[state.pos + 1] == SX_HOOK)


def _finish_lead(state: State, lead: tuple[int, ...], first: int, value: Any) -> Any:
    """Give the references from tag ``first`` up to the object ``lead[0]`` their value."""
    last, *wraps = lead
    for tag in range(last, first - 1, -1):
        if wraps and wraps[-2] == tag:
            value = _wrap(state, wraps.pop(), value)
            wraps.pop()
        elif tag == last:
            continue
        state.tags[tag] = value
    return value


def _wrap(state: State, number: int, value: Any) -> Any:
    """Let the callback replace an object whose class has this number."""
    name = state.classes[state.hook_class if number == CLASS_OF_HOOK else number]
    return state.call_blessed(name, value)


# -- values


def _read_value(state: State) -> Any:
    """Read a record that is not a lead."""
    kind, tag = state.data[state.pos], len(state.tags)
    if state.blessed is None or not _is_hook(state, kind):
        return _open(state, kind)
    state.stack.append((HOOK_DONE, None, tag))
    value = _open(state, kind)
    if value is not MORE:
        state.stack.pop()
        value = state.tags[tag] = _wrap(state, CLASS_OF_HOOK, value)
    return value


def _open(state: State, kind: int) -> Any:
    opener = OPENERS.get(kind)
    if opener is None:
        raise StorableError(f"unknown record type {kind}", state.pos)
    state.pos += 1
    return opener(state)


def _read_object(state: State) -> Any:
    (tag,) = _be_u32(state.data, state.pos)
    state.pos += 4
    return state.find(tag, state.find_parent())


def _open_array(state: State) -> Any:
    return state.open_container(SX_ARRAY, state.take_u32())


def _open_hash(state: State) -> Any:
    return state.open_container(SX_HASH, state.take_u32())


def _open_flag_hash(state: State) -> Any:
    state.pos += 1
    return state.open_container(SX_FLAG_HASH, state.take_u32())


def _read_code(state: State) -> str | bytes:
    """Read source code. Before 5.10, perl wrote its whole buffer: the code ends at a NUL byte."""
    kind = state.take_size(0)
    if kind not in TEXT_KINDS:
        raise StorableError(f"code is a record of type {kind}", state.pos - 1)
    raw = state.take(state.take_size(kind in (SX_LSCALAR, SX_LUTF8STR)))
    codec = state.codec if kind in (SX_SCALAR, SX_LSCALAR) else "utf-8"
    value = decode_text(raw.partition(b"\0")[0], codec)
    state.tags += (value, decode_text(raw, codec))
    return value


def _read_regexp(state: State) -> str | bytes:
    """Read a pattern, and write it as perl prints it."""
    flags = state.take_size(0)
    pattern = state.take(state.take_size(flags & 1))
    modifiers = state.take(state.take_size(0))
    value = decode_text(b"(?^%b:%b)" % (modifiers, pattern), state.codec)
    state.tags.append(value)
    return value


def _open_large(state: State) -> Any:
    """Read a record whose lengths and counts have eight bytes."""
    kind = state.take_size(0)
    if kind == SX_OBJECT:
        return state.find(state.take_u64(), state.find_parent())
    if kind in (SX_LSCALAR, SX_LUTF8STR):
        raw = state.take(state.take_u64())
        state.tags.append(decode_text(raw, state.codec if kind == SX_LSCALAR else "utf-8"))
        return state.tags[-1]
    if kind in MODES:
        state.pos += kind == SX_FLAG_HASH
        return state.open_container(kind, state.take_u64())
    if kind == SX_HOOK:
        return open_hook(state, LARGE)
    raise StorableError(f"unknown large record type {kind}", state.pos - 1)


OPENERS: Final[dict[int, Callable[[State], Any]]] = {
    SX_OBJECT: _read_object,
    SX_ARRAY: _open_array,
    SX_HASH: _open_hash,
    SX_FLAG_HASH: _open_flag_hash,
    SX_HOOK: open_hook,
    SX_CODE: _read_code,
    SX_REGEXP: _read_regexp,
    SX_LOBJECT: _open_large,
}

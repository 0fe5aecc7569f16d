"""Reads hook records: the objects of classes that have a ``STORABLE_freeze`` method.

The value is a list of what that method returned: the frozen string and the objects it named.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from .format import (
    HOOK_EXTRA,
    HOOK_HAS_LIST,
    HOOK_INDEXED_CLASS,
    HOOK_KIND,
    HOOK_LARGE_CLASS,
    HOOK_LARGE_LIST,
    HOOK_LARGE_STRING,
    HOOK_RECURSE,
    StorableError,
)
from .state import HOOK, HOOK_TAIL, MORE, PENDING, State

# The forms of a hook record, which its frame keeps.
HAS_TAIL: Final = 1
LARGE: Final = 2

TIED_KINDS: Final = (4, 5, 6)


def open_hook(state: State, form: int = 0) -> Any:
    """Begin a hook record after its type byte."""
    flags = state.take_size(0)
    has_tail = flags & HOOK_KIND == HOOK_EXTRA
    if has_tail:
        kind = state.take_size(0)
        if kind not in TIED_KINDS:
            raise StorableError(f"unknown kind of hook: {kind}", state.pos - 1)
    value: list[Any] = []
    _settle_references(state.tags, value)
    state.tags.append(value)
    return _continue(state, value, flags, form | has_tail)


def continue_hook(state: State, value: list[Any], form: int) -> Any:
    """Continue after a sub-object, which only gets a tag."""
    return _continue(state, value, state.take_size(0), form)


def _settle_references(tags: list[Any], value: list[Any]) -> None:
    """Give the references that lead to a hook their value, because its list may name them."""
    tag = len(tags) - 1
    while tag >= 0 and tags[tag] is PENDING:
        tags[tag] = value
        tag -= 1


def _continue(state: State, value: list[Any], flags: int, form: int) -> Any:
    """Continue after a flag byte: with a sub-object, or with the object itself."""
    if flags & HOOK_RECURSE:
        state.stack.append((HOOK, value, form))
        return MORE
    number = _read_class(state, flags)
    length = state.take_u64() if form & LARGE else state.take_size(flags & HOOK_LARGE_STRING)
    value.append(state.take(length))
    if flags & HOOK_HAS_LIST:
        for tag in _read_tags(state, flags):
            value.append(state.find(tag, value))
    if form & HAS_TAIL:
        state.stack.append((HOOK_TAIL, value, number))
        return MORE
    state.hook_class = number
    return value


def _read_class(state: State, flags: int) -> int:
    number = state.take_size(flags & HOOK_LARGE_CLASS)
    if flags & HOOK_INDEXED_CLASS:
        return state.check_class(number)
    return state.add_class(state.take(number))


def _read_tags(state: State, flags: int) -> tuple[int, ...]:
    number = state.take_size(flags & HOOK_LARGE_LIST)
    order, code, size = ">", "I", 4
    if number > 0x7FFFFFFF:
        number, order, code, size = 2**32 - number, state.header.order, "Q", 8
    return struct.unpack(f"{order}{number}{code}", state.take(number * size))

"""Skips the records that Python values cannot represent, and notes what they are.

Each function gets the walk, whose position is after the type byte, and the record type.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from ..format import (
    HOOK_EXTRA,
    HOOK_HAS_LIST,
    HOOK_INDEXED_CLASS,
    HOOK_KIND,
    HOOK_LARGE_CLASS,
    HOOK_LARGE_LIST,
    HOOK_LARGE_STRING,
    HOOK_RECURSE,
    SX_ARRAY,
    SX_BLESS,
    SX_CODE,
    SX_FLAG_HASH,
    SX_HASH,
    SX_HOOK,
    SX_IX_BLESS,
    SX_LVSTRING,
    SX_OBJECT,
    SX_OVERLOAD,
    SX_REF,
    SX_REGEXP,
    SX_TIED_ARRAY,
    SX_TIED_HASH,
    SX_TIED_IDX,
    SX_TIED_KEY,
    SX_TIED_SCALAR,
    SX_VSTRING,
    SX_WEAKOVERLOAD,
    SX_WEAKREF,
    StorableError,
)
from .walk import Walk

ODD_REFERENCES: Final = {
    SX_REF: "a reference to a reference",
    SX_WEAKREF: "a weak reference",
    SX_OVERLOAD: "an overloaded object",
    SX_WEAKOVERLOAD: "a weak reference",
}
TOP_BIT: Final = 0x80


def skip_odd_record(walk: Walk, kind: int) -> None:
    """Skip a record after its type byte.

    :raises StorableError: the type is unknown.
    """
    skip_record = _RECORDS.get(kind)
    if skip_record is None:
        raise StorableError(f"records of type {kind} cannot be copied", walk.pos - 1)
    skip_record(walk, kind)


def skip_class(walk: Walk, kind: int) -> None:
    """Skip the class of a blessing."""
    start = walk.pos - 1
    first = walk.byte()
    value = walk.number() if first & TOP_BIT else first
    walk.use_class(start, kind == SX_IX_BLESS, value, None)


def _bare_container(walk: Walk, kind: int) -> None:
    """Skip an array or hash without a reference, for example inside a blessing."""
    walk.note("an array or hash without a reference to it")
    walk.container(kind)


def _shared(walk: Walk, kind: int) -> None:
    walk.note("a value that two places share")
    walk.object_tag()


def _reference(walk: Walk, kind: int) -> None:
    _tagged(walk, ODD_REFERENCES[kind])


def _tied(walk: Walk, kind: int) -> None:
    _tagged(walk, "tied data")


def _code(walk: Walk, kind: int) -> None:
    _tagged(walk, "code")


def _tagged(walk: Walk, obstacle: str) -> None:
    """Skip a record that has a tag and contains one record."""
    walk.note(obstacle)
    walk.tag += 1
    walk.push(walk.record)


def _tied_key(walk: Walk, kind: int) -> None:
    _tied(walk, kind)
    walk.push(walk.record)


def _tied_index(walk: Walk, kind: int) -> None:
    walk.push(partial(walk.skip, 4))
    _tied(walk, kind)


def _version(walk: Walk, kind: int) -> None:
    walk.note("a version string")
    walk.skip(walk.length(kind == SX_LVSTRING))
    walk.push(walk.record)


def _regexp(walk: Walk, kind: int) -> None:
    walk.note("a pattern")
    walk.tag += 1
    flags = walk.byte()
    walk.skip(walk.length(flags & 1))
    walk.skip(walk.byte())


def _blessing(walk: Walk, kind: int) -> None:
    skip_class(walk, kind)
    walk.push(walk.record)


def _hook(walk: Walk, kind: int) -> None:
    walk.note("an object of a class with Storable hooks")
    flags_at, flags = walk.pos, walk.byte()
    walk.tag += 1
    if flags & HOOK_KIND == HOOK_EXTRA:
        walk.skip(1)
        walk.push(walk.record)
    _hook_parts(walk, flags_at, flags)


def _hook_parts(walk: Walk, flags_at: int, flags: int) -> None:
    if flags & HOOK_RECURSE:
        walk.push(partial(_next_hook_parts, walk))
        walk.push(walk.record)
    else:
        _hook_end(walk, flags_at, flags)


def _next_hook_parts(walk: Walk) -> None:
    flags_at = walk.pos
    _hook_parts(walk, flags_at, walk.byte())


def _hook_end(walk: Walk, flags_at: int, flags: int) -> None:
    start = walk.pos
    value = walk.length(flags & HOOK_LARGE_CLASS)
    walk.use_class(start, bool(flags & HOOK_INDEXED_CLASS), value, flags_at)
    walk.skip(walk.length(flags & HOOK_LARGE_STRING))
    if flags & HOOK_HAS_LIST:
        length = walk.length(flags & HOOK_LARGE_LIST)
        if length > len(walk.data):
            raise StorableError("a list of objects is too long to be copied", walk.pos)
        walk.push(partial(_object_tag, walk), length)


def _object_tag(walk: Walk) -> None:
    walk.object_tag()


_RECORDS: Final[dict[int, Callable[[Walk, int], None]]] = {
    **dict.fromkeys((SX_ARRAY, SX_HASH, SX_FLAG_HASH), _bare_container),
    **dict.fromkeys(ODD_REFERENCES, _reference),
    **dict.fromkeys((SX_TIED_ARRAY, SX_TIED_HASH, SX_TIED_SCALAR), _tied),
    **dict.fromkeys((SX_BLESS, SX_IX_BLESS), _blessing),
    **dict.fromkeys((SX_VSTRING, SX_LVSTRING), _version),
    SX_OBJECT: _shared,
    SX_HOOK: _hook,
    SX_TIED_KEY: _tied_key,
    SX_TIED_IDX: _tied_index,
    SX_CODE: _code,
    SX_REGEXP: _regexp,
}

"""What all parts of this package share: record types, flags, the error, strings and keys.

The names of record types and flags are those of Perl's documentation of the format.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable
from typing import Any, Final

from ..exceptions import CodecError

SX_OBJECT: Final = 0
SX_LSCALAR: Final = 1
SX_ARRAY: Final = 2
SX_HASH: Final = 3
SX_REF: Final = 4
SX_UNDEF: Final = 5
SX_INTEGER: Final = 6
SX_DOUBLE: Final = 7
SX_BYTE: Final = 8
SX_NETINT: Final = 9
SX_SCALAR: Final = 10
SX_TIED_ARRAY: Final = 11
SX_TIED_HASH: Final = 12
SX_TIED_SCALAR: Final = 13
SX_SV_UNDEF: Final = 14
SX_SV_YES: Final = 15
SX_SV_NO: Final = 16
SX_BLESS: Final = 17
SX_IX_BLESS: Final = 18
SX_HOOK: Final = 19
SX_OVERLOAD: Final = 20
SX_TIED_KEY: Final = 21
SX_TIED_IDX: Final = 22
SX_UTF8STR: Final = 23
SX_LUTF8STR: Final = 24
SX_FLAG_HASH: Final = 25
SX_CODE: Final = 26
SX_WEAKREF: Final = 27
SX_WEAKOVERLOAD: Final = 28
SX_VSTRING: Final = 29
SX_LVSTRING: Final = 30
SX_SVUNDEF_ELEM: Final = 31
SX_REGEXP: Final = 32
SX_LOBJECT: Final = 33
SX_BOOLEAN_TRUE: Final = 34
SX_BOOLEAN_FALSE: Final = 35

CONSTANTS: Final[dict[int, bool | None]] = {
    SX_UNDEF: None,
    SX_SV_UNDEF: None,
    SX_SVUNDEF_ELEM: None,
    SX_SV_YES: True,
    SX_SV_NO: False,
    SX_BOOLEAN_TRUE: True,
    SX_BOOLEAN_FALSE: False,
}
"""The records without a payload."""

KEY_UTF8: Final = 0x01
KEY_WASUTF8: Final = 0x02
KEY_LOCKED: Final = 0x04
KEY_RECORD: Final = 0x08
KEY_PLACEHOLDER: Final = 0x10

HOOK_KIND: Final = 0x03
HOOK_EXTRA: Final = 0x03
HOOK_LARGE_CLASS: Final = 0x04
HOOK_LARGE_STRING: Final = 0x08
HOOK_LARGE_LIST: Final = 0x10
HOOK_INDEXED_CLASS: Final = 0x20
HOOK_RECURSE: Final = 0x40
HOOK_HAS_LIST: Final = 0x80

FILE_MAGIC: Final = b"pst0"

Blessed = Callable[[str, Any], Any]
"""A function that is called with the class name and the value of an object."""


class StorableError(CodecError):
    """The bytes are not a Storable image that can be read, or Perl cannot represent the value.

    ``offset`` is the position in the image, in bytes from its start. It is None for errors that
    have no position.
    """

    __module__ = "pyramid_kvs.storable"

    def __init__(self, message: str, offset: int | None = None) -> None:
        super().__init__(message if offset is None else f"{message} at byte {offset}")
        self.offset = offset


def check_encoding(encoding: str | None) -> str | None:
    """Return the canonical name of a codec.

    :raises ValueError: Python has no text codec with this name.
    """
    if encoding is None:
        return None
    try:
        name = codecs.lookup(encoding).name
        "?".encode(name)
    except (LookupError, ValueError, TypeError):
        raise ValueError(
            f"encoding: Python has no text codec {encoding!r} (write for example 'utf-8', "
            "'latin-1' or None)"
        ) from None
    return name


def decode_text(raw: bytes, codec: str | None) -> str | bytes:
    """Decode a string; return it unchanged if it is not valid in the codec, or without a codec."""
    if codec is None:
        return raw
    try:
        return raw.decode(codec)
    except UnicodeError:
        return raw


def decode_class(raw: bytes) -> str:
    """Decode a class name as UTF-8, or else as Latin-1, which always succeeds."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def make_key(value: Any, offset: int) -> str | bytes:
    """Convert the value of a key that is stored as a record to a hash key."""
    if isinstance(value, (str, bytes)):
        return value
    if value is None:
        return ""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    raise StorableError(f"a hash key is a {type(value).__name__}", offset)

"""What the Storable reader and writer share: record types, headers, numbers, text, the error."""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from pyramid_kvs.exceptions import CodecError

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
OLD_FILE_MAGIC: Final = b"perl-store"
BYTE_ORDERS: Final = {b"12345678": "<", b"1234": "<", b"87654321": ">", b"4321": ">"}
NATIVE_ORDER: Final = b"12345678"

Blessed = Callable[[str, Any], Any]
Unpack = Callable[[bytes, int], "tuple[Any, ...]"]


class StorableError(CodecError):
    """The bytes are no Storable image that can be read, or the value has no form in Perl.

    ``offset`` is the place in the image, counted in bytes from its start; None where there is none.
    """

    __module__ = "pyramid_kvs.storable"

    def __init__(self, message: str, offset: int | None = None) -> None:
        super().__init__(message if offset is None else f"{message} at byte {offset}")
        self.offset = offset


class Header(NamedTuple):
    """What the first bytes of an image say; ``start`` is the offset of its first record."""

    major: int
    network: bool
    order: str
    iv_size: int
    nv_size: int
    long_size: int
    start: int


class _Cursor:
    """Takes single bytes off the front of an image."""

    def __init__(self, data: bytes, pos: int) -> None:
        self.data = data
        self.pos = pos

    def take(self, length: int) -> bytes:
        taken = self.data[self.pos : self.pos + length]
        if len(taken) != length:
            raise StorableError("the image ends within its header", len(self.data))
        self.pos += length
        return taken

    def take_byte(self) -> int:
        return self.take(1)[0]


def parse_header(data: bytes) -> Header:
    """Read the header of an image in memory or in a file, of any major version up to 2."""
    if data.startswith(OLD_FILE_MAGIC):
        return _parse_oldest(_Cursor(data, len(OLD_FILE_MAGIC)))
    cursor = _Cursor(data, len(FILE_MAGIC) if data.startswith(FILE_MAGIC) else 0)
    version = cursor.take_byte()
    major, network = version >> 1, bool(version & 1)
    if major > 2:
        raise StorableError(
            f"no Storable image: major version {major} (known: 0, 1 and 2)", cursor.pos - 1
        )
    minor = cursor.take_byte() if major == 2 else 0
    if network:
        return Header(major, True, ">", 0, 0, 4, cursor.pos)
    return _parse_native(cursor, major, major == 2 and minor >= 2)


def _parse_oldest(cursor: _Cursor) -> Header:
    """Read what follows ``perl-store``: Storable 0.1 wrote no version byte there."""
    version = cursor.take_byte()
    if version == 1:
        return Header(0, True, ">", 0, 0, 4, cursor.pos)
    if version > 1:
        cursor.pos -= 1
    return _parse_native(cursor, 0, False)


def _parse_native(cursor: _Cursor, major: int, has_nv_size: bool) -> Header:
    start = cursor.pos
    name = cursor.take(cursor.take_byte())
    order = BYTE_ORDERS.get(name)
    if order is None:
        known = ", ".join(text.decode() for text in BYTE_ORDERS)
        raise StorableError(f"unknown byte order (known: {known})", start)
    sizes = cursor.take(3)
    if sizes[0] not in (4, 8) or sizes[1] not in (4, 8) or sizes[2] not in (4, 8):
        raise StorableError(f"sizes of int, long and pointer are {tuple(sizes)}", cursor.pos - 3)
    nv_size = cursor.take_byte() if has_nv_size else 8
    if (order, nv_size) not in FLOAT_READERS:
        raise StorableError(f"floats of {nv_size} bytes (known: 8, 12, 16)", cursor.pos - 1)
    return Header(major, False, order, len(name), nv_size, sizes[1], cursor.pos)


def _scale(mantissa: int, exponent: int, negative: bool) -> float:
    """Round mantissa * 2**exponent to a float, once; too large becomes infinity."""
    magnitude = mantissa.bit_length() + exponent
    if not mantissa:
        value = 0.0
    elif magnitude > 1024:
        value = float("inf")
    elif magnitude < -1080:
        value = 0.0
    else:
        try:
            value = float(mantissa << exponent) if exponent > 0 else mantissa / (1 << -exponent)
        except OverflowError:
            value = float("inf")
    return -value if negative else value


def _decode_x87(mantissa: int, sign_exponent: int) -> float:
    negative, exponent = sign_exponent >= 0x8000, sign_exponent & 0x7FFF
    if exponent == 0x7FFF:
        value = float("nan") if mantissa & ((1 << 63) - 1) else float("inf")
        return -value if negative else value
    return _scale(mantissa, max(exponent, 1) - 16383 - 63, negative)


def _decode_quad(bits: int) -> float:
    negative, exponent, fraction = bits >> 127, bits >> 112 & 0x7FFF, bits & ((1 << 112) - 1)
    if exponent == 0x7FFF:
        value = float("nan") if fraction else float("inf")
        return -value if negative else value
    if exponent:
        fraction |= 1 << 112
    return _scale(fraction, max(exponent, 1) - 16383 - 112, bool(negative))


def _read_x87(data: bytes, pos: int) -> tuple[float]:
    mantissa, sign_exponent, _ = _X87(data, pos)
    return (_decode_x87(mantissa, sign_exponent),)


def _read_quad(data: bytes, pos: int) -> tuple[float]:
    high, low = _QUAD(data, pos)
    return (_decode_quad(high << 64 | low),)


def _read_long_double(data: bytes, pos: int) -> tuple[float]:
    """Read 16 little-endian bytes that are an x87 number and padding, or an IEEE quad.

    The header does not say which, and the padding is garbage, so only the exponent that a quad
    would have can tell: perls with x87 numbers leave its two bytes zero.
    """
    low, high = _LONG_DOUBLE(data, pos)
    exponent = high >> 48 & 0x7FFF
    if exponent == 0x7FFF or 15283 <= exponent <= 17483:
        return (_decode_quad(high << 64 | low),)
    return (_decode_x87(low, high & 0xFFFF),)


_X87 = struct.Struct("<QHH").unpack_from
_QUAD = struct.Struct(">QQ").unpack_from
_LONG_DOUBLE = struct.Struct("<QQ").unpack_from

FLOAT_READERS: Final[dict[tuple[str, int], Unpack]] = {
    ("<", 8): struct.Struct("<d").unpack_from,
    (">", 8): struct.Struct(">d").unpack_from,
    ("<", 12): _read_x87,
    ("<", 16): _read_long_double,
    (">", 16): _read_quad,
}
"""How a float is read, by byte order and size."""


def _refuse_number(data: bytes, pos: int) -> tuple[Any, ...]:
    raise StorableError("a native number in a network image", pos - 1)


def choose_numbers(header: Header) -> tuple[Unpack, Unpack]:
    """Return the readers of SX_INTEGER and SX_DOUBLE payloads."""
    if header.network:
        return _refuse_number, _refuse_number
    integer = struct.Struct(header.order + ("q" if header.iv_size == 8 else "i")).unpack_from
    return integer, FLOAT_READERS[header.order, header.nv_size]


def check_encoding(encoding: str | None) -> str | None:
    """Return the codec's own name, so that spellings of it are one.

    :raises ValueError: there is no such text codec.
    """
    if encoding is None:
        return None
    try:
        name = codecs.lookup(encoding).name
        "?".encode(name)
    except (LookupError, ValueError, TypeError):
        raise ValueError(
            f"encoding: {encoding!r} is no text codec of Python (say 'utf-8', 'latin-1' or None)"
        ) from None
    return name


def decode_text(raw: bytes, codec: str | None) -> str | bytes:
    """Decode what is valid in the codec, return the rest as it is."""
    if codec is None:
        return raw
    try:
        return raw.decode(codec)
    except UnicodeError:
        return raw


def decode_class(raw: bytes) -> str:
    """Decode a class name: UTF-8, else Latin-1, which never fails."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def make_key(value: Any, offset: int) -> str | bytes:
    """Turn the value of a key that is stored as a record into a hash key."""
    if isinstance(value, (str, bytes)):
        return value
    if value is None:
        return ""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    raise StorableError(f"a hash key is a {type(value).__name__}", offset)


class Repairs:
    """Puts wrapped objects where a cycle met them before their ``blessed`` call.

    A reference into an object that is still being read can only give the plain list or dict. The
    places are remembered and corrected once at the end, each container in one pass.
    """

    def __init__(self) -> None:
        self.places: dict[int, tuple[Any, dict[int, tuple[Any, int]]]] = {}

    def note(self, parent: Any, value: Any, tag: int) -> None:
        """Remember that ``parent`` gets ``value``, which is the object of this tag."""
        if isinstance(value, (list, dict)):
            found = self.places.setdefault(id(parent), (parent, {}))[1]
            found[id(value)] = (value, tag)

    def apply(self, tags: list[Any]) -> None:
        for parent, found in self.places.values():
            pairs = parent.items() if isinstance(parent, dict) else enumerate(parent)
            for key, value in list(pairs):
                if id(value) in found:
                    parent[key] = tags[found[id(value)][1]]

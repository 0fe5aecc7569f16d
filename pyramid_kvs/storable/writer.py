"""Writes Storable images of major version 2 that every perl since 5.8 reads."""

from __future__ import annotations

import decimal
import struct
from collections.abc import Iterator
from typing import Any, Final

from .format import (
    KEY_UTF8,
    SX_ARRAY,
    SX_BYTE,
    SX_DOUBLE,
    SX_FLAG_HASH,
    SX_HASH,
    SX_INTEGER,
    SX_LSCALAR,
    SX_LUTF8STR,
    SX_NETINT,
    SX_OBJECT,
    SX_REF,
    SX_SCALAR,
    SX_UNDEF,
    SX_UTF8STR,
    StorableError,
)

MAX_DEPTH: Final = 12_000
"""The maximum depth: half of the depth that crashes Perl, whose reader has no limit."""

MAX_LENGTH: Final = 0x7FFFFFFF
NETWORK_HEADER: Final = b"\x05\x0b"
NATIVE_HEADER: Final = b"\x04\x0b\x0812345678\x04\x08\x08\x08"
FLOAT_WORDS: Final = {"inf": "Inf", "-inf": "-Inf", "nan": "NaN"}
CONTAINERS: Final = (list, tuple, dict)

_OBJECT = struct.Struct(">BBI").pack
_NETINT = struct.Struct(">Bi").pack
_INTEGER = struct.Struct("<Bq").pack
_DOUBLE = struct.Struct("<Bd").pack


class _Frame:
    """A list or dict that is being written; ``key`` is the key of the current item."""

    __slots__ = ("has_flags", "is_dict", "items", "key")

    def __init__(self, value: Any, has_flags: bool) -> None:
        self.is_dict = isinstance(value, dict)
        self.items: Iterator[tuple[Any, Any]] = iter(
            value.items() if self.is_dict else enumerate(value)
        )
        self.has_flags = has_flags
        self.key: Any = None


class Writer:
    """Writes one image; use it once.

    :param is_network: write network order, with large numbers as strings. Otherwise write the
        native order of a perl on x86-64.
    """

    def __init__(self, is_network: bool) -> None:
        self.is_network = is_network
        self.out = bytearray(NETWORK_HEADER if is_network else NATIVE_HEADER)
        self.pack_u32 = struct.Struct(">I" if is_network else "<I").pack
        self.stack: list[_Frame] = []
        self.written: dict[int, tuple[int, Any]] = {}
        self.next_tag = 0

    def write(self, value: Any) -> bytes:
        """Write the root and everything in it.

        :raises StorableError: Perl cannot represent something in it, or it is too deep.
        """
        if isinstance(value, CONTAINERS):
            self._open(value)
        else:
            self._write_scalar(value)
        while self.stack:
            if not self._write_items(self.stack[-1]):
                self.stack.pop()
                if self.stack:
                    self._end_item(self.stack[-1])
        return bytes(self.out)

    def _write_items(self, frame: _Frame) -> bool:
        """Write items up to one that contains items; return whether there is such an item."""
        for key, value in frame.items:
            frame.key = key
            if not isinstance(value, CONTAINERS):
                self._write_scalar(value)
            elif self._open_reference(value):
                return True
            self._end_item(frame)
        return False

    def _end_item(self, frame: _Frame) -> None:
        """Write the key of a dict's item, which comes after its value."""
        if not frame.is_dict:
            return
        key = frame.key
        if frame.has_flags:
            self.out.append(0 if isinstance(key, bytes) or key.isascii() else KEY_UTF8)
        raw = key if isinstance(key, bytes) else key.encode()
        self.out += self._pack_length(len(raw))
        self.out += raw

    def _open_reference(self, value: Any) -> bool:
        """Write a reference to a list or dict, and begin it if it was not written before."""
        self.next_tag += 1
        known = self.written.get(id(value))
        if known is not None:
            self.out += _OBJECT(SX_REF, SX_OBJECT, known[0])
            return False
        self.out.append(SX_REF)
        self._open(value)
        return True

    def _open(self, value: Any) -> None:
        if len(self.stack) >= MAX_DEPTH:
            raise self._error(f"more than {MAX_DEPTH} levels deep: Perl could crash reading it")
        # Python has only one empty tuple. Two places that contain it do not share data.
        if value or not isinstance(value, tuple):
            self.written[id(value)] = self.next_tag, value
        self.next_tag += 1
        has_flags = isinstance(value, dict) and self._check_keys(value)
        if has_flags:
            self.out += bytes((SX_FLAG_HASH, 0))
        else:
            self.out.append(SX_HASH if isinstance(value, dict) else SX_ARRAY)
        self.out += self._pack_length(len(value))
        self.stack.append(_Frame(value, has_flags))

    def _check_keys(self, value: dict[Any, Any]) -> bool:
        """Refuse keys that Perl cannot represent; return whether some need a flag."""
        has_flags = has_bytes = False
        for key in value:
            if isinstance(key, str):
                has_flags = has_flags or not key.isascii()
                self._encode(key)
            elif isinstance(key, bytes):
                has_bytes = True
            else:
                raise self._error(
                    f"Perl cannot represent a key of type {_name(key)} (write a str or bytes key)"
                )
        if has_bytes:
            self._check_pairs(value)
        return has_flags

    def _check_pairs(self, value: dict[Any, Any]) -> None:
        for key in value:
            if isinstance(key, bytes) and key.decode("latin-1") in value:
                raise self._error("a bytes key and a str key are the same key in Perl")

    def _write_scalar(self, value: Any) -> None:
        self.next_tag += 1
        if isinstance(value, str):
            self._write_text(value)
        elif value is None:
            self.out.append(SX_UNDEF)
        elif isinstance(value, int):
            self._write_int(int.__index__(value))
        elif isinstance(value, float):
            self._write_float(value)
        elif isinstance(value, (bytes, bytearray)):
            self._write_bytes(value, SX_SCALAR, SX_LSCALAR)
        else:
            raise self._error(
                f"Perl cannot represent a value of type {_name(value)} (write None, bool, int, "
                "float, str, bytes, list, tuple or dict)"
            )

    def _write_text(self, value: str) -> None:
        """Write ASCII as a byte string, which is equal in Perl, and other strings as UTF-8."""
        if value.isascii():
            self._write_bytes(value.encode(), SX_SCALAR, SX_LSCALAR)
        else:
            self._write_bytes(self._encode(value), SX_UTF8STR, SX_LUTF8STR)

    def _encode(self, text: str) -> bytes:
        try:
            return text.encode()
        except UnicodeEncodeError:
            raise self._error("a string with a lone surrogate cannot be written as UTF-8") from None

    def _write_bytes(self, raw: bytes | bytearray, short: int, long: int) -> None:
        if len(raw) < 256:
            self.out += bytes((short, len(raw)))
        else:
            self.out.append(long)
            self.out += self._pack_length(len(raw))
        self.out += raw

    def _write_int(self, value: int) -> None:
        if -128 <= value <= 127:
            self.out += bytes((SX_BYTE, value + 128))
        elif self.is_network and -(2**31) <= value < 2**31:
            self.out += _NETINT(SX_NETINT, value)
        elif not self.is_network and -(2**63) <= value < 2**63:
            self.out += _INTEGER(SX_INTEGER, value)
        else:
            self._write_bytes(_write_digits(value).encode(), SX_SCALAR, SX_LSCALAR)

    def _write_float(self, value: float) -> None:
        if not self.is_network:
            self.out += _DOUBLE(SX_DOUBLE, value)
            return
        text = float.__repr__(value)
        self._write_bytes(FLOAT_WORDS.get(text, text).encode(), SX_SCALAR, SX_LSCALAR)

    def _pack_length(self, length: int) -> bytes:
        if length > MAX_LENGTH:
            raise self._error(f"the length {length} is above the maximum of {MAX_LENGTH}")
        return self.pack_u32(length)

    def _error(self, problem: str) -> StorableError:
        """Return an error that names the place by the last few keys that lead to it."""
        keys = [f"[{_shorten(frame.key)}]" for frame in self.stack[-8:]]
        path = "value" + ("[...]" if len(self.stack) > 8 else "") + "".join(keys)
        return StorableError(f"{path}: {problem}")


def _write_digits(value: int) -> str:
    """Write an integer in decimal, also beyond Python's limit on the digits of ``str(int)``."""
    try:
        return str(value)
    except ValueError:
        return str(decimal.Decimal(value))


def _name(value: Any) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def _shorten(key: Any) -> str:
    text = repr(key)
    return text if len(text) <= 40 else text[:37] + "..."

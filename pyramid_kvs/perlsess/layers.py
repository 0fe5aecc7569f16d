"""What Perl's session and cache modules put around an image: one class for each layer.

The ``unwrap_*`` functions remove layers from stored data. They append the layers to a list, the
outermost first. The layers can then wrap a changed image in the same way.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import re
import struct
import zlib
from dataclasses import dataclass, replace
from typing import Protocol

from ..exceptions import CodecError


class Layer(Protocol):
    """One thing around an image, with everything that is needed to add it again."""

    def wrap(self, data: bytes) -> bytes: ...


def unwrap_plain(data: bytes, layers: list[Layer], max_bytes: int) -> bytes:
    return data


class Gzip:
    """``memGzip`` of Compress::Zlib, used by Cache::Memcached and CHI."""

    def wrap(self, data: bytes) -> bytes:
        return gzip.compress(data, 6, mtime=0)


def unwrap_gzip(data: bytes, layers: list[Layer], max_bytes: int) -> bytes:
    layers.append(Gzip())
    unpacker = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        unpacked = unpacker.decompress(data, max_bytes + 1)
    except zlib.error:
        raise CodecError("stored session is not gzip, as its flags or format say") from None
    if len(unpacked) > max_bytes:
        raise CodecError(f"stored session unpacks to more than {max_bytes} bytes")
    if not unpacker.eof or unpacker.unused_data:
        raise CodecError("stored session is truncated gzip, or is followed by something else")
    return unpacked


@dataclass(frozen=True)
class Base64:
    """MIME::Base64, in lines of 76 characters or on one line, with or without a last newline."""

    has_lines: bool
    has_end: bool

    def wrap(self, data: bytes) -> bytes:
        encoded = base64.encodebytes(data) if self.has_lines else base64.b64encode(data) + b"\n"
        return encoded if self.has_end else encoded.rstrip(b"\n")


# Without the newlines at the end, which two parts of the pattern could match: the number of ways to
# divide them would take quadratic time.
_BASE64 = re.compile(rb"[A-Za-z0-9+/\r\n]+={0,2}")


def unwrap_base64(data: bytes, layers: list[Layer], max_bytes: int) -> bytes:
    text = data.rstrip(b"\r\n")
    layers.append(Base64(b"\n" in text or len(text) <= 76, data.endswith(b"\n")))
    if not _BASE64.fullmatch(text):
        raise CodecError("stored session is not base64")
    try:
        return base64.b64decode(text.replace(b"\n", b"").replace(b"\r", b""), validate=True)
    except binascii.Error:
        raise CodecError("stored session is not base64") from None


class Hex:
    """Apache::Session::Serialize::Sybase: lower-case hexadecimal digits."""

    def wrap(self, data: bytes) -> bytes:
        return data.hex().encode()


_HEX = re.compile(rb"(?:[0-9a-f]{2})+")


def unwrap_hex(data: bytes, layers: list[Layer], max_bytes: int) -> bytes:
    layers.append(Hex())
    if not _HEX.fullmatch(data):
        raise CodecError("stored session is not lower-case hexadecimal")
    return bytes.fromhex(data.decode("ascii"))


class UUEncode:
    """Apache::Session::Serialize::UUEncode: ``pack("u", ...)``, lines of 45 bytes."""

    def wrap(self, data: bytes) -> bytes:
        lines = (data[start : start + 45] for start in range(0, len(data), 45))
        return b"".join(binascii.b2a_uu(line, backtick=True) for line in lines)


def unwrap_uuencode(data: bytes, layers: list[Layer], max_bytes: int) -> bytes:
    layers.append(UUEncode())
    try:
        return b"".join(binascii.a2b_uu(line) for line in data.split(b"\n") if line)
    except binascii.Error:
        raise CodecError("stored session is not uuencoded") from None


@dataclass(frozen=True)
class CHIPrefix:
    """The 14 bytes before the data that CHI stores: three times, the bits, and CHI's version."""

    created: int
    early: int
    expires: int
    bits: int
    version: int

    LAYOUT = struct.Struct("=IIIBB")
    GZIP = 4
    KNOWN_BITS = 7
    VERSION = 1
    NEVER = 0xFFFFFFFF

    def wrap(self, data: bytes) -> bytes:
        fields = (self.created, self.early, self.expires, self.bits, self.version)
        return self.LAYOUT.pack(*fields) + data

    def renewed(self, now: float, ttl: float | None) -> CHIPrefix:
        """Return the prefix of an entry that is written now, without an early expiry."""
        end = self.NEVER if ttl is None else min(int(now + ttl), self.NEVER)
        return replace(self, created=int(now), early=end, expires=end)


def unwrap_chi(data: bytes, layers: list[Layer], max_bytes: int) -> bytes:
    prefix = _chi_prefix(data)
    if prefix is None:
        raise CodecError("stored session does not begin with the prefix of CHI")
    layers.append(prefix)
    data = data[CHIPrefix.LAYOUT.size :]
    return unwrap_gzip(data, layers, max_bytes) if prefix.bits & CHIPrefix.GZIP else data


def _chi_prefix(data: bytes) -> CHIPrefix | None:
    if len(data) < CHIPrefix.LAYOUT.size:
        return None
    prefix = CHIPrefix(*CHIPrefix.LAYOUT.unpack_from(data))
    is_plausible = (
        prefix.created <= prefix.early <= prefix.expires
        and prefix.bits <= CHIPrefix.KNOWN_BITS
        and prefix.version == CHIPrefix.VERSION
    )
    return prefix if is_plausible else None

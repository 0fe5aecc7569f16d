"""What Perl's session and cache modules put around a Storable image, taken off and put on again.

Bytes in, bytes out: nothing here builds a value, knows a store or knows Pyramid. From the outside
to the inside, memcached's flags say whether the data is gzip, and the format names what else is
around the image.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, Protocol

from ..exceptions import CodecError
from ..storable.format import SX_ARRAY, SX_FLAG_HASH, SX_HASH, StorableError
from ..storable.header import Header, parse_header

__all__ = ["CACHE_OBJECT", "FORMATS", "MAX_BYTES", "Form", "Unwrapped", "unwrap", "wrap"]

#: Of the flags of Cache::Memcached and Cache::Memcached::Fast: the data are compressed. The bits
#: for Storable (1) and UTF-8 (4) change nothing here, and are written back as they were read.
FLAG_GZIP: Final = 2

#: The largest image that comes out of a compressed or encoded one, in bytes.
MAX_BYTES: Final = 4 * 1024 * 1024

#: The class of the second item in what Cache::FileCache stores; the session is its ``_Data``.
CACHE_OBJECT: Final = "Cache::Object"

GZIP_MAGIC: Final = b"\x1f\x8b"
NEWEST_MINOR: Final = 12
NEWEST_TYPE: Final = 35


class Layer(Protocol):
    """One thing around an image, with what must be known to put it on again."""

    def wrap(self, data: bytes) -> bytes: ...


@dataclass(frozen=True)
class Form:
    """How an image was stored: memcached's flags and the layers, the outermost first."""

    flags: int = 0
    layers: tuple[Layer, ...] = ()

    @property
    def expires(self) -> int | None:
        """When the entry expires by its own account, in Unix seconds; ``None``: never."""
        ends = [layer.expires for layer in self.layers if isinstance(layer, CHIPrefix)]
        return ends[0] if ends and ends[0] != CHIPrefix.NEVER else None

    def renewed(self, now: float, ttl: float | None) -> Form:
        """Return the form of an entry that is written now and lives for ``ttl`` seconds."""
        layers = (
            layer.renewed(now, ttl) if isinstance(layer, CHIPrefix) else layer
            for layer in self.layers
        )
        return replace(self, layers=tuple(layers))


class Unwrapped(NamedTuple):
    """An image, and how it was stored."""

    image: bytes
    form: Form


def unwrap(
    data: bytes, flags: int, format_name: str = "auto", max_bytes: int = MAX_BYTES
) -> Unwrapped:
    """Return the image in stored data.

    :param flags: memcached's; 0 on other stores.
    :param format_name: one of :data:`FORMATS`.
    :param max_bytes: of the image.
    :raises CodecError: the data is not in that format, or the image is larger.
    """
    layers: list[Layer] = []
    if flags & FLAG_GZIP:
        data = _unwrap_gzip(data, layers, max_bytes)
    data = FORMATS[format_name](data, layers, max_bytes)
    if len(data) > max_bytes:
        raise CodecError(f"stored session is larger than {max_bytes} bytes")
    return Unwrapped(data, Form(flags, tuple(layers)))


def wrap(image: bytes, form: Form) -> tuple[bytes, int]:
    """Return the data and flags that store an image in a form that :func:`unwrap` found."""
    for layer in reversed(form.layers):
        image = layer.wrap(image)
    return image, form.flags


# -- layers ----------------------------------------------------------------------------------
# Each unwrap function appends the layers that it takes off, the outermost first.


def _unwrap_plain(data: bytes, layers: list[Layer], max_bytes: int) -> bytes:
    return data


class Gzip:
    """Compress::Zlib's memGzip, which Cache::Memcached and CHI use."""

    def wrap(self, data: bytes) -> bytes:
        return gzip.compress(data, 6, mtime=0)


def _unwrap_gzip(data: bytes, layers: list[Layer], max_bytes: int) -> bytes:
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
    """MIME::Base64: in lines of 76 characters, or all in one."""

    lines: bool
    ended: bool

    def wrap(self, data: bytes) -> bytes:
        encoded = base64.encodebytes(data) if self.lines else base64.b64encode(data) + b"\n"
        return encoded if self.ended else encoded.rstrip(b"\n")


_BASE64_TEXT = re.compile(rb"[A-Za-z0-9+/\r\n]+={0,2}[\r\n]*")


def _unwrap_base64(data: bytes, layers: list[Layer], max_bytes: int) -> bytes:
    text = data.rstrip(b"\r\n")
    layers.append(Base64(b"\n" in text or len(text) <= 76, data.endswith(b"\n")))
    if not _BASE64_TEXT.fullmatch(data):
        raise CodecError("stored session is not base64")
    try:
        return base64.b64decode(text.replace(b"\n", b"").replace(b"\r", b""), validate=True)
    except binascii.Error:
        raise CodecError("stored session is not base64") from None


class Hex:
    """Apache::Session::Serialize::Sybase: lower-case hexadecimal digits."""

    def wrap(self, data: bytes) -> bytes:
        return data.hex().encode()


_HEX_TEXT = re.compile(rb"(?:[0-9a-f]{2})+")


def _unwrap_hex(data: bytes, layers: list[Layer], max_bytes: int) -> bytes:
    layers.append(Hex())
    if not _HEX_TEXT.fullmatch(data):
        raise CodecError("stored session is not lower-case hexadecimal")
    return bytes.fromhex(data.decode("ascii"))


class UUEncode:
    """Apache::Session::Serialize::UUEncode: ``pack("u", ...)``, lines of 45 bytes."""

    def wrap(self, data: bytes) -> bytes:
        lines = (data[start : start + 45] for start in range(0, len(data), 45))
        return b"".join(binascii.b2a_uu(line, backtick=True) for line in lines)


def _unwrap_uuencode(data: bytes, layers: list[Layer], max_bytes: int) -> bytes:
    layers.append(UUEncode())
    try:
        return b"".join(binascii.a2b_uu(line) for line in data.split(b"\n") if line)
    except binascii.Error:
        raise CodecError("stored session is not uuencoded") from None


@dataclass(frozen=True)
class CHIPrefix:
    """The 14 bytes in front of what CHI stores: three times, the bits, and CHI's own version."""

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
        """Return the prefix of an entry that is written now; it gets no early expiry."""
        end = self.NEVER if ttl is None else min(int(now + ttl), self.NEVER)
        return replace(self, created=int(now), early=end, expires=end)


def _unwrap_chi(data: bytes, layers: list[Layer], max_bytes: int) -> bytes:
    prefix = _chi_prefix(data)
    if prefix is None:
        raise CodecError("stored session does not begin with the prefix that CHI writes")
    layers.append(prefix)
    data = data[CHIPrefix.LAYOUT.size :]
    return _unwrap_gzip(data, layers, max_bytes) if prefix.bits & CHIPrefix.GZIP else data


def _chi_prefix(data: bytes) -> CHIPrefix | None:
    if len(data) < CHIPrefix.LAYOUT.size:
        return None
    prefix = CHIPrefix(*CHIPrefix.LAYOUT.unpack_from(data))
    plausible = (
        prefix.created <= prefix.early <= prefix.expires
        and prefix.bits <= CHIPrefix.KNOWN_BITS
        and prefix.version == CHIPrefix.VERSION
    )
    return prefix if plausible else None


# -- recognition -----------------------------------------------------------------------------


def _unwrap_auto(data: bytes, layers: list[Layer], max_bytes: int) -> bytes:
    """Take off what is around an image if that leaves the beginning of an image.

    The order matters: whoever may choose a string in a session could otherwise make a plain image
    look like something else. An image begins with a byte below 6 or with ``pst0``, so that none
    is text; and a text that is an image in one encoding is none in another.
    """
    if looks_like_image(data):
        return data
    if data.startswith(GZIP_MAGIC) and not layers:
        return _unwrap_auto(_unwrap_gzip(data, layers, max_bytes), layers, max_bytes)
    for candidate in (_unwrap_chi, _unwrap_base64, _unwrap_hex, _unwrap_uuencode):
        found: list[Layer] = []
        try:
            image = candidate(data, found, max_bytes)
        except CodecError:
            continue
        if looks_like_image(image):
            layers += found
            return image
    return data


def looks_like_image(data: bytes) -> bool:
    """Return whether data begins as an image does: a header, and a record that has room.

    Network images of major version 1 (before the year 2000) have no header to speak of: no.
    """
    try:
        header = parse_header(data)
    except StorableError:
        return False
    if header.is_network and (header.major < 2 or data[header.start - 1] > NEWEST_MINOR):
        return False
    return _has_room(data, header)


def _has_room(data: bytes, header: Header) -> bool:
    """Return whether the first record is of a known type, and its items can be in the data."""
    start = header.start
    if header.major == 0:
        return True
    if start >= len(data) or data[start] > NEWEST_TYPE:
        return False
    kind = data[start]
    if kind not in (SX_ARRAY, SX_HASH, SX_FLAG_HASH):
        return True
    start += 2 if kind == SX_FLAG_HASH else 1
    count = int.from_bytes(data[start : start + 4], "big" if header.order == ">" else "little")
    return start + 4 + count * (1 if kind == SX_ARRAY else 5) <= len(data)


#: The formats by name: what a setting may say, and what takes the layers off.
FORMATS: Final[dict[str, Callable[[bytes, list[Layer], int], bytes]]] = {
    "auto": _unwrap_auto,
    "plain": _unwrap_plain,
    "gzip": _unwrap_gzip,
    "base64": _unwrap_base64,
    "hex": _unwrap_hex,
    "uuencode": _unwrap_uuencode,
    "chi": _unwrap_chi,
    "cache-object": _unwrap_plain,
}

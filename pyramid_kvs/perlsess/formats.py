"""The formats of stored data: how an image is unwrapped, and wrapped again in the same way.

This module converts bytes to bytes. It creates no values, and uses neither a store nor Pyramid.
From the outside to the inside, memcached's flags say whether the data are compressed, and the
format says what else is around the image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from ..exceptions import CodecError
from ..storable.format import SX_ARRAY, SX_FLAG_HASH, SX_HASH, StorableError
from ..storable.header import Header, parse_header
from .layers import (
    CHIPrefix,
    Layer,
    unwrap_base64,
    unwrap_chi,
    unwrap_gzip,
    unwrap_hex,
    unwrap_plain,
    unwrap_uuencode,
)

__all__ = ["CACHE_OBJECT", "FORMATS", "MAX_BYTES", "Unwrapped", "Wrapping", "unwrap", "wrap"]

#: A flag of Cache::Memcached and Cache::Memcached::Fast: the data are compressed. The flags for
#: Storable (1) and UTF-8 (4) change nothing here, and are written back as they were read.
FLAG_GZIP: Final = 2

#: The maximum size of an image in bytes, after decompression and decoding.
MAX_BYTES: Final = 4 * 1024 * 1024

#: The class of the second item in the data of Cache::FileCache; the session is its ``_Data``.
CACHE_OBJECT: Final = "Cache::Object"

GZIP_MAGIC: Final = b"\x1f\x8b"
NEWEST_MINOR: Final = 12
NEWEST_TYPE: Final = 35


@dataclass(frozen=True)
class Wrapping:
    """How an image was stored: memcached's flags, and the layers, the outermost first."""

    flags: int = 0
    layers: tuple[Layer, ...] = ()

    @property
    def expires(self) -> int | None:
        """The expiry that the wrapping notes, in Unix seconds; ``None`` means no expiry."""
        ends = [layer.expires for layer in self.layers if isinstance(layer, CHIPrefix)]
        return ends[0] if ends and ends[0] != CHIPrefix.NEVER else None

    def renewed(self, now: float, ttl: float | None) -> Wrapping:
        """Return the wrapping of an entry that is written now and expires after ``ttl`` seconds."""
        layers = (
            layer.renewed(now, ttl) if isinstance(layer, CHIPrefix) else layer
            for layer in self.layers
        )
        return replace(self, layers=tuple(layers))


class Unwrapped(NamedTuple):
    """An image, and how it was stored."""

    image: bytes
    wrapping: Wrapping


def unwrap(
    data: bytes, flags: int, format_name: str = "auto", max_bytes: int = MAX_BYTES
) -> Unwrapped:
    """Return the image in stored data.

    :param flags: memcached's flags, 0 on other stores.
    :param format_name: one of :data:`FORMATS`.
    :param max_bytes: the maximum size of the image.
    :raises CodecError: the data are not in this format, or the image is larger.
    """
    layers: list[Layer] = []
    if flags & FLAG_GZIP:
        data = unwrap_gzip(data, layers, max_bytes)
    data = FORMATS[format_name](data, layers, max_bytes)
    if len(data) > max_bytes:
        raise CodecError(f"stored session is larger than {max_bytes} bytes")
    return Unwrapped(data, Wrapping(flags, tuple(layers)))


def wrap(image: bytes, wrapping: Wrapping) -> tuple[bytes, int]:
    """Return the data and flags that store an image with a wrapping from :func:`unwrap`."""
    for layer in reversed(wrapping.layers):
        image = layer.wrap(image)
    return image, wrapping.flags


# -- recognition -----------------------------------------------------------------------------


def _unwrap_auto(data: bytes, layers: list[Layer], max_bytes: int) -> bytes:
    """Remove the layers around an image if the result looks like an image.

    The order matters. Otherwise someone who chooses a string in a session could make a plain image
    look like something else. An image begins with a byte below 6 or with ``pst0``, so it is not
    text. A string that is an image in one encoding is not an image in another.
    """
    if looks_like_image(data):
        return data
    if data.startswith(GZIP_MAGIC) and not layers:
        return _unwrap_auto(unwrap_gzip(data, layers, max_bytes), layers, max_bytes)
    for candidate in (unwrap_chi, unwrap_base64, unwrap_hex, unwrap_uuencode):
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
    """Return whether data begin with a header, and a record for which they are long enough.

    Network images of major version 1 (before the year 2000) are not recognized, because their
    header is only one byte.
    """
    try:
        header = parse_header(data)
    except StorableError:
        return False
    if header.is_network and (header.major < 2 or data[header.start - 1] > NEWEST_MINOR):
        return False
    return _has_room(data, header)


def _has_room(data: bytes, header: Header) -> bool:
    """Return whether the first record has a known type, and its items can be in the data."""
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


#: The formats that a setting may name, and the functions that remove their layers.
FORMATS: Final[dict[str, Callable[[bytes, list[Layer], int], bytes]]] = {
    "auto": _unwrap_auto,
    "plain": unwrap_plain,
    "gzip": unwrap_gzip,
    "base64": unwrap_base64,
    "hex": unwrap_hex,
    "uuencode": unwrap_uuencode,
    "chi": unwrap_chi,
    "cache-object": unwrap_plain,
}

"""The layouts in which perls store floats: IEEE double and quad, and x87 extended."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

Unpack = Callable[[bytes, int], "tuple[Any, ...]"]
"""A function that reads a number from an image at an offset, like ``Struct.unpack_from``."""


def _scale(mantissa: int, exponent: int, negative: bool) -> float:
    """Round mantissa * 2**exponent to a float. A number that is too large becomes infinity."""
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
    """Read 16 little-endian bytes: an x87 number with padding, or an IEEE quad.

    The header does not say which, and the padding is garbage. Only the exponent of a possible quad
    can tell them apart, because perls with x87 numbers set its two bytes to zero.
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
"""How to read a float, by byte order and size."""

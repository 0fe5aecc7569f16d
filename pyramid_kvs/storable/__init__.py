"""Read and write the images of Perl's Storable, with the standard library only.

:func:`thaw` and :func:`retrieve` convert an image to plain Python values. They never run anything
that an image names. :func:`nfreeze`, :func:`freeze`, :func:`nstore` and :func:`store` write images
that Perl can read. The page "Perl Storable" of the documentation describes the conversion.
"""

from __future__ import annotations

import os
from typing import Any, Final

from .files import replace_file
from .format import FILE_MAGIC, Blessed, StorableError, check_encoding
from .header import parse_header
from .old import OldReader
from .reader import Reader
from .writer import Writer

__all__ = ["MAX_SIZE", "StorableError", "freeze", "nfreeze", "nstore", "retrieve", "store", "thaw"]

MAX_SIZE: Final = 64 * 1024 * 1024
"""The default of ``max_size`` in bytes. The values need 10 to 30 times as much memory."""


def thaw(
    data: bytes,
    *,
    encoding: str | None = "utf-8",
    blessed: Blessed | None = None,
    max_size: int = MAX_SIZE,
) -> Any:
    """Read an image.

    :param data: the output of Perl's ``freeze``, ``nfreeze``, ``store`` or ``nstore``. Bytes after
        the root record are ignored.
    :param encoding: the codec of strings and hash keys without Perl's UTF-8 flag. Strings that are
        not valid in it remain bytes. With None, all of them remain bytes. Strings with the flag are
        always UTF-8.
    :param blessed: called as ``blessed(class_name, value)`` when an object is complete. Its result
        replaces the object. Inner objects come first. Its exceptions are not caught.
    :param max_size: the maximum number of bytes of ``data``.
    :returns: None, bool, int, float, str, bytes, list or dict. Shared data are shared and cyclic
        data are cyclic, and the depth is not limited. Remember this before you print, compare or
        copy values from an untrusted image.
    :raises StorableError: the data are not an image, are damaged, or have no value.
    :raises ValueError: the ``encoding`` is unknown.
    """
    codec = check_encoding(encoding)
    data = _check_image(data, max_size)
    header = parse_header(data)
    reader = Reader if header.major == 2 else OldReader
    return reader(data, header, codec, blessed).read()


def _check_image(data: Any, max_size: int) -> bytes:
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise StorableError(f"an image is bytes, not {type(data).__name__}")
    image = bytes(data)
    if len(image) > max_size:
        raise StorableError(f"the image is larger than {max_size} bytes (max_size)")
    return image


def retrieve(
    path: str | os.PathLike[str],
    *,
    encoding: str | None = "utf-8",
    blessed: Blessed | None = None,
    max_size: int = MAX_SIZE,
) -> Any:
    """Read an image from a file, like :func:`thaw`.

    :raises OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        data = file.read(max_size + 1)
    return thaw(data, encoding=encoding, blessed=blessed, max_size=max_size)


def nfreeze(value: Any) -> bytes:
    """Write an image in network order, which every Perl can read.

    Floats, and integers of more than 32 bits, are stored as strings, as in Perl's ``nfreeze``.

    :param value: None, bool, int, float, str, bytes, list, tuple, a dict with str or bytes keys, or
        an instance of a subclass of these. Lists and dicts may be shared and cyclic.
    :raises StorableError: Perl cannot represent something in it. The message names type and place.
    """
    return Writer(is_network=True).write(value)


def freeze(value: Any) -> bytes:
    """Write an image in the native order of a 64-bit PC, which keeps numbers as numbers.

    Otherwise it is like :func:`nfreeze`. Perl on another kind of machine cannot read the image.
    """
    return Writer(is_network=False).write(value)


def nstore(value: Any, path: str | os.PathLike[str]) -> None:
    """Write the image of :func:`nfreeze` to a file, which is then either complete or unchanged.

    :raises OSError: the file cannot be written.
    """
    replace_file(path, FILE_MAGIC + nfreeze(value))


def store(value: Any, path: str | os.PathLike[str]) -> None:
    """Write the image of :func:`freeze` to a file, like :func:`nstore`."""
    replace_file(path, FILE_MAGIC + freeze(value))

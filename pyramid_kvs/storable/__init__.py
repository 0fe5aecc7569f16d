"""Read and write the images of Perl's Storable, with the standard library only.

:func:`thaw` and :func:`retrieve` make plain Python values of an image and never run anything that
an image names; :func:`nfreeze`, :func:`freeze`, :func:`nstore` and :func:`store` write images that
perl reads. What becomes what is in the documentation, page "Perl Storable".
"""

from __future__ import annotations

import os
import secrets
import stat
from typing import Any, Final

from pyramid_kvs.storable.format import (
    FILE_MAGIC,
    Blessed,
    StorableError,
    check_encoding,
    parse_header,
)
from pyramid_kvs.storable.old import OldReader
from pyramid_kvs.storable.reader import Reader
from pyramid_kvs.storable.writer import Writer

__all__ = ["MAX_SIZE", "StorableError", "freeze", "nfreeze", "nstore", "retrieve", "store", "thaw"]

MAX_SIZE: Final = 64 * 1024 * 1024
"""The most bytes of an image, if the caller says nothing; the values take 10 to 30 times that."""


def thaw(
    data: bytes,
    *,
    encoding: str | None = "utf-8",
    blessed: Blessed | None = None,
    max_size: int = MAX_SIZE,
) -> Any:
    """Read an image.

    :param data: what ``freeze``, ``nfreeze``, ``store`` or ``nstore`` of perl wrote; bytes after
        the root record are ignored.
    :param encoding: the codec of strings and hash keys without Perl's UTF-8 flag; what is not valid
        in it stays bytes. None: they all stay bytes. Flagged ones are UTF-8 always.
    :param blessed: called as ``blessed(class_name, value)`` when an object is complete; what it
        returns stands in the object's place. Objects inside come first. What it raises goes up.
    :param max_size: the most bytes that ``data`` may have.
    :returns: None, bool, int, float, str, bytes, list or dict. Shared and cyclic data come back as
        such, and nothing limits their depth: mind that before you print, compare or copy values
        that strangers can write.
    :raises StorableError: no image, a broken one, or one without a value.
    :raises ValueError: no such ``encoding``.
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
    """Read an image from a file, as :func:`thaw` does.

    :raises OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        data = file.read(max_size + 1)
    return thaw(data, encoding=encoding, blessed=blessed, max_size=max_size)


def nfreeze(value: Any) -> bytes:
    """Write an image in network order, which every perl reads.

    Floats, and ints beyond 32 bits, become text in it, as perl's own ``nfreeze`` writes them.

    :param value: None, bool, int, float, str, bytes, list, tuple, dict with str or bytes keys, and
        subclasses of these. Lists and dicts may be shared and cyclic.
    :raises StorableError: Perl has no form for something in it; the message names type and place.
    """
    return Writer(is_network=True).write(value)


def freeze(value: Any) -> bytes:
    """Write an image in the native order of a 64-bit PC, which keeps numbers as numbers.

    As :func:`nfreeze` otherwise, but a perl on another kind of machine refuses it.
    """
    return Writer(is_network=False).write(value)


def nstore(value: Any, path: str | os.PathLike[str]) -> None:
    """Write the image of :func:`nfreeze` to a file; the file is there whole or as it was.

    :raises OSError: the file cannot be written.
    """
    _replace_file(path, FILE_MAGIC + nfreeze(value))


def store(value: Any, path: str | os.PathLike[str]) -> None:
    """Write the image of :func:`freeze` to a file, as :func:`nstore` does."""
    _replace_file(path, FILE_MAGIC + freeze(value))


def _replace_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file beside the one to replace, with its mode, and rename it."""
    final = os.path.realpath(path)
    beside = f"{final}.{secrets.token_hex(8)}.tmp"
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            _copy_mode(final, descriptor)
            file.flush()
            os.fsync(descriptor)
        os.replace(beside, final)
    except BaseException:
        os.unlink(beside)
        raise


def _copy_mode(path: str, descriptor: int) -> None:
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    os.fchmod(descriptor, stat.S_IMODE(mode))

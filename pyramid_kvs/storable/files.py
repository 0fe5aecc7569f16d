"""Writes files so that they are either complete or unchanged."""

from __future__ import annotations

import os
import secrets
import stat


def replace_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a temporary file in the same directory, with the same mode, and rename it."""
    final = os.path.realpath(path)
    temporary = f"{final}.{secrets.token_hex(8)}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            _copy_mode(final, descriptor)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, final)
    except BaseException:
        os.unlink(temporary)
        raise


def _copy_mode(path: str, descriptor: int) -> None:
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    if hasattr(os, "fchmod"):  # Windows has it since Python 3.13
        os.fchmod(descriptor, stat.S_IMODE(mode))

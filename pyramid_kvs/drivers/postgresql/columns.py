"""Keys, data and patterns as the postgresql driver's table has them."""

from __future__ import annotations

import hashlib
import re

from ...kvs import Data, encode_key
from .libpq import boolean, float8

#: A B-tree entry holds about 2,700 bytes. What is longer than this is shortened, to a length
#: that no key stored as it is has.
LONGEST_KEY = 1000
#: The longest life, 30,000 years: the end of timestamptz is not far behind.
LONGEST_TTL = 1e12


def stored_key(full_key: bytes) -> tuple[bytes, bytes | None]:
    """Return the columns ``key`` and ``long_key``."""
    if len(full_key) <= LONGEST_KEY:
        return full_key, None
    return full_key[:LONGEST_KEY] + hashlib.sha256(full_key).digest(), full_key


def encode_data(data: Data) -> tuple[bytes, bytes]:
    """Return the columns ``data`` and ``is_text``."""
    if isinstance(data, str):
        return data.encode("utf-8", "surrogatepass"), boolean(True)
    return bytes(data), boolean(False)


def decode_data(data: bytes, is_text: bytes) -> Data:
    return data.decode("utf-8", "surrogatepass") if is_text == b"\x01" else data


def seconds(ttl: float | None) -> bytes | None:
    return None if ttl is None else float8(min(ttl, LONGEST_TTL))


def successor(prefix: bytes) -> bytes | None:
    """Return the least key above all that begin with the prefix; ``None``: there is none."""
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes([kept[-1] + 1]) if kept else None


def like(prefix: bytes, pattern: str) -> bytes:
    """Return a LIKE pattern of bytes that matches at least what the pattern of text does."""
    rest = _escaped(encode_key(pattern)).replace(b"*", b"%").replace(b"?", b"_%")
    return _escaped(prefix) + rest


def _escaped(literal: bytes) -> bytes:
    return re.sub(rb"([\\%_])", rb"\\\1", literal)


def regex(pattern: str) -> re.Pattern[str]:
    special = {"*": ".*", "?": "."}
    parts = re.findall(r"\*+|\?|[^*?]+", pattern)
    return re.compile("".join(special.get(part[0], re.escape(part)) for part in parts), re.DOTALL)

"""Cookies of a request, read without WebOb's decoding."""

from __future__ import annotations

from collections.abc import Iterator

from webob.cookies import parse_cookie  # type: ignore[attr-defined]


def values_of(header: str, name: str) -> Iterator[str]:
    """Yield the values that a ``Cookie`` header has for a name, as Latin-1, in its order.

    ``request.cookies`` raises ``UnicodeDecodeError`` if any cookie of the domain is not UTF-8.
    """
    wanted = name.encode("latin-1", "replace")
    for found, value in parse_cookie(header):
        if found == wanted:
            yield str(value, "latin-1")

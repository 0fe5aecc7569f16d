"""Cookies of a request, read without WebOb's decoding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pyramid.request import Request
from webob.cookies import parse_cookie  # type: ignore[attr-defined]


def cookie_values(request: Request, name: str) -> Iterable[str]:
    """Return the values that the cookies of a request have for a name, in the header's order."""
    header = request.environ.get("HTTP_COOKIE")
    if header is not None:
        return values_of(header, name) if name in header else ()
    value = request.cookies.get(name)  # a DummyRequest has its cookies in a dict
    return () if value is None else (value,)


def values_of(header: str, name: str) -> Iterator[str]:
    """Yield the values that a ``Cookie`` header has for a name, as Latin-1, in its order.

    ``request.cookies`` raises ``UnicodeDecodeError`` if any cookie of the domain is not UTF-8.
    """
    wanted = name.encode("latin-1", "replace")
    for found, value in parse_cookie(header):
        if found == wanted:
            yield str(value, "latin-1")

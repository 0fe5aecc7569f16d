"""Cookies of a request, read by the rules of RFC 6265."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from pyramid.request import Request

_QUOTED = re.compile(r'\A"(.*)"\Z')


def cookie_values(request: Request, name: str) -> Iterable[str]:
    """Return the values that the cookies of a request have for a name, in the header's order."""
    header = request.environ.get("HTTP_COOKIE")
    if header is not None:
        return values_of(header, name) if name in header else ()
    value = request.cookies.get(name)  # a DummyRequest has its cookies in a dict
    return () if value is None else (value,)


def values_of(header: str, name: str) -> Iterator[str]:
    """Yield the values that a ``Cookie`` header has for a name, as Latin-1, in its order.

    In RFC 6265, only a semicolon ends a cookie. WebOb lets another cookie hide a value behind a
    quotation mark, or add a value after a comma. ``request.cookies`` raises
    ``UnicodeDecodeError`` if any cookie of the domain is not UTF-8.
    """
    for cookie in header.split(";"):
        found, _, value = cookie.partition("=")
        if found.strip() == name:
            yield _QUOTED.sub(r"\1", value.strip())

"""The cookie of the Perl application, which contains the id of the session."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from urllib.parse import unquote_to_bytes

from pyramid.request import Request

from ..web.cookies import cookie_values, values_of

log = logging.getLogger("pyramid_kvs.perlsess")

#: A longer value of the cookie is ignored.
LONGEST_VALUE = 1024


class IdCookie:
    """Finds the session id in a request's cookie.

    :param id_pattern: the regular expression that the whole id must match.
    """

    def __init__(self, name: str, id_pattern: str) -> None:
        self._name = name
        self._is_id = re.compile(id_pattern).fullmatch

    def find(self, request: Request) -> str | None:
        """Return the id, or ``None`` if there is no cookie, or its value cannot be an id.

        If there are several cookies with the name, the first one wins, as in Perl. The id is the
        value itself, or else the value with its percent-escapes decoded once, because CGI::Cookie
        writes them.
        """
        return self._first_id(cookie_values(request, self._name))

    def find_in(self, header: str | None) -> str | None:
        """Return the id in a ``Cookie`` header, as :meth:`find` does."""
        return self._first_id(values_of(header or "", self._name))

    def _first_id(self, values: Iterable[str]) -> str | None:
        value = next(iter(values), None)
        if not value:
            return None
        if len(value) <= LONGEST_VALUE:
            for candidate in (value, unquote_to_bytes(value).decode("latin-1")):
                if self._is_id(candidate):
                    return candidate
        log.warning("perlsess: the value of the cookie is not a session id (id_pattern)")
        return None

"""The session cookie: found in a request, and written as a header."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, TypeAlias

from pyramid.exceptions import ConfigurationError
from pyramid.request import Request
from webob.cookies import parse_cookie  # type: ignore[attr-defined]

from ..messages import show

Header: TypeAlias = "tuple[str, str]"

#: A word, as the ids of old and of other makers are; but no SHA-256, lest a dump of a store with
#: hashed keys logs anybody in.
POSSIBLE_ID = re.compile(r"(?![0-9a-f]{64}\Z)[A-Za-z0-9_-]{1,128}")
_NAME = re.compile(r"[A-Za-z0-9!#%&'*+.^_`|~-]+")
_RESERVED = frozenset(
    {"path", "comment", "domain", "max-age", "expires", "secure", "httponly", "samesite"}
)
_DOMAIN = re.compile(r"\.?[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")
_PATH = re.compile(r"/[\x20-\x3a\x3c-\x7e]*")
_ODD = re.compile(r'["\\,]')
_PAST = "; Max-Age=0; expires=Thu, 01 Jan 1970 00:00:00 GMT"


class SessionCookie:
    """Reads and writes one cookie, with attributes that are prepared once.

    :param options: the checked options of ``kvs.session``.
    :param setting: its name, for messages.
    :raises ConfigurationError: the options do not go together, or could break out of the header.
    """

    def __init__(self, options: Mapping[str, Any], setting: str) -> None:
        check_cookie(options, setting)
        self.name: str = options["key_name"]
        self._start = f"{self.name}="
        place, attributes = _place(options), _attributes(options)
        life = _max_age(options)
        self._secure: bool | None = _is_secure(options)
        self._written = {
            secure: f"{life}{place}{'; secure' * secure}{attributes}" for secure in (False, True)
        }
        self._expired = {
            secure: f"{_PAST}{place}{'; secure' * secure}{attributes}" for secure in (False, True)
        }

    def find(self, request: Request) -> str | None:
        """Return the session id that the request brought; ``None``: none, or no possible id."""
        header = request.environ.get("HTTP_COOKIE")
        if header is None:
            value = request.cookies.get(self.name)
        elif self.name not in header:
            return None
        else:
            value = self._plain_word(header) or self._last_value(header)
        return value if value is not None and POSSIBLE_ID.fullmatch(value) else None

    def _plain_word(self, header: str) -> str | None:
        """Find what WebOb would, at a tenth of its time, or return ``None`` where it may differ."""
        before, _, rest = header.partition(self._start)
        value, _, after = rest.partition(";")
        if self.name in after or self.name in before or _ODD.search(header):
            return None
        if before and not before.endswith((";", "; ")):
            return None
        return value if POSSIBLE_ID.fullmatch(value) else None

    def _last_value(self, header: str) -> str | None:
        # request.cookies raises UnicodeDecodeError for any cookie of the domain that is no UTF-8.
        found = None
        for name, value in parse_cookie(header):
            if name == self.name.encode():
                found = value.decode("latin-1")
        return found

    def header(self, request: Request, session_id: str) -> Header:
        """Return the header that gives the browser a session id."""
        return ("Set-Cookie", self._start + session_id + self._written[self._secured(request)])

    def expiry_header(self, request: Request) -> Header:
        """Return the header that makes the browser forget the cookie."""
        return ("Set-Cookie", self._start + self._expired[self._secured(request)])

    def is_ours(self, header: Header) -> bool:
        """Return whether a response header sets this cookie."""
        return header[0].lower() == "set-cookie" and header[1].startswith(self._start)

    def _secured(self, request: Request) -> bool:
        if self._secure is not None:
            return self._secure
        return getattr(request, "scheme", None) == "https"  # a DummyRequest has none


def _max_age(options: Mapping[str, Any]) -> str:
    seconds = options["cookie_max_age"] or options["ttl"]
    return "" if seconds is None else f"; Max-Age={math.ceil(seconds)}"


def _place(options: Mapping[str, Any]) -> str:
    path, domain = options["cookie_path"], options["cookie_domain"]
    return f"; Path={path}" + (f"; Domain={domain}" if domain else "")


def _attributes(options: Mapping[str, Any]) -> str:
    same_site = options["cookie_samesite"]
    http_only = "; HttpOnly" if options["cookie_httponly"] else ""
    return http_only + (f"; SameSite={same_site}" if same_site else "")


def _is_secure(options: Mapping[str, Any]) -> bool | None:
    """Return whether the cookie is secure; ``None``: when the request came by https."""
    prefixed = options["key_name"].startswith(("__Host-", "__Secure-"))
    if options["cookie_samesite"] == "None" or prefixed:
        return True
    secure: bool | None = options["cookie_secure"]
    return secure


def check_cookie(options: Mapping[str, Any], setting: str) -> None:
    """Refuse a cookie that browsers would, or whose attributes could add a header.

    :raises ConfigurationError: names the key, what was found, and what is allowed.
    """
    name, path, domain = options["key_name"], options["cookie_path"], options["cookie_domain"]
    if not isinstance(name, str):
        _refuse(setting, "key_name", name, "one name: a list is for session_type 'header'")
    if not _NAME.fullmatch(name) or name.lower() in _RESERVED:
        _refuse(setting, "key_name", name, "a cookie name: letters, digits, '-' and '_'")
    if not _PATH.fullmatch(path):
        _refuse(setting, "cookie_path", path, "a path that begins with '/', without ';'")
    if domain is not None and not _DOMAIN.fullmatch(domain):
        _refuse(setting, "cookie_domain", domain, "a host name, for example 'example.org'")
    if name.startswith("__Host-") and (domain is not None or path != "/"):
        _refuse(setting, "key_name", name, "no '__Host-' with a cookie_domain or another path")
    if options["cookie_secure"] is False and _is_secure(options):
        _refuse(
            setting,
            "cookie_secure",
            False,
            "true or null: browsers refuse SameSite=None and the name's prefix without Secure",
        )


def _refuse(setting: str, key: str, found: object, expected: str) -> None:
    raise ConfigurationError(f"{setting}: {key}: found {show(found)}, expected {expected}")

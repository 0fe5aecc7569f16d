"""The session id in a cookie."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from itertools import islice
from typing import Any

from pyramid.exceptions import ConfigurationError
from pyramid.request import Request

from ...kvs import new_tuple
from ...messages import show
from ...web.cookies import cookie_values
from ...web.headers import add_vary
from ..keys import SessionId, random_id
from ..lifetimes import is_remembered
from ..settings import BROWSER_SESSION
from ..state import StoreState
from .base import Carrier, Header

#: A word, because other applications may have made the id. Not a SHA-256, because an attacker
#: could otherwise log in with the keys of a store whose keys are hashed.
POSSIBLE_ID = re.compile(r"(?![0-9a-f]{64}\Z)[A-Za-z0-9_-]{1,128}")
_NAME = re.compile(r"[A-Za-z0-9!#%&'*+.^_`|~-]+")
_RESERVED_NAMES = frozenset(
    {"path", "comment", "domain", "max-age", "expires", "secure", "httponly", "samesite"}
)
_DOMAIN = re.compile(r"\.?[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")
_PATH = re.compile(r"/[\x20-\x3a\x3c-\x7e]*")
#: Each candidate costs a look-up, and a client can send as many as it likes.
_MOST_CANDIDATES = 8
#: RFC 6265 allows quotation marks around a value.
_PAST = "; Max-Age=0; expires=Thu, 01 Jan 1970 00:00:00 GMT"


class CookieCarrier(Carrier):
    """Reads and writes one cookie, whose attributes are prepared once.

    :param options: the checked options of ``kvs.session``.
    :param setting: its name, for messages.
    :raises ConfigurationError: the options contradict each other, or could break out of the
        header.
    """

    client_chooses = False

    def __init__(self, options: Mapping[str, Any], setting: str) -> None:
        super().__init__()
        _check(options, setting)
        self.vary = ["Cookie"]
        self._name: str = options["key_name"]
        self._start = f"{self._name}="
        self.refresh = options["cookie_refresh"]
        self._secure: bool | None = _is_secure(options)
        self._written = _rest(options, _with_max_age(_max_age(options)))
        self._expired = _rest(options, _PAST)
        #: ``None`` if sessions cannot be remembered.
        self._remembered: dict[bool, str] | None = None
        if options["remember_ttl"] is not None:
            self._remembered = _rest(options, _with_max_age(options["remember_ttl"]))

    def candidates(self, request: Request) -> list[SessionId]:
        # The only value of a usual header is found here, in a tenth of WebOb's time.
        before, _, rest = request.environ.get("HTTP_COOKIE", "").partition(self._start)
        value, _, after = rest.partition(";")
        is_only = self._name not in after and self._name not in before
        is_whole = not before or before.endswith((";", "; "))
        if not (is_only and is_whole and POSSIBLE_ID.fullmatch(value)):
            return self._possible_ids(request)
        return [] if value.endswith(self._reserved) else [new_tuple(SessionId, (value, ""))]

    def _possible_ids(self, request: Request) -> list[SessionId]:
        """Return the values that can be an id, without duplicates, and not more than 8.

        A browser sends the cookie with the longest path first.
        """
        possible = (
            value
            for value in cookie_values(request, self._name)
            if POSSIBLE_ID.fullmatch(value) and not value.endswith(self._reserved)
        )
        return [SessionId(value) for value in islice(dict.fromkeys(possible), _MOST_CANDIDATES)]

    def ids_of(self, value: str) -> list[SessionId]:
        return [SessionId(value)]

    def new_id(self) -> SessionId:
        return SessionId(random_id())

    def add_headers(
        self, request: Request, headers: list[Header], state: StoreState | None, is_due: bool
    ) -> None:
        """Set the cookie, expire it, or leave the cookie of a subrequest, which may be newer."""
        names = " ".join(dict(headers)).lower()  # to find a header without a loop
        if "vary" in names:
            add_vary(headers, "Cookie")
        else:
            headers.append(("Vary", "Cookie"))
        if state is None:
            return
        found, start = state.found, self._start
        if found is None:
            if not state.is_removed:
                self._take_back(headers, state)
                return
            value, attributes = "", self._expired
        elif is_due:
            value, attributes = found.session_id.value, self._written
            if self._remembered is not None and is_remembered(found.session_id):
                attributes = self._remembered
        else:
            return
        if "set-cookie" in names:
            others = _without_cookie(headers, start)
            if len(others) < len(headers) and self._is_older(request, state, headers):
                return
            headers[:] = others
        is_secure = self._secure
        if is_secure is None:
            is_secure = getattr(request, "scheme", None) == "https"  # a DummyRequest has none
        headers.append(("Set-Cookie", f"{start}{value}{attributes[is_secure]}"))

    def _take_back(self, headers: list[Header], state: StoreState) -> None:
        """Remove the cookie that another save of this request has set, if it has ended since."""
        if state.was_saved and state.session_id is not None:
            headers[:] = _without_cookie(headers, f"{self._start}{state.session_id.value};")

    def _is_older(self, request: Request, state: StoreState, headers: list[Header]) -> bool:
        """Return whether a state is older than the cookie that a response has already.

        A subrequest has set it, unless this request has saved the session before.
        """
        sent = self.candidates(request)
        if state.found is not None:
            return state.found.session_id in sent
        starts = (f"{self._start}{session_id.value};" for session_id in sent)
        is_sent = any(len(_without_cookie(headers, start)) < len(headers) for start in starts)
        return not state.was_saved and not is_sent


def _without_cookie(headers: list[Header], start: str) -> list[Header]:
    return [
        header
        for header in headers
        if not (header[1].startswith(start) and header[0].lower() == "set-cookie")
    ]


def _rest(options: Mapping[str, Any], max_age: str) -> dict[bool, str]:
    """Return the attributes of a cookie, without ``secure`` and with it."""
    place, attributes = max_age + _place(options), _attributes(options)
    return {secure: f"{place}{'; secure' * secure}{attributes}" for secure in (False, True)}


def _max_age(options: Mapping[str, Any]) -> float | None:
    """Return the Max-Age of an ordinary session; ``None`` if the cookie has none."""
    max_age = options["cookie_max_age"]
    if max_age == BROWSER_SESSION:
        return None
    return max_age or options["ttl"]  # type: ignore[no-any-return]


def _with_max_age(seconds: float | None) -> str:
    return "" if seconds is None else f"; Max-Age={math.ceil(seconds)}"


def _place(options: Mapping[str, Any]) -> str:
    path, domain = options["cookie_path"], options["cookie_domain"]
    return f"; Path={path}" + (f"; Domain={domain}" if domain else "")


def _attributes(options: Mapping[str, Any]) -> str:
    same_site = options["cookie_samesite"]
    http_only = "; HttpOnly" if options["cookie_httponly"] else ""
    return http_only + (f"; SameSite={same_site}" if same_site else "")


def _is_secure(options: Mapping[str, Any]) -> bool | None:
    """Return whether the cookie is secure; ``None`` if this depends on the request's scheme."""
    prefixed = options["key_name"].startswith(("__Host-", "__Secure-"))
    if options["cookie_samesite"] == "None" or prefixed:
        return True
    secure: bool | None = options["cookie_secure"]
    return secure


def _check(options: Mapping[str, Any], setting: str) -> None:
    """Refuse a cookie that browsers refuse, or whose attributes could add a header."""
    name, path, domain = options["key_name"], options["cookie_path"], options["cookie_domain"]
    if not isinstance(name, str):
        _refuse(setting, "key_name", name, "one name: a list is for session_type 'header'")
    if not _NAME.fullmatch(name) or name.lower() in _RESERVED_NAMES:
        _refuse(setting, "key_name", name, "a cookie name: letters, digits, '-' and '_'")
    if not _PATH.fullmatch(path):
        _refuse(setting, "cookie_path", path, "a path that begins with '/', without ';'")
    if domain is not None and not _DOMAIN.fullmatch(domain):
        _refuse(setting, "cookie_domain", domain, "a host name, for example 'example.org'")
    if name.startswith("__Host-") and (domain is not None or path != "/"):
        expected = "a name without '__Host-', or no cookie_domain and the cookie_path \"/\""
        _refuse(setting, "key_name", name, expected)
    _check_refresh(options, setting)
    _check_remember(options, setting)
    if options["cookie_secure"] is False and _is_secure(options):
        _refuse(
            setting,
            "cookie_secure",
            False,
            "true or null: browsers refuse SameSite=None and the name's prefix without Secure",
        )


def _check_refresh(options: Mapping[str, Any], setting: str) -> None:
    """Refuse a ``cookie_refresh`` that would let the cookie end while the session is in use."""
    refresh, ages = options["cookie_refresh"], (_max_age(options), options["remember_ttl"])
    for age in ages:
        if refresh is not None and age is not None and refresh >= age:
            expected = f"less than the cookie's Max-Age, which is {math.ceil(age)} seconds"
            _refuse(setting, "cookie_refresh", refresh, expected)


def _check_remember(options: Mapping[str, Any], setting: str) -> None:
    """Refuse a ``remember_ttl`` that ``absolute_ttl``, which ends all sessions, would cut short."""
    remember, absolute = options["remember_ttl"], options["absolute_ttl"]
    if None not in (remember, absolute) and remember > absolute:
        expected = (
            f"at most absolute_ttl, which ends remembered sessions too, after {absolute:g} seconds"
        )
        _refuse(setting, "remember_ttl", remember, expected)


def _refuse(setting: str, key: str, found: object, expected: str) -> None:
    raise ConfigurationError(f"{setting}: {key}: found {show(found)}, expected {expected}")

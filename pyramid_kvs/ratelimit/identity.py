"""Who is counted: the client's address, a session, a user, or what the application returns.

An identity is the first part of the key of a counter. It is a session key, or begins with ``@``,
which no session key does.
"""

from __future__ import annotations

import functools
import hashlib
import ipaddress
import logging
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

from pyramid.request import Request

from ..kvs import KVS, Stored
from ..logs import ThrottledLog
from ..messages import closest, quoted, reason
from .views.phases import is_without_view

log = ThrottledLog(logging.getLogger("pyramid_kvs.ratelimit"), interval=3600)

#: A word that may follow the name of a header. Anything else is hashed.
_WORD = r"[A-Za-z0-9._=~+/@-]+"
_PLAIN = re.compile(rf"{_WORD}|@?[A-Za-z0-9-]+::{_WORD}", re.ASCII)
_LONGEST = 64
_ADDRESS = "@address::"
UNKNOWN_ADDRESS = _ADDRESS + "none"


Address: TypeAlias = "ipaddress.IPv4Address | ipaddress.IPv6Address"

#: A key in the store of the sessions, the ttl that a read gives it, and the key to count under.
Lookup: TypeAlias = "tuple[str, float | None, str]"


class SessionSource(Protocol):
    """What the limiter needs of a session factory."""

    driver: KVS

    def lookups(self, request: Request) -> Sequence[Lookup]:
        """Return the reads of which the first that finds something finds the session."""

    def keys_of(self, session_id: str) -> list[str]:
        """Return the keys that a session with this id or token may have."""

    def reserve(self, suffix: str) -> None:
        """Refuse session ids that end with a suffix."""

    def preload(self, request: Request, key: str, stored: Stored | None) -> bool:
        """Let the request's session use what was loaded; return whether the session is known."""


#: Who a request is counted for, if its session is known or not; ``None`` means nobody.
Identity: TypeAlias = "tuple[str | None, str | None]"

#: Returns the identity of a request and of its session key, which is ``None`` without a session.
Identify = Callable[[Request, "str | None"], Identity]
#: Returns who is counted for a request without the value that ``by`` names.
Fallback = Callable[[Request], "str | None"]
NOBODY: Identity = (None, None)


def identify_by(by: str, unknown: str, resolve: Callable[[str], Any]) -> Identify:
    """Return the function for a limit's ``by`` and ``unknown``.

    :param resolve: imports a dotted name.
    :raises ValueError: ``by`` is not a known word, a header or a callable.
    """
    if by == "session":
        return _BY_SESSION[unknown]
    if by == "address":
        return lambda request, session_key: _only(address(request))
    fallback = fallback_of(unknown)
    if by == "user":
        return _if_a_view_is_found(_or(_user, fallback), fallback)
    if by.startswith("header:"):
        return _or(_header(by.removeprefix("header:")), fallback)
    return _if_a_view_is_found(_callable(by, resolve), fallback)


def is_late(by: str) -> bool:
    """Return whether ``by`` must not be asked before routing and traversal.

    A security policy may look at ``request.matched_route`` and ``request.context``, and may keep
    its answer for the rest of the request. Callables are code of the application, too.
    """
    return by not in ("session", "address") and not by.startswith("header:")


def fallback_of(unknown: str) -> Fallback:
    """Return the function for a limit's ``unknown``, for requests without a session."""
    return _nobody if unknown == "allow" else address


def address(request: Request) -> str:
    """Return the identity of a client by its address; all addresses of an IPv6 /64 share one."""
    found = client_address(request)
    if not found:
        log.warning(
            "requests have no client address (REMOTE_ADDR), as behind a unix socket: all clients "
            "without a session share one rate limit; let the WSGI server take it from its proxy"
        )
        return UNKNOWN_ADDRESS
    return address_of(found)


@functools.lru_cache(maxsize=4096)
def address_of(found: str) -> str:
    """Return the identity of an address: IPv6 as its /64, and an IPv4-mapped one as IPv4."""
    parsed = parse_address(found)
    if parsed is None:
        return plain(_ADDRESS + found)
    if isinstance(parsed, ipaddress.IPv6Address):
        return f"{_ADDRESS}{ipaddress.IPv6Network((parsed, 64), strict=False)}"
    return f"{_ADDRESS}{parsed}"


def client_address(request: Request) -> str | None:
    """Return the client's address; ``None`` if the server, or a DummyRequest, has none."""
    return getattr(request, "remote_addr", None)


def parse_address(found: str) -> Address | None:
    """Parse an address without its zone, an IPv4-mapped one as IPv4; ``None`` for other strings."""
    try:
        parsed = ipaddress.ip_address(found.partition("%")[0])
    except ValueError:
        return None
    return getattr(parsed, "ipv4_mapped", None) or parsed


def plain(identity: str) -> str:
    """Return an identity as it is in keys: hashed if it is long or has special characters."""
    if len(identity) <= _LONGEST and _PLAIN.fullmatch(identity):
        return identity
    return "sha256:" + hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()


def _only(identity: str | None) -> Identity:
    return identity, identity


def _nobody(request: Request) -> None:
    return None


def _session_or_address(request: Request, session_key: str | None) -> Identity:
    found = getattr(request, "remote_addr", None)
    where = address_of(found) if found else address(request)  # nearly always without one more call
    return where if session_key is None else plain(session_key), where


def _session_as_sent(request: Request, session_key: str | None) -> Identity:
    return _only(address(request) if session_key is None else plain(session_key))


def _session_if_known(request: Request, session_key: str | None) -> Identity:
    return NOBODY if session_key is None else (plain(session_key), None)


_BY_SESSION: dict[str, Identify] = {
    "address": _session_or_address,
    "session": _session_as_sent,
    "allow": _session_if_known,
}


def _or(find: Callable[[Request], str | None], fallback: Fallback) -> Identify:
    def identify(request: Request, session_key: str | None) -> Identity:
        return _only(find(request) or fallback(request))

    return identify


def _if_a_view_is_found(identify: Identify, fallback: Fallback) -> Identify:
    def identify_late(request: Request, session_key: str | None) -> Identity:
        if is_without_view(request):
            return _only(fallback(request))
        return identify(request, session_key)

    return identify_late


def _user(request: Request) -> str | None:
    userid = request.authenticated_userid
    return None if userid is None else plain(f"@user::{userid}")


def _header(name: str) -> Callable[[Request], str | None]:
    if not re.fullmatch(r"[A-Za-z0-9-]+", name):
        raise ValueError(f"{quoted(name)} is not the name of a header")
    variable = "HTTP_" + name.upper().replace("-", "_")

    def find(request: Request) -> str | None:
        value = request.environ.get(variable)
        return plain(f"@header::{name.lower()}::{value}") if value else None

    return find


def _callable(by: str, resolve: Callable[[str], Any]) -> Identify:
    try:
        found = resolve(by)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{quoted(by)} cannot be imported: {_missing(by, error)}") from error
    if not callable(found):
        raise ValueError(f"{by} is {quoted(found)}, which cannot be called")

    def identify(request: Request, session_key: str | None) -> Identity:
        identity = found(request)
        if identity is None:
            return NOBODY
        if not isinstance(identity, str):
            raise TypeError(f"{by} returned {type(identity).__name__}, expected a string or None")
        return _only(plain(f"@by::{identity}"))

    return identify


def _missing(by: str, error: Exception) -> str:
    """Return what a dotted name names that does not exist, and the closest match."""
    module, _, name = by.replace(":", ".").rpartition(".")
    if module in sys.modules:
        names = [known for known in dir(sys.modules[module]) if not known.startswith("_")]
        return f"the module {module} has no {quoted(name)}{closest(name, names)}"
    kind, colon, header = by.partition(":")
    is_header = colon and closest(kind, ["header"])
    return reason(error) + (f"; did you mean {quoted(f'header:{header}')}?" if is_header else "")

"""Session tokens in a request header, which the client chooses."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pyramid.exceptions import ConfigurationError
from pyramid.request import Request

from ...messages import show
from ...web.headers import add_vary
from ..keys import LOOKS_HASHED, SessionId
from ..state import StoreState
from .base import Carrier, Header

_LONGEST_TOKEN = 8192
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


class HeaderCarrier(Carrier):
    """Reads a token from the first of some headers that the request has.

    :param names: the name of the header, or a list of names.
    :param setting: the name of the setting, for messages.
    :raises ConfigurationError: a name cannot be the name of a header.
    """

    client_chooses = True

    def __init__(self, names: str | list[str], setting: str) -> None:
        super().__init__()
        self.vary = _checked_names(names, setting)
        #: In lower case.
        self._names = [name.lower() for name in self.vary]
        self._variables = [
            (name, "HTTP_" + name.upper().replace("-", "_"), f"{name}::") for name in self._names
        ]

    def candidates(self, request: Request) -> list[SessionId]:
        for name, variable, scope in self._variables:
            token = request.environ.get(variable) or _in_lower_case(request.headers).get(name)
            if token is not None:
                token = token.strip()
                if self._is_token(token):
                    return [SessionId(token, scope)]
        return []

    def ids_of(self, value: str) -> list[SessionId]:
        return [SessionId(value, scope) for _, _, scope in self._variables]

    def session_id(self, header_name: str, token: str) -> SessionId:
        """Return the session id of a token.

        :param header_name: in any case, with ``_`` or ``-``.
        :raises ValueError: ``kvs.session`` does not name the header, or the token is not valid.
        """
        name = header_name.lower().replace("_", "-")
        if name not in self._names:
            raise ValueError(f"header {header_name!r}: kvs.session reads {', '.join(self._names)}")
        if not self._is_token(token):
            raise ValueError(
                f"a token is a string of 1 to {_LONGEST_TOKEN} characters, "
                "without control characters"
            )
        return SessionId(token, f"{name}::")

    def new_id(self) -> None:
        return None

    def add_headers(
        self, request: Request, headers: list[Header], state: StoreState | None, is_due: bool
    ) -> None:
        """Add ``Vary``: the client has chosen the token and keeps it."""
        for name in self.vary:
            add_vary(headers, name)

    def _is_token(self, value: object) -> bool:
        return (
            isinstance(value, str)
            and 0 < len(value) <= _LONGEST_TOKEN
            and _CONTROL.search(value) is None
            and LOOKS_HASHED.fullmatch(value) is None
            and not value.endswith(self._reserved)
        )


def _checked_names(names: str | list[str], setting: str) -> list[str]:
    listed = [names] if isinstance(names, str) else names
    for name in listed:
        if not _NAME.fullmatch(name):
            raise ConfigurationError(
                f"{setting}: key_name: found {show(name)}, expected the name of a header"
            )
    return [name.replace("_", "-") for name in listed]


def _in_lower_case(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return headers that are found by a name in lower case; a DummyRequest's are a dict."""
    if not isinstance(headers, dict):
        return headers
    return {name.lower().replace("_", "-"): value for name, value in headers.items()}

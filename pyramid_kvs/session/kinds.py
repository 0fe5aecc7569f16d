"""The two kinds of session: by a cookie, and by a token in a header."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

from pyramid.request import Request
from pyramid.response import Response

from ..exceptions import KVSNotSupported
from ..kvs import Stored
from .mapping import new_id
from .objects import Session
from .store import LOOKS_HASHED

if TYPE_CHECKING:
    from . import SessionFactory

log = logging.getLogger("pyramid_kvs.session")

_LONGEST_TOKEN = 8192
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class CookieSession(Session):
    """A session whose id lies in a cookie."""

    __slots__ = ()

    def _find_secret(self) -> str | None:
        return self._factory.find_id(self._request)

    def _home(self) -> str:
        if self._key is None:
            self._secret = new_id()
            self._key = self._factory.keys.home("", self._secret)
        return self._key

    def _restart(self) -> None:
        super()._restart()
        self._secret = None

    def _find_moved(self, key: str) -> Stored | None:
        was_here = self._old is not None and self._old.key in self._lookup_keys()
        return super()._find_moved(key) if was_here else None

    def _add_headers(self, response: Response) -> None:
        cookie, headers = self._factory.cookie, response.headerlist
        if self._is_saved or self._exists or self._forget:
            headers[:] = [header for header in headers if not cookie.is_ours(header)]
        if self._exists and self._secret is not None:
            headers.append(cookie.header(self._request, self._secret))
        elif self._forget:
            headers.append(cookie.expiry_header(self._request))


class AuthTokenSession(Session):
    """A session whose key is a token that the client sends in a header."""

    __slots__ = ("_name",)

    def __init__(self, request: Request, factory: SessionFactory) -> None:
        self._name: str | None = None
        super().__init__(request, factory)

    def update_session_token(self, header_name: str, value: str) -> None:
        """Go on under a new token, to which the data move; the old record is removed.

        :param header_name: in any case, ``_`` as ``-``.
        :raises ValueError: the header is not among ``key_name``, or the value is no token.
        """
        name = header_name.lower().replace("_", "-")
        if name not in self._factory.header_names:
            raise ValueError(
                f"header {header_name!r}: kvs.session reads {', '.join(self._factory.header_names)}"
            )
        if not self._factory.takes_token(value):
            raise ValueError(
                f"a token is a text of 1 to {_LONGEST_TOKEN} characters, none a control character"
            )
        self._use()
        if (name, value) != (self._name, self._secret):
            self._leave_key()
            self._name, self._secret = name, value
            self._key = self._factory.keys.home(self._scope(), value)

    def regenerate_id(self) -> None:
        raise KVSNotSupported(
            "the client chooses the token of a header session: use update_session_token()"
        )

    def _find_secret(self) -> str | None:
        self._name, token = self._factory.find_token(self._request)
        return token

    def _scope(self) -> str:
        return f"{self._name}::"

    def _home(self) -> str | None:
        if self._key is None and self._secret is not None:
            self._key = self._factory.keys.home(self._scope(), self._secret)
        return self._key

    def _find_moved(self, key: str) -> Stored | None:
        if self._old is not None and self._old.key in self._lookup_keys():
            return super()._find_moved(key)
        return self._factory.store.find_moved(key, self._meta)

    def _drop_without_key(self) -> None:
        log.warning(
            "a session was changed in a request without the header %s: the change is dropped",
            " or ".join(self._factory.header_names),
        )
        self._forget_changes()


def is_token(value: object) -> bool:
    """Return whether a header's value may name a session."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= _LONGEST_TOKEN
        and _CONTROL.search(value) is None
        and LOOKS_HASHED.fullmatch(value) is None
    )

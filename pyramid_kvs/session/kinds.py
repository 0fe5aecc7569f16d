"""The two kinds of sessions, which differ in how they get another id."""

from __future__ import annotations

from typing import cast

from ..exceptions import KVSNotSupported
from .carriers import HeaderCarrier
from .csrf import renew_token_of_policy
from .lifetimes import is_remembered, remembered_id
from .mapping import CSRF_TOKEN
from .session import Session


class CookieSession(Session):
    """A session whose id is in a cookie."""

    __slots__ = ()

    def regenerate_id(self) -> None:
        """Go on under a new id, with a new CSRF token, when the response is sent.

        From then on, the old id is unknown. Slower requests that have it save nothing.
        """
        if CSRF_TOKEN in self._use():
            self.new_csrf_token()
        renew_token_of_policy(self._request, self)
        self._move_to(remembered_id() if is_remembered(self._state.session_id) else None)

    def remember(self, on: bool = True) -> None:
        """Let the session live for ``remember_ttl`` instead of ``ttl``, from the response on.

        This gives it a new id, like :meth:`regenerate_id`. It lasts until ``remember(False)`` or
        :meth:`invalidate`.

        :raises KVSNotSupported: the setting has no ``remember_ttl``.
        """
        if self.backend.store.lifetimes.remember_ttl is None:
            raise KVSNotSupported(
                "kvs.session does not say how long a session is remembered: set remember_ttl in "
                "seconds, for example 2592000 for 30 days"
            )
        self._use()
        if is_remembered(self._state.session_id) != on:
            self._move_to(remembered_id() if on else None)


class AuthTokenSession(Session):
    """A session whose key is a token that the client sends in a header."""

    __slots__ = ()

    def update_session_token(self, header_name: str, value: str) -> None:
        """Go on under a new token, to which the data move. The old token has no session then.

        :param header_name: in any case, with ``_`` or ``-``.
        :raises ValueError: ``key_name`` does not name the header, or the value is not a token.
        """
        session_id = cast("HeaderCarrier", self.backend.carrier).session_id(header_name, value)
        self._use()
        if session_id != self._state.session_id:
            self._move_to(session_id)

    def regenerate_id(self) -> None:
        raise KVSNotSupported(
            "the client chooses the token of a header session: use update_session_token()"
        )

    def remember(self, on: bool = True) -> None:
        raise KVSNotSupported(
            "a header session cannot be remembered, because its client keeps the token: set ttl in "
            "kvs.session"
        )

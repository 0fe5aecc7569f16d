"""The interface of the carriers of session ids."""

from __future__ import annotations

from typing import TypeAlias

from pyramid.request import Request

from ..keys import SessionId
from ..state import StoreState

Header: TypeAlias = "tuple[str, str]"


class Carrier:
    """Finds the session id in a request, and tells the client what became of the session."""

    #: The request headers on which responses depend.
    vary: list[str]
    #: Whether clients choose their ids, so that an unknown id is the id of an empty session.
    client_chooses: bool
    #: How many seconds to wait until the client is told an id again that it knows; ``None`` means
    #: that every response tells it.
    refresh: float | None = None

    def __init__(self) -> None:
        self._reserved: tuple[str, ...] = ()

    def reserve(self, suffix: str) -> None:
        """Refuse session ids that end with a suffix."""
        self._reserved += (suffix,)

    def candidates(self, request: Request) -> list[SessionId]:
        """Return the valid ids that the client sent, in the order in which they are tried."""
        raise NotImplementedError

    def ids_of(self, value: str) -> list[SessionId]:
        """Return the session ids that have a value."""
        raise NotImplementedError

    def adopt(self, session_id: SessionId | None) -> SessionId | None:
        """Return the id of an empty session whose client sent this id.

        It is ``None`` if the session needs a new id. A client that could choose its id could also
        make another browser use it (session fixation).
        """
        return session_id if self.client_chooses else None

    def new_id(self) -> SessionId | None:
        """Return a new id; ``None`` if clients choose their ids."""
        raise NotImplementedError

    def add_headers(
        self, request: Request, headers: list[Header], state: StoreState | None, is_due: bool
    ) -> None:
        """Tell the client the id of its session, or that the session was removed, and add ``Vary``.

        :param headers: of the response.
        :param state: ``None`` if there is nothing to tell, because the save has failed.
        :param is_due: whether to tell an id that the client knows.
        """
        raise NotImplementedError

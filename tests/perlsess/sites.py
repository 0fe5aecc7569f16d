"""Perl applications and Pyramid applications that use the same sessions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response
from webtest import TestApp

from pyramid_kvs.kvs import KVS
from pyramid_kvs.perlsess import perlsess_of
from tests.storable.perl import run_perl

SESSIONS = Path(__file__).with_name("sessions.pl")

View = Callable[[Request], Any]


class PerlSite:
    """A Perl application that keeps its sessions in a store."""

    def __init__(self, perl: str, kind: str, address: str) -> None:
        self._words = (perl, str(SESSIONS), kind, address)

    def login(self, session_id: str = "0" * 32) -> str:
        """Start a session and return its id, which some modules choose themselves."""
        return run_perl(*self._words, "login", session_id).decode()

    def show(self, session_id: str) -> dict[str, Any]:
        """Return the session as Perl reads it."""
        return json.loads(run_perl(*self._words, "show", session_id))

    def set(self, session_id: str, key: str, value: str) -> None:
        """Change the session."""
        run_perl(*self._words, "set", session_id, key, value)


class Site:
    """A Pyramid application with ``kvs.perlsess``, and a browser in front of it.

    Each request calls the view that the test passes. Its result is the JSON of the response.
    """

    def __init__(
        self, setting: dict[str, Any], configure: Callable[[Configurator], Any] | None = None
    ) -> None:
        self.view: View = lambda request: None
        config = Configurator(settings={"kvs.perlsess": setting})
        config.include("pyramid_kvs")
        if configure is not None:
            configure(config)
        config.add_view(self._answer)
        config.commit()
        self.registry = config.registry
        self.app = TestApp(config.make_wsgi_app())
        self.cookie_name = setting.get("cookie_name", "session_id")

    def _answer(self, request: Request) -> Response:
        return Response(json=self.view(request), request=request)

    @property
    def driver(self) -> KVS:
        """The driver of the store that contains the sessions."""
        return perlsess_of(self.registry).driver

    def get(self, view: View, session_id: str | None = None, **options: Any) -> Any:
        """Send a request with the session's cookie and return the response."""
        self.view = view
        headers = {} if session_id is None else {"Cookie": f"{self.cookie_name}={session_id}"}
        return self.app.get("/", headers=headers, **options)

    def read(self, session_id: str | None = None) -> Any:
        """Return the session as a view sees it, with bytes marked."""
        return self.get(lambda request: as_json(dict(request.perlsess)), session_id).json


def as_json(value: Any) -> Any:
    """Return a value with its bytes marked."""
    if isinstance(value, bytes):
        return {"bytes": value.decode("latin-1")}
    if isinstance(value, dict):
        return {as_key(key): as_json(item) for key, item in value.items()}
    return [as_json(item) for item in value] if isinstance(value, list) else value


def as_key(key: str | bytes) -> str:
    return key if isinstance(key, str) else f"bytes {key.decode('latin-1')}"

"""Real WSGI servers that serve a test's application: uWSGI, gunicorn, waitress."""

from __future__ import annotations

import http.client
import signal
import sys
from pathlib import Path

from tests.servers import Server

ROOT = Path(__file__).parent.parent


class WebServer(Server):
    """A WSGI server.

    :param application: ``package.module:name`` of a WSGI application in the tests.
    :param environment: variables for the application.
    """

    def __init__(self, application: str, *extra: str, **environment: str) -> None:
        super().__init__(*extra)
        self.application = application
        self.environment = {"PYTHONPATH": str(ROOT), **environment}

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def is_ready(self) -> bool:
        return self.get("/ready")[0] == 200

    def get(self, path: str, **headers: str) -> tuple[int, bytes]:
        """Return status and body of a page, by a new connection."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=20)
        try:
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


class Uwsgi(WebServer):
    """uWSGI with its defaults: the master loads the application, then forks in C."""

    program = "uwsgi"
    stop_signal = signal.SIGQUIT

    def arguments(self) -> list[str]:
        module, _, name = self.application.partition(":")
        return [
            "--http-socket", f"{self.host}:{self.port}", "--master", "--processes", "4",
            "--module", module, "--callable", name, "--need-app", "--die-on-term",
            "--virtualenv", sys.prefix,
        ]  # fmt: skip


class Gunicorn(WebServer):
    """gunicorn with four workers, of the application loaded before the fork."""

    program = "gunicorn"

    def arguments(self) -> list[str]:
        return [
            "--bind", f"{self.host}:{self.port}", "--workers", "4", "--preload",
            self.application,
        ]  # fmt: skip


class Waitress(WebServer):
    """waitress with one process, as ``pserve`` starts it."""

    program = "waitress-serve"

    def arguments(self) -> list[str]:
        return ["--listen", f"{self.host}:{self.port}", self.application]

"""The examples of ``docs/events.rst``: an audit log, and mails about an outage."""

from __future__ import annotations

import importlib
import logging
import socketserver
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.request import Request
from webtest import TestApp

from tests.servers import LOOPBACK, RedisServer, wait_until
from tests.test_docs import ROOT, blocks


class Mail(socketserver.StreamRequestHandler):
    """Takes one mail by SMTP."""

    server: MailServer

    def handle(self) -> None:
        self.wfile.write(b"220 ready\r\n")
        while line := self.rfile.readline():
            command = line[:4].upper()
            if command == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                self.server.mails.append(self._read_message())
            self.wfile.write(b"221 bye\r\n" if command == b"QUIT" else b"250 ok\r\n")

    def _read_message(self) -> str:
        lines = []
        while (line := self.rfile.readline()) not in (b".\r\n", b""):
            lines.append(line.decode())
        return "".join(lines)


class MailServer(socketserver.ThreadingTCPServer):
    """A server on a free port, with the mails that it got."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__((LOOPBACK, 0), Mail)
        self.mails: list[str] = []


@pytest.fixture
def mail_server() -> Iterator[MailServer]:
    with MailServer() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def example(
    mail_server: MailServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> types.ModuleType:
    """Return a module with the code of the page."""
    code = [block.text for block in blocks(ROOT / "docs/events.rst") if block.language == "python"]
    assert len(code) == 2
    host, port = mail_server.server_address[:2]
    text = "\n\n".join(code).replace('SMTP("localhost")', f'SMTP("{host!s}", {port})')
    (tmp_path / "events_example.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "events_example", raising=False)
    return importlib.import_module("events_example")


def log_in(request: Request) -> str:
    request.session.regenerate_id()
    request.session["user"] = "ann"
    return "in"


def log_out(request: Request) -> str:
    request.session.invalidate()
    return "out"


def start_session(request: Request) -> str:
    request.session["seen"] = True
    return "seen"


def build(example: Any, **settings: Any) -> TestApp:
    config = Configurator(settings={f"kvs.{name}": value for name, value in settings.items()})
    config.include("pyramid_kvs")
    for view in (start_session, log_in, log_out):
        config.add_route(view.__name__, f"/{view.__name__}")
        config.add_view(view, route_name=view.__name__, renderer="string")
    config.scan(example)
    return TestApp(config.make_wsgi_app(), extra_environ={"REMOTE_ADDR": "192.0.2.7"})


def test_the_audit_log(example: types.ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "myapp.audit")
    limit = {"limit": 3, "window": 60, "name": "pages"}
    app = build(example, session={"kvs": "memory"}, ratelimit=limit)
    for path in ("start_session", "log_in", "log_out"):
        app.get(f"/{path}")
    for _ in range(5):
        app.get("/start_session", status="*")
    assert [record.getMessage() for record in caplog.records if record.name == "myapp.audit"] == [
        "login of ann from 192.0.2.7",
        "end of a session (invalidated) from 192.0.2.7",
        "limit pages exceeded by 192.0.2.7",
    ]


def test_a_mail_about_an_outage(
    example: types.ModuleType, mail_server: MailServer, own_redis: Any
) -> None:
    server: RedisServer = own_redis()
    app = build(example, session={"kvs": "redis", "kvs_kwargs": {"port": server.port}})
    app.get("/start_session")
    server.kill()
    app.get("/start_session", status=503)
    wait_until(lambda: len(mail_server.mails) == 1, "the first mail")
    server.start()
    app.get("/start_session")
    wait_until(lambda: len(mail_server.mails) == 2, "the second mail")
    first, second = mail_server.mails
    assert f"redis at localhost:{server.port} is unavailable" in first
    assert f"redis at localhost:{server.port} is back" in second

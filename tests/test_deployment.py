"""The configurations of the deployment page, on the servers that they are for."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .docpages import ROOT, blocks, commands
from .servers import LOOPBACK, RedisServer, free_port, wait_until

CLIENT = "198.51.100.7"
APPLICATION = """
from pyramid.config import Configurator


def main(global_config, **settings):
    config = Configurator(settings=settings)
    config.add_route("home", "/")
    config.add_view(home, route_name="home", renderer="json")
    return config.make_wsgi_app()


def home(request):
    request.session.incr("visits")
    return {"address": request.remote_addr, "scheme": request.scheme}
"""
PAGE = [*blocks(ROOT / "docs" / "deployment.rst")]


def file(name: str) -> str:
    (block,) = [block for block in PAGE if block.caption == name]
    return block.text


def command(program: str) -> str:
    (found,) = [
        line
        for block in PAGE
        if block.language == "console"
        for line, _ in commands(block)
        if program in line
    ]
    return found


class Deployed:
    """An application in a folder, served as the page says."""

    def __init__(self, folder: Path, redis: RedisServer) -> None:
        self.folder = folder
        self.port = free_port()
        self.redis = redis
        self.process: subprocess.Popen[bytes] | None = None
        self.log = folder / "log"
        (folder / "app.py").write_text(APPLICATION)

    def write(self, name: str, *captions: str) -> None:
        text = "\n".join(file(caption) for caption in captions)
        text = text.replace("use = egg:myapp", "paste.app_factory = app:main")
        text = text.replace("6543", str(self.port)).replace("6379", str(self.redis.port))
        (self.folder / name).write_text(text)

    def start(self, line: str) -> None:
        program, *arguments = shlex.split(line.replace("6543", str(self.port)))
        path = shutil.which(Path(program).name, path=str(Path(sys.executable).parent))
        assert path, program
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [path, *arguments],
                cwd=self.folder,
                env={"PYTHONPATH": f"{self.folder}:{ROOT}", "PATH": "/usr/bin:/bin"},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(self.is_ready, line)

    def is_ready(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex((LOOPBACK, self.port)) == 0

    def stop(self) -> None:
        """End the server. uWSGI can miss a SIGTERM while it starts its workers."""
        if self.process:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def by_http(self) -> dict[str, str]:
        """Ask as nginx does with ``proxy_pass``; return what the application saw."""
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=30)
        headers = {"X-Forwarded-For": CLIENT, "X-Forwarded-Proto": "https"}
        connection.request("GET", "/", headers={"Host": "shop.example.org", **headers})
        response = connection.getresponse()
        page = response.read()
        connection.close()
        assert response.status == 200, self.log.read_text()
        return {**json.loads(page), "cookie": response.headers["Set-Cookie"]}

    def by_uwsgi(self) -> dict[str, str]:
        """Ask as nginx does with ``uwsgi_pass`` and its ``uwsgi_params``."""
        names = {
            "REQUEST_METHOD": "GET", "REQUEST_URI": "/", "PATH_INFO": "/", "QUERY_STRING": "",
            "REMOTE_ADDR": CLIENT, "HTTPS": "on", "REQUEST_SCHEME": "https",
            "SERVER_PROTOCOL": "HTTP/1.1", "SERVER_NAME": "shop.example.org", "SERVER_PORT": "443",
            "HTTP_HOST": "shop.example.org",
        }  # fmt: skip
        body = b"".join(
            struct.pack("<H", len(word)) + word.encode() for pair in names.items() for word in pair
        )
        with socket.create_connection((LOOPBACK, self.port), timeout=30) as client:
            client.sendall(struct.pack("<BHB", 0, len(body), 0) + body)
            answer = b"".join(iter(lambda: client.recv(65536), b"")).decode()
        head, _, page = answer.partition("\r\n\r\n")
        assert " 200 " in head.splitlines()[0], answer + self.log.read_text()
        cookie = re.search(r"(?i)^set-cookie: (.*)$", head, re.MULTILINE)
        assert cookie
        return {**json.loads(page), "cookie": cookie[1].strip()}


@pytest.fixture
def deployed(tmp_path: Path, redis_server: RedisServer) -> Iterator[Deployed]:
    found = Deployed(tmp_path, redis_server)
    try:
        yield found
    finally:
        found.stop()


def check(seen: dict[str, str]) -> None:
    assert seen["address"] == CLIENT
    assert seen["scheme"] == "https"
    assert "; secure" in seen["cookie"].lower()


def test_waitress_behind_a_proxy(deployed: Deployed) -> None:
    deployed.write("production.ini", "production.ini", "production.ini, with waitress")
    deployed.start(command("pserve"))
    check(deployed.by_http())


def test_gunicorn_behind_a_proxy(deployed: Deployed) -> None:
    deployed.write("production.ini", "production.ini", "production.ini, with gunicorn")
    deployed.start(command("gunicorn"))
    check(deployed.by_http())


def test_uwsgi_behind_a_proxy(deployed: Deployed) -> None:
    deployed.write("production.ini", "production.ini")
    deployed.write("uwsgi.ini", "uwsgi.ini")
    deployed.start(command("uwsgi"))
    check(deployed.by_uwsgi())


def test_uwsgi_that_loads_the_application_in_each_process(deployed: Deployed) -> None:
    deployed.write("production.ini", "production.ini")
    deployed.write("uwsgi.ini", "uwsgi.ini")
    with (deployed.folder / "uwsgi.ini").open("a") as settings:
        settings.write("lazy-apps = true\n")
    deployed.start(command("uwsgi"))
    check(deployed.by_uwsgi())

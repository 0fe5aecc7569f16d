"""Follow the page "Getting started" in an empty folder, command by command, and the README."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from urllib.request import HTTPCookieProcessor, build_opener

import pytest

from .docpages import ROOT, Block, blocks, commands
from .servers import LOOPBACK, RedisServer, free_port, wait_until

PAGE = ROOT / "docs" / "getting_started.rst"
#: What differs from run to run: the page shows one example.
VARIES = re.compile(r"(?<=PID )\d+|\d+\.\d+(?= ms)")
PIP = "env/bin/pip install"
PROGRAMS = {"pserve": "pyramid.scripts.pserve", "pkvs": "pyramid_kvs.scripts.pkvs"}


class Reader:
    """Someone who does what the page says, in two terminals.

    Ports are free ones instead of those on the page. Without the network, that is if ``CI`` is not
    set, ``pip install`` is replaced by links to the packages that these tests use.
    """

    def __init__(self, folder: Path, ports: dict[str, str]) -> None:
        self.folder = folder
        self.ports = ports
        self.server: subprocess.Popen[str] | None = None
        unwanted = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
        self.environment = {k: v for k, v in os.environ.items() if k not in unwanted}
        self.environment["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"

    def follow(self, block: Block) -> None:
        """Write the file of a block, or run its commands and compare what they print."""
        if block.language == "console":
            for command, output in commands(block):
                found = self.run(self.local(command))
                assert _comparable(found) == _comparable(self.local(output)), block.place
        else:
            name, _, part = block.caption.partition(" ")
            self.write(self.folder / name, self.local(block.text), part == "(one line)")

    def local(self, text: str) -> str:
        for port, own in self.ports.items():
            text = text.replace(port, own)
        return text

    def write(self, path: Path, text: str, one_line: bool) -> None:
        if one_line:
            key = re.escape(text.partition("=")[0])
            text, count = re.subn(rf"^{key}=.*\n", text, path.read_text(), flags=re.MULTILINE)
            assert count == 1
        path.write_text(text)

    def run(self, command: str) -> str:
        if command.startswith("cd "):
            self.folder /= command.removeprefix("cd ")
            return ""
        if "pserve" in command:
            return self.serve(command)
        if command.startswith(PIP):
            return self.install(command)
        if command == "python3 -m venv env" and not importlib.util.find_spec("ensurepip"):
            command = "python3 -m venv --without-pip env"
        return self.shell(command)

    def shell(self, command: str) -> str:
        done = subprocess.run(
            command, shell=True, cwd=self.folder, env=self.environment, text=True, timeout=300,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        return done.stdout

    def install(self, command: str) -> str:
        if "CI" in os.environ:
            pip = f"{sys.executable} -m pip --python env/bin/python install"
            self.shell(command.replace(PIP, pip))  # it may print notices about itself
            return ""
        *_, checkout, other = command.split()
        assert (self.folder / checkout / "setup.cfg").exists()
        importlib.metadata.distribution(other)
        self.link(self.folder / checkout)
        return ""

    def link(self, checkout: Path) -> None:
        environment = self.folder / "env"
        (packages,) = environment.glob("lib/python*/site-packages")
        places = [checkout.resolve(), sysconfig.get_path("purelib")]
        (packages / "linked.pth").write_text("".join(f"{place}\n" for place in places))
        for name, module in PROGRAMS.items():
            script = environment / "bin" / name
            script.write_text(
                f"#!{environment}/bin/python\n"
                f"import sys\nfrom {module} import main\nsys.exit(main())\n"
            )
            script.chmod(0o755)

    def serve(self, command: str) -> str:
        self.stop()
        self.start(command)
        assert self.server is not None
        assert self.server.stdout is not None
        return self.server.stdout.readline()

    def start(self, command: str) -> None:
        self.server = subprocess.Popen(
            f"exec env {command}", shell=True, cwd=self.folder, env=self.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        wait_until(self.listening, command)

    def listening(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex((LOOPBACK, int(self.ports["6543"]))) == 0

    def stop(self) -> None:
        if self.server:
            self.server.send_signal(signal.SIGINT)
            self.server.communicate(timeout=60)
            self.server = None


def _comparable(output: str) -> list[str]:
    return [" ".join(VARIES.sub("?", line).split()) for line in output.splitlines() if line.strip()]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with nothing but a checkout."""
    unwanted = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "_build")
    shutil.copytree(ROOT, tmp_path / "pyramid_kvs", ignore=unwanted)
    return tmp_path


@pytest.fixture
def reader(checkout: Path, redis_server: RedisServer) -> Iterator[Reader]:
    ports = {"6543": str(free_port()), "6379": str(redis_server.port)}
    reader = Reader(checkout, ports)
    try:
        yield reader
    finally:
        reader.stop()


def test_application_of_the_readme_counts_visits_and_requests(reader: Reader) -> None:
    (block,) = [block for block in blocks(ROOT / "README.rst") if "import serve" in block.text]
    reader.follow(block._replace(caption="app.py"))
    reader.environment["PYTHONPATH"] = str(ROOT)
    reader.start(f"{sys.executable} app.py")
    browser = build_opener(HTTPCookieProcessor())
    for visits in (1, 2, 3):
        response = browser.open(reader.local("http://127.0.0.1:6543/"))
        news = ["Something that takes a while to find out"]
        assert json.load(response) == {"visits": visits, "news": news}
        assert response.headers["X-RateLimit-Limit"] == "15"


def test_every_command_of_getting_started_prints_what_the_page_shows(reader: Reader) -> None:
    for block in blocks(PAGE):
        reader.follow(block)

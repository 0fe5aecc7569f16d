"""The command that starts the demo: its arguments, its messages, and its end."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.demo.conftest import DOCS, Demo, need_store
from tests.servers import children, free_port, process_state, wait_until

STORES = ["memory", "redis", "memcached", "postgresql"]
SERVERS = STORES[1:]
PACKAGES = {"redis": "redis-server", "memcached": "memcached", "postgresql": "postgresql"}


@pytest.fixture
def run(tmp_path: Path) -> str:
    """Return the path of ``docs/demo/run`` in a checkout whose environment is this one."""
    shutil.copytree(DOCS / "demo", tmp_path / "docs" / "demo")
    (tmp_path / ".ci").mkdir()
    script = tmp_path / ".ci" / "venv"
    script.write_text(
        f"""#!/bin/sh
        mkdir -p "$1/bin"
        echo "$@" >>installed
        printf '#!/bin/sh\\nexec {sys.executable} "$@"\\n' >"$1/bin/python"
        chmod 755 "$1/bin/python"
        """
    )
    script.chmod(0o755)
    return str(tmp_path / "docs" / "demo" / "run")


def finish(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_help_names_the_stores_and_starts_nothing(run: str, tmp_path: Path) -> None:
    printed = finish(run, "--help")
    assert printed.returncode == 0
    assert printed.stderr == ""
    for name in STORES:
        assert f"\n  {name} " in printed.stdout
    assert not (tmp_path / "installed").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["reddis"], "unknown store 'reddis' (allowed: memory, redis, memcached, postgresql)"),
        (["memory", "redis"], "one argument is allowed, not 2"),
    ],
)
def test_wrong_arguments_say_what_is_allowed(
    run: str, tmp_path: Path, arguments: list[str], message: str
) -> None:
    printed = finish(run, *arguments)
    assert printed.returncode == 2
    assert message in printed.stderr
    assert not (tmp_path / "installed").exists()


@pytest.mark.parametrize("store", ["memory", "postgresql"])
def test_run_installs_what_the_store_needs_and_starts_the_demo(
    run: str, tmp_path: Path, store: str, demo: Callable[..., Demo]
) -> None:
    need_store(store)
    started = demo(store, command=[run]).wait()
    assert urllib.request.urlopen(started.address, timeout=60).status == 200
    installed = (tmp_path / "installed").read_text().split()
    extras = "demo,postgresql" if store == "postgresql" else "demo"
    assert installed[1:] == ["-e", f".[{extras}]"]
    assert started.end(signal.SIGTERM) == 0


def folder_of(demo: Demo) -> Path:
    """Return the folder of the demo's server, whose socket the demo has named."""
    socket_path = re.search(r"on the socket (\S+),", demo.text)
    assert socket_path
    assert Path(socket_path[1]).is_socket()
    return Path(socket_path[1]).parent


@pytest.mark.parametrize("store", SERVERS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_end_of_the_demo_ends_its_server(
    store: str, number: int, demo: Callable[..., Demo]
) -> None:
    need_store(store)
    started = demo(store).wait()
    assert started.errors.read_text() == ""
    (server,) = children(started.process.pid)
    folder = folder_of(started)
    assert process_state(server) != ""
    assert started.end(number) == 0
    assert started.text.endswith("The demo has ended.\n")
    assert process_state(server) == ""
    assert not folder.exists()


def test_a_killed_demo_leaves_no_server_behind(demo: Callable[..., Demo]) -> None:
    need_store("redis")
    started = demo("redis").wait()
    (server,) = children(started.process.pid)
    folder = folder_of(started)
    started.end(signal.SIGKILL)
    wait_until(lambda: process_state(server) in ("", "Z"), "the end of the server")
    shutil.rmtree(folder)


def test_a_port_in_use_is_told_before_a_server_starts() -> None:
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        port = taken.getsockname()[1]
        printed = finish(sys.executable, "-m", "demo", PORT=str(port), PYTHONPATH=str(DOCS))
    assert printed.returncode == 1
    assert f"port {port} cannot be used (Address already in use): " in printed.stderr
    assert f"PORT={port + 1} docs/demo/run" in printed.stderr


def test_a_port_that_is_not_a_number() -> None:
    printed = finish(sys.executable, "-m", "demo", PORT="http", PYTHONPATH=str(DOCS))
    assert printed.returncode == 1
    assert "PORT is 'http', but it has to be a number from 1 to 65535" in printed.stderr


@pytest.mark.parametrize("store", SERVERS)
def test_a_store_that_is_not_installed(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name, path=None: None)
    from demo.stores import NotInstalled, choose

    with pytest.raises(NotInstalled, match=f"apt-get install {PACKAGES[store]}$"):
        choose(store)


def test_without_redis_the_demo_uses_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, demo: Callable[..., Demo]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    started = demo().wait()
    lines = started.text.splitlines()
    assert lines[0] == "redis is not installed, so the demo uses memory."
    assert "docs/demo/run redis" in lines[1]
    assert children(started.process.pid) == []


def test_without_an_argument_the_demo_uses_redis(demo: Callable[..., Demo]) -> None:
    need_store("redis")
    assert demo().wait().text.startswith("The demo has started its own redis-server ")

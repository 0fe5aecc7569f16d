"""The demo's stores, and the demo as a process."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers import free_port, need, wait_until

DOCS = Path(__file__).parent.parent.parent / "docs"
sys.path.append(str(DOCS))

PROGRAMS = {"redis": "redis-server", "memcached": "memcached", "postgresql": "postgres"}


class Demo:
    """The demo as a process of ``python -m demo``."""

    def __init__(self, folder: Path, *arguments: str, command: list[str] | None = None) -> None:
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.output, self.errors = folder / "output", folder / "errors"
        environment = {**os.environ, "PORT": str(self.port), "PYTHONPATH": str(DOCS)}
        with self.output.open("w") as output, self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                [*(command or [sys.executable, "-m", "demo"]), *arguments],
                env=environment,
                stdout=output,
                stderr=errors,
            )

    @property
    def text(self) -> str:
        return self.output.read_text() + self.errors.read_text()

    def wait(self) -> Demo:
        """Return when the demo has printed its address."""
        wait_until(lambda: self.address in self.text or self.has_ended(), "the demo's address")
        assert not self.has_ended(), self.text
        return self

    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def end(self, number: int) -> int:
        """Send a signal, and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(60)


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    """Start demos with these arguments."""
    with contextlib.ExitStack() as stack:

        def start(*arguments: str, command: list[str] | None = None) -> Demo:
            started = Demo(tmp_path, *arguments, command=command)
            stack.callback(started.process.wait, 60)
            stack.callback(started.process.terminate)
            return started

        yield start


def need_store(name: str) -> None:
    """Skip the test if the server of a store is missing, or fail it in CI."""
    if name in PROGRAMS:
        need(PROGRAMS[name])

"""The measures of the table, each for one function without arguments."""

from __future__ import annotations

import gc
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

Run = Callable[[], object]

#: How often something runs before it is measured, and while its calls are counted.
WARM_UP = 20
COUNTED = 20


def python_calls(run: Run) -> float:
    """Return the number of calls of Python functions."""
    found = 0

    def profile(frame: object, event: str, argument: object) -> None:
        nonlocal found
        found += event == "call"

    warm_up(run)
    sys.setprofile(profile)
    try:
        for _ in range(COUNTED):
            run()
    finally:
        sys.setprofile(None)
    return found / COUNTED - 1  # run itself


def warm_up(run: Run) -> None:
    for _ in range(WARM_UP):
        run()


# -- CPU time --------------------------------------------------------------------------------


def cpu_times(runs: Sequence[Run], rounds: int, loops: int) -> list[list[float]]:
    """Return for each function its microseconds of CPU time in each round, interleaved."""
    times: list[list[float]] = [[] for _ in runs]
    for run in runs:
        warm_up(run)
    gc.disable()
    for _ in range(rounds):
        for number in random.sample(range(len(runs)), len(runs)):
            run, started = runs[number], time.process_time()
            for _ in range(loops):
                run()
            times[number].append((time.process_time() - started) / loops * 1e6)
        gc.collect()
    gc.enable()
    return times


# -- sockets ---------------------------------------------------------------------------------


class Tape:
    """Records what sockets receive during one call, and returns it to later calls.

    It replaces methods of Python's socket class, so connections have to be made afterwards. While
    it replays, nothing is sent.
    """

    def __init__(self) -> None:
        self._replies: list[bytes] = []
        self._mode = "pass"
        self._next = 0
        self._is_waiting = False
        #: How often something was received after something had been sent.
        self.trips = 0

    def install(self) -> None:
        for name in ("send", "sendall"):
            setattr(socket.socket, name, self._sending(getattr(socket.socket, name)))
        receive, receive_into = socket.socket.recv, socket.socket.recv_into

        def recv(sock: Any, size: int, *flags: int) -> bytes:
            return self._received(lambda: receive(sock, size, *flags))

        def recv_into(sock: Any, buffer: Any, *arguments: int) -> int:
            if self._mode == "replay":
                data = self._replayed()
                buffer[: len(data)] = data
                return len(data)
            size = receive_into(sock, buffer, *arguments)
            self._note(bytes(buffer[:size]))
            return size

        socket.socket.recv = recv  # type: ignore[method-assign]
        socket.socket.recv_into = recv_into  # type: ignore[method-assign]

    def record(self, run: Run) -> int:
        """Run something once, keep what it receives, and return its round trips."""
        self._replies, self.trips, self._mode = [], 0, "record"
        try:
            run()
        finally:
            self._mode = "pass"
        return self.trips

    def replayed(self, run: Run) -> Run:
        """Return a function that does the same with what was recorded, without a server."""
        replies = self._replies

        def replay() -> None:
            self._replies, self._next, self._mode = replies, 0, "replay"
            try:
                run()
            finally:
                self._mode = "pass"

        return replay

    def _sending(self, send: Callable[..., Any]) -> Callable[..., Any]:
        def sending(sock: Any, data: Any, *flags: int) -> Any:
            self._is_waiting = True
            if self._mode == "replay":
                return len(data)
            return send(sock, data, *flags)

        return sending

    def _received(self, receive: Callable[[], bytes]) -> bytes:
        if self._mode == "replay":
            return self._replayed()
        data = receive()
        self._note(data)
        return data

    def _replayed(self) -> bytes:
        data = self._replies[self._next]
        self._next += 1
        return data

    def _note(self, data: bytes) -> None:
        if self._mode == "record":
            self._replies.append(data)
            self.trips += self._is_waiting
        self._is_waiting = False


# -- system calls ----------------------------------------------------------------------------


def system_calls(arguments: Iterable[str], loops: int) -> float | None:
    """Return the system calls of one run, or ``None`` where strace is missing.

    :param arguments: of a Python process that gets the number of runs as its last argument.
    """
    strace = shutil.which("strace")
    if strace is None:
        return None
    command = [sys.executable, *arguments]
    few, many = (_traced(strace, [*command, str(number)]) for number in (loops, 2 * loops))
    return (many - few) / loops


def _traced(strace: str, command: list[str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "calls")
        subprocess.run([strace, "-f", "-c", "-o", str(path), *command], check=True)
        total = re.search(r"(\d+)(?: +\d+)? total$", path.read_text(), re.MULTILINE)
        assert total is not None
        return int(total[1])

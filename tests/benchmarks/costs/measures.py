"""The measures of the table, each for one function without arguments."""

from __future__ import annotations

import gc
import os
import random
import re
import shutil
import socket
import stat
import statistics
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Run = Callable[[], object]

#: How often something runs before it is measured. The first runs connect, load scripts and fill
#: caches, and Python specializes the code of a function during its first hundred calls or so.
WARM_UP = 200

#: How often something runs while its calls are counted.
COUNTED = 20


def python_calls(
    run: Run, is_counted: Callable[[types.FrameType], bool] = lambda frame: True
) -> int:
    """Return the number of calls of Python functions in most of several runs.

    Some runs do more, for example if the memory driver removes expired values.

    :param is_counted: tells whether to count a call, by its frame.
    """
    warm_up(run)
    return statistics.mode(_python_calls(run, is_counted) for _ in range(COUNTED))


def _python_calls(run: Any, is_counted: Callable[[types.FrameType], bool]) -> int:
    found = 0

    def profile(frame: types.FrameType, event: str, argument: object) -> None:
        nonlocal found
        if event == "call" and frame.f_code is not run.__code__ and is_counted(frame):
            found += 1

    sys.setprofile(profile)
    try:
        run()
    finally:
        sys.setprofile(None)
    return found


def warm_up(run: Run, runs: int = WARM_UP) -> None:
    for _ in range(runs):
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

    It replaces methods of Python's socket class, and the functions of ``os`` that send and receive
    by a descriptor, so connections have to be made afterwards. While it replays, nothing is sent.
    """

    def __init__(self) -> None:
        self._replies: list[bytes] = []
        self._mode = "pass"
        self._next = 0
        self._is_waiting = False
        #: Those of sockets that the functions of ``os`` used while a call was recorded.
        self._descriptors: set[int] = set()
        #: How often something was received after something had been sent.
        self.trips = 0

    def install(self) -> None:
        kind: Any = socket.socket
        kind.send, kind.sendall = self._sending(kind.send, len), self._sending(kind.sendall)
        kind.recv, kind.recv_into = self._receiving(kind.recv), self._filling(kind.recv_into)
        # A module may have imported a function by its name.
        replace_everywhere(os.write, self._sending(os.write, len))
        replace_everywhere(os.read, self._receiving(os.read))

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
            assert self._next == len(replies)

        return replay

    def _passes(self, place: Any) -> bool:
        """Return whether a socket, or what a descriptor is of, is not recorded or replayed now."""
        if self._mode == "pass":
            return True
        if type(place) is not int:
            return False
        if self._mode == "record" and stat.S_ISSOCK(os.fstat(place).st_mode):
            self._descriptors.add(place)
        return place not in self._descriptors

    def _sending(
        self, send: Callable[..., Any], result: Callable[[Any], Any] = lambda data: None
    ) -> Callable[..., Any]:
        def sending(place: Any, data: Any, *flags: int) -> Any:
            if self._passes(place):
                return send(place, data, *flags)
            self._is_waiting = True
            return result(data) if self._mode == "replay" else send(place, data, *flags)

        return sending

    def _receiving(self, receive: Callable[..., bytes]) -> Callable[..., bytes]:
        def receiving(place: Any, size: int, *flags: int) -> bytes:
            if self._passes(place):
                return receive(place, size, *flags)
            return self._replayed() or self._noted(receive(place, size, *flags))

        return receiving

    def _filling(self, receive_into: Callable[..., int]) -> Callable[..., int]:
        def filling(place: Any, buffer: Any, *arguments: int) -> int:
            if self._passes(place):
                return receive_into(place, buffer, *arguments)
            data = self._replayed()
            if data:
                buffer[: len(data)] = data
                return len(data)
            size = receive_into(place, buffer, *arguments)
            self._noted(bytes(buffer[:size]))
            return size

        return filling

    def _replayed(self) -> bytes:
        """Return the next data of the tape, or nothing while it records."""
        if self._mode == "record":
            return b""
        data = self._replies[self._next]
        self._next += 1
        return data

    def _noted(self, data: bytes) -> bytes:
        self._replies.append(data)
        self.trips += self._is_waiting
        self._is_waiting = False
        return data


def replace_everywhere(function: Any, replacement: Any) -> None:
    """Replace a function in each module that has it."""
    modules = [module for module in sys.modules.values() if isinstance(module, types.ModuleType)]
    for module in modules:
        for name, value in list(vars(module).items()):
            if value is function:
                setattr(module, name, replacement)


# -- system calls ----------------------------------------------------------------------------

#: What a process looks up at the beginning of a row, and before each of its runs.
ROW, RUN = "/a row of the costs", "/a run of the costs"


def run_for_strace(runs: Sequence[Run]) -> None:
    """Run each function so that :func:`system_calls` can tell its system calls from others."""
    for run in runs:
        warm_up(run, COUNTED)  # specialized code has the same system calls
        os.path.exists(ROW)
        for _ in range(COUNTED):
            os.path.exists(RUN)
            run()
        os.path.exists(RUN)


def system_calls(arguments: Iterable[str], env: Mapping[str, str] | None = None) -> list[float]:
    """Return the system calls of each function of a process: those of most of its runs.

    The list is empty where strace is missing, or may not trace, as in some containers.

    :param arguments: of a Python process that calls :func:`run_for_strace`.
    """
    strace = shutil.which("strace")
    if strace is None or subprocess.run([strace, "-o", os.devnull, "true"], check=False).returncode:
        return []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "calls")
        command = [strace, "-o", str(path), sys.executable, *arguments]
        subprocess.run(command, check=True, env=env)
        rows = path.read_text(errors="replace").split(f'"{ROW}"')[1:]
    return [statistics.mode(_calls_of_runs(row)) for row in rows]


def _calls_of_runs(row: str) -> list[int]:
    """Return the system calls of each run. The last line of each part is the next marker's."""
    runs = row.split(f'"{RUN}"')[1:-1]
    return [len(re.findall("^[a-z]", run, re.MULTILINE)) - 1 for run in runs]

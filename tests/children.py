"""Child processes of a test, forked by Python or by C code."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

#: uWSGI forks with this function of libc; Python's hooks for a fork do not run.
fork_in_c: Callable[[], int] = ctypes.PyDLL(None).fork

FORKS = [os.fork, fork_in_c]


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let no other thread ask for the interpreter's lock.

    A child that C code forks while a thread asks for the lock waits for that thread forever,
    because it does not exist there. Threads ask when the switch interval is over.
    """
    interval = sys.getswitchinterval()
    sys.setswitchinterval(2)  # busy threads keep the lock for as long
    try:
        time.sleep(0.02)  # what has been asked for is given
        yield
    finally:
        sys.setswitchinterval(interval)


def is_true_in_child(check: Callable[[], Any], fork: Callable[[], int] = os.fork) -> bool:
    """Return whether ``check`` returns a true value in a child process, within 20 seconds."""
    with undisturbed():
        child = fork()
    if not child:
        signal.alarm(20)
        status = 1
        try:
            status = 0 if check() else 1
        finally:
            os._exit(status)
    return wait(child, 25) == 0


def wait(child: int, seconds: float) -> int:
    """Wait for a child and return its status; kill it if it hangs, also before it sets an alarm."""
    deadline = time.monotonic() + seconds
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.005)
    return ended[1]

"""Child processes of a test, forked by Python or by C code."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable
from typing import Any

#: uWSGI forks with this function of libc; Python's hooks for a fork do not run.
fork_in_c: Callable[[], int] = ctypes.PyDLL(None).fork

FORKS = [os.fork, fork_in_c]


def is_true_in_child(check: Callable[[], Any], fork: Callable[[], int] = os.fork) -> bool:
    """Return whether ``check`` returns a true value in a child process, within 20 seconds."""
    child = fork()
    if not child:
        signal.alarm(20)
        status = 1
        try:
            status = 0 if check() else 1
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1] == 0

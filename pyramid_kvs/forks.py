"""State that a child process must not share with its parent."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol


class Forked(Protocol):
    """An object with locks, threads or connections."""

    def after_fork(self) -> None:
        """Start again in a child process: replace locks and leave connections to the parent."""


_known: weakref.WeakSet[Forked] = weakref.WeakSet()


def renew_in_child(item: Forked) -> None:
    """Have ``item.after_fork()`` called in every child process."""
    _known.add(item)


def _renew() -> None:
    for item in list(_known):
        item.after_fork()


class ProcessLock:
    """A reentrant lock that is free in a child process, whoever held it in the parent.

    It compares process ids: no hook of Python runs when C code forks, as uWSGI does.
    """

    def __init__(self) -> None:
        self._renew()

    def _renew(self) -> None:
        self._lock = threading.RLock()
        self._process = os.getpid()

    def __enter__(self) -> None:
        if self._process != os.getpid():
            self._renew()
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()


# Windows has no fork and no such function.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)

"""State that a child process must not share with its parent."""

from __future__ import annotations

import mmap
import os
import sys
import threading
import weakref
from typing import Protocol


class Forked(Protocol):
    """An object with locks, threads or connections."""

    def after_fork(self) -> None:
        """Start again in a child process: replace locks and leave connections to the parent."""


# Not a WeakSet: reading one while another thread changes it raises RuntimeError.
_known: set[weakref.ref[Forked]] = set()
_renewals: dict[int, threading.Lock] = {}


def renew_in_child(item: Forked) -> None:
    """Have ``item.after_fork()`` called in every child process.

    Python's hooks do not run if C code forks, as uWSGI does. What must hold there too looks at
    :data:`renewed` first, or compares process ids.
    """
    _known.add(weakref.ref(item, _known.discard))


def renew() -> None:
    """Call all ``after_fork`` methods, once in each process."""
    # A new lock, because a thread of the parent may have held its own at the fork.
    with _renewals.setdefault(os.getpid(), threading.Lock()):
        if not renewed[0]:
            for known in _known.copy():
                item = known()
                if item is not None:
                    item.after_fork()
            renewed[0] = 1


class ProcessLock:
    """A reentrant lock that is free in a child process, whoever held it in the parent."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        renew_in_child(self)

    def after_fork(self) -> None:
        # The thread that forked may hold it itself, and will release it.
        if not self._lock._is_owned():  # type: ignore[attr-defined]
            self._lock = threading.RLock()

    def __enter__(self) -> None:
        if not renewed[0]:
            renew()
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()


class _Marker(Protocol):
    """What :data:`renewed` is."""

    def __getitem__(self, index: int, /) -> int: ...
    def __setitem__(self, index: int, value: int, /) -> None: ...


class _ProcessId:
    """A marker that asks the system. It takes seven times as long as a page."""

    def __init__(self) -> None:
        self._pid = 0

    def __getitem__(self, index: int) -> int:
        return os.getpid() == self._pid

    def __setitem__(self, index: int, value: int) -> None:
        self._pid = os.getpid()


#: The kernel's MADV_WIPEONFORK, which the module mmap does not name.
_WIPE_ON_FORK = 18


def _new_marker() -> _Marker:
    """Return a page of memory that Linux clears in every child, whoever forked it."""
    if sys.platform != "linux":
        return _ProcessId()
    page = mmap.mmap(-1, mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        page.madvise(_WIPE_ON_FORK)
    except OSError:  # a kernel before 4.14
        return _ProcessId()
    return _ProcessId() if _takes_any_advice(page) else page


def _takes_any_advice(page: mmap.mmap) -> bool:
    """Return whether ``madvise`` does nothing and fails never, as in older versions of qemu."""
    try:
        page.madvise(-1)
    except OSError:
        return False
    return True


#: ``renewed[0]`` is 0 in a child process until :func:`renew` was called there.
renewed = _new_marker()
renewed[0] = 1

# Windows has no fork and no such function.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=renew)

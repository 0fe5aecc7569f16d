"""What may be written to a log, and how often."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable
from logging import Logger

from .forks import ProcessLock

_SALT = os.urandom(16)


def fingerprint(identity: str) -> str:
    """Return eight hexadecimal digits that replace an id or token in a log.

    Each process has its own random salt, so that nobody can test guessed ids against a log.
    """
    data = identity.encode("utf-8", "surrogatepass")
    return hashlib.blake2s(data, key=_SALT, digest_size=4).hexdigest()


class ThrottledLog:
    """Logs a line at most once in ``interval`` seconds, with the number of those left out.

    :param interval: infinity means once in the lifetime of the process.
    """

    def __init__(
        self,
        logger: Logger,
        interval: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger
        self._interval = interval
        self._clock = clock
        self._lock = ProcessLock()
        self._next = float("-inf")
        self._left_out = 0

    def warning(self, message: str, *args: object) -> None:
        self._log(logging.WARNING, message, *args)

    def error(self, message: str, *args: object) -> None:
        self._log(logging.ERROR, message, *args)

    def exception(self, message: str, *args: object) -> None:
        """Log the error that is being handled, with its traceback."""
        self._log(logging.ERROR, message, *args, with_traceback=True)

    def _log(self, level: int, message: str, *args: object, with_traceback: bool = False) -> None:
        with self._lock:
            now = self._clock()
            if now < self._next:
                self._left_out += 1
                return
            left_out, self._left_out = self._left_out, 0
            self._next = now + self._interval
        suffix = f" ({left_out} more since the last such line)" if left_out else ""
        self._logger.log(
            level,
            f"{message}%s",  # noqa: G004 (a constant)
            *args,
            suffix,
            exc_info=with_traceback,
        )

"""The end of a call, for code that waits in several steps."""

from __future__ import annotations

import copy
import math
from time import monotonic
from typing import Any

from redis.backoff import AbstractBackoff
from redis.retry import Retry


class OutOfTime(Exception):
    """The call must end before its next step.

    Neither an ``OSError`` nor an error of redis-py, which would try again.
    """


class Deadline:
    """When a call ends, in ``time.monotonic()``.

    :param first_answer: when the server must have sent its first byte, if that is earlier.
    """

    __slots__ = ("_end", "_final", "is_answered")

    def __init__(self, end: float, first_answer: float = math.inf) -> None:
        self._final = end
        self._end = min(end, first_answer)
        #: Whether the server has sent anything.
        self.is_answered = False

    def answered(self) -> None:
        """Note that the server sent something."""
        self.is_answered = True
        self._end = self._final

    def left(self) -> float:
        """Return the seconds left.

        :raises OutOfTime: there are none.
        """
        left = self._end - monotonic()
        if left <= 0:
            raise OutOfTime
        return left

    def timeout(self, own: float | None = None) -> float | None:
        """Return the timeout of a step, or the rest of the call if that is shorter.

        :raises OutOfTime: nothing is left.
        """
        left = self.left()
        if own is None:
            return None if left == math.inf else left
        return min(own, left)


class DeadlineSocket:
    """A socket whose waits end at a deadline, for redis-py's code, which waits several times.

    :param timeout: the longest wait, in seconds.
    """

    def __init__(self, raw: Any, timeout: float | None) -> None:
        self.raw = raw
        #: ``None`` means that the socket keeps the timeout that it has.
        self.deadline: Deadline | None = None
        self._timeout = timeout

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)

    def sendall(self, data: Any) -> None:
        self._limit()
        self.raw.sendall(data)

    def recv(self, *args: Any) -> Any:
        self._limit()
        data = self.raw.recv(*args)
        self._note(data)
        return data

    def recv_into(self, *args: Any) -> Any:
        self._limit()
        size = self.raw.recv_into(*args)
        self._note(size)
        return size

    def _limit(self) -> None:
        if self.deadline is not None:
            self.raw.settimeout(self.deadline.timeout(self._timeout))

    def _note(self, received: Any) -> None:
        if self.deadline is not None and received:
            self.deadline.answered()


class _ShortBackoff(AbstractBackoff):
    """Pauses between attempts that end at a deadline."""

    def __init__(self, backoff: Any, deadline: Deadline) -> None:
        self._backoff = backoff
        self._deadline = deadline

    def reset(self) -> None:
        self._backoff.reset()

    def compute(self, failures: int) -> float:
        pause: float = self._backoff.compute(failures)
        return min(pause, self._deadline.left())


def until(retry: Any, deadline: Deadline) -> Retry:
    """Return a copy of redis-py's policy that raises ``OutOfTime`` at a deadline."""
    short: Retry = copy.copy(retry)
    short._backoff = _ShortBackoff(retry._backoff, deadline)
    return short

"""A clock that takes the place of the module ``time`` in a module under test."""

from __future__ import annotations


class Clock:
    """A clock that only moves when a test moves it."""

    def __init__(self, now: float) -> None:
        self.now = now

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

"""Measures how the time of a function grows with the size of its input."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import TypeVar

Input = TypeVar("Input")

#: Linear time gives 4, quadratic time 16.
BOUND = 8
ROUNDS = 4


def growth(make: Callable[[int], Input], run: Callable[[Input], object], size: int) -> float:
    """Return how many times longer an input of four times the size takes.

    The shortest times of a few rounds count. The rounds end early if the growth is small, so that
    a busy machine costs time and does not make a test fail.
    """
    small, large = make(size), make(4 * size)
    short = long = float("inf")
    for _ in range(ROUNDS):
        short = min(short, seconds(run, small))
        long = min(long, seconds(run, large))
        if long < BOUND * short:
            break
    return long / short


def seconds(run: Callable[[Input], object], value: Input) -> float:
    """Return the processor time of a call, without garbage collections."""
    gc.collect()
    gc.disable()
    try:
        start = time.process_time()
        run(value)
        return time.process_time() - start
    finally:
        gc.enable()

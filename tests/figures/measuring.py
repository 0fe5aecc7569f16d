"""Measure the figures, each part in processes that have only its libraries."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from tests.benchmarks.costs.measures import (
    Tape,
    python_calls,
    run_for_strace,
    system_calls,
    warm_up,
)

#: On which the number of all calls depends.
LIBRARIES = ("pyramid", "webob", "redis")

#: Rows whose replies are so long that they come in a varying number of pieces.
IN_PIECES = ("get of 100 keys",)

PACKAGE = "pyramid_kvs."
COMPREHENSIONS = ("<listcomp>", "<dictcomp>", "<setcomp>")
HERE = Path(__file__).parent
ROOT = HERE.parent.parent


class Figures(NamedTuple):
    """Those of one row; ``system_calls`` is ``None`` where strace is missing."""

    calls: int
    all_calls: int
    trips: int
    system_calls: int | None


def versions() -> str:
    """Return the versions on which the number of all calls depends."""
    found = {name: importlib.metadata.version(name) for name in LIBRARIES}
    pairs = {"python": platform.python_version(), **found}.items()
    return ", ".join(f"{name} {'.'.join(version.split('.')[:2])}" for name, version in pairs)


def measured(url: str, missing: Sequence[str]) -> dict[str, Figures]:
    """Return the figures of all rows without some of the optional libraries.

    :param url: of an empty redis.
    """
    arguments = ["-m", "tests.figures", "--url", url, "--without", ",".join(missing)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, *arguments, "--counted"], check=True, stdout=subprocess.PIPE, env=env
    )
    rows: dict[str, list[Any]] = json.loads(run.stdout)
    traced = system_calls([*arguments, "--traced"], env) or [None] * len(rows)
    return {
        name: Figures(*found, None if calls is None else int(calls))
        for (name, found), calls in zip(rows.items(), traced, strict=True)
    }


# -- in the process that is measured ---------------------------------------------------------


def without(missing: Sequence[str]) -> None:
    """Let libraries be missing. The package must not have been imported yet."""
    assert not any(name.startswith(PACKAGE) for name in sys.modules)
    sys.modules.update(dict.fromkeys(missing))


def trace(url: str) -> None:
    run_for_strace([run for _, run in our_runs(url)])


def count(url: str) -> dict[str, tuple[int, int, int]]:
    """Return the calls, all calls, and the round trips of each row."""
    calls = {name: (python_calls(run, is_ours), python_calls(run)) for name, run in our_runs(url)}
    bare = calls["nothing"][1]
    requests = {cost.name for cost in our_costs(url) if cost.is_request}
    trips = round_trips(url)  # last, because the tape makes calls
    return {
        name: (ours, every - bare * (name in requests), trips[name])
        for name, (ours, every) in calls.items()
    }


def round_trips(url: str) -> dict[str, int]:
    tape, found = Tape(), {}
    tape.install()
    for name, run in our_runs(url):
        warm_up(run)
        found[name] = tape.record(run)
    return found


def our_costs(url: str) -> list[Any]:
    from tests.benchmarks.costs.rows import OURS, costs

    first, *others = costs(url)
    return [first, *[cost for cost in others if cost.who == OURS and cost.name not in IN_PIECES]]


def our_runs(url: str) -> list[tuple[str, Any]]:
    return [(cost.name, cost.run) for cost in our_costs(url)]


def is_ours(frame: FrameType) -> bool:
    """Return whether a function belongs to this package, also one that ``dataclass`` made."""
    name: str = frame.f_globals.get("__name__", "")
    return name.startswith(PACKAGE) and frame.f_code.co_name not in COMPREHENSIONS

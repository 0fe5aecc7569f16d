"""Print the table; see :mod:`tests.benchmarks.costs`."""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from tests.benchmarks.costs import __doc__ as description
from tests.benchmarks.costs.measures import (
    Run,
    Tape,
    cpu_times,
    python_calls,
    run_for_strace,
    system_calls,
    warm_up,
)
from tests.benchmarks.costs.rows import Cost, costs
from tests.servers import RedisServer

LOOPS = 100


class Line(NamedTuple):
    """The figures of one row, by one library."""

    cost: Cost
    calls: float
    system_calls: float | None
    trips: int
    replayed: float
    real: list[float]


def main() -> None:
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("rows", nargs="*", help="the names of rows, or parts of them")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--traced", metavar="URL", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.traced is not None:
        run_for_strace(runs_of(chosen_costs(arguments.traced, arguments.rows)))
        return
    stay_on_one_core()
    with RedisServer() as server:
        print_table(measured(server.url, arguments.rows, arguments.rounds))


def stay_on_one_core() -> None:
    """Run this process and the server on the same core, where the system lets it choose.

    Two cores of a busy machine differ from round to round, and a core that waits for the other
    one goes to sleep.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def chosen_costs(url: str, names: Sequence[str]) -> list[Cost]:
    """Return the rows that were asked for, and first a bare request."""
    bare, *others = costs(url)
    return [bare, *[c for c in others if not names or any(name in c.name for name in names)]]


def runs_of(chosen: Sequence[Cost]) -> list[Run]:
    return [cost.run for cost in chosen]


def measured(url: str, names: Sequence[str], rounds: int) -> list[Line]:
    """Return the figures of the rows that were asked for, and first those of a bare request."""
    chosen = chosen_costs(url, names)
    runs = runs_of(chosen)
    calls, real = [python_calls(run) for run in runs], cpu_times(runs, rounds, LOOPS)
    traced = traced_calls(url, names) or [None] * len(runs)
    trips, replayed = taped(url, names, rounds)
    lines = zip(chosen, calls, traced, trips, replayed, real, strict=True)
    return [Line(*line) for line in lines]


def taped(url: str, names: Sequence[str], rounds: int) -> tuple[list[int], list[float]]:
    """Return the round trips, and the CPU time without a server."""
    tape, trips, replays = Tape(), [], []
    tape.install()
    for run in runs_of(chosen_costs(url, names)):
        warm_up(run)
        trips.append(tape.record(run))
        replays.append(tape.replayed(run))
    return trips, [statistics.median(times) for times in cpu_times(replays, rounds, LOOPS)]


def traced_calls(url: str, names: Sequence[str]) -> list[float]:
    return system_calls(["-m", "tests.benchmarks.costs", *names, "--traced", url])


def print_table(lines: Sequence[Line]) -> None:
    nothing = lines[0]
    print(
        f"{'':<22}{'':<22}{'calls':>7}{'system calls':>14}{'trips':>7}"
        f"{'replayed µs':>13}{'real µs':>9}{'ratio':>7}"
    )
    ours = nothing
    for line in lines:
        if line.cost.name != ours.cost.name:
            ours = line
        print(text(line, ours, nothing.replayed if line.cost.is_request else 0.0))


def text(line: Line, ours: Line, nothing: float) -> str:
    ratio = statistics.median(a / b for a, b in zip(line.real, ours.real, strict=True))
    traced = "" if line.system_calls is None else f"{line.system_calls:.0f}"
    name = "" if line is not ours else line.cost.name
    return (
        f"{name:<22}{line.cost.who:<22}{line.calls:7.0f}{traced:>14}{line.trips:7}"
        f"{line.replayed - nothing:13.1f}{statistics.median(line.real):9.1f}{ratio:7.2f}"
    )


if __name__ == "__main__":
    main()

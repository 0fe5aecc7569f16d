"""Print the table; see :mod:`tests.benchmarks.costs`."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from tests.benchmarks.costs import __doc__ as description
from tests.benchmarks.costs.measures import Tape, cpu_times, python_calls, system_calls, warm_up
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
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--loops", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only is not None:
        run_only(arguments.url, arguments.only, arguments.loops)
        return
    with RedisServer() as server:
        print_table(measured(server.url, arguments.rows, arguments.rounds))


def run_only(url: str, number: int, loops: int) -> None:
    """Run one of the costs, in a process of which the system calls are counted."""
    run = list(costs(url))[number].run
    warm_up(run)
    for _ in range(loops):
        run()


def measured(url: str, names: Sequence[str], rounds: int) -> list[Line]:
    """Return the figures of the rows that were asked for, and first those of a bare request."""
    found = list(costs(url))
    chosen = [
        number
        for number, cost in enumerate(found)
        if not names or not number or any(name in cost.name for name in names)
    ]
    runs = [found[number].run for number in chosen]
    calls, real = [python_calls(run) for run in runs], cpu_times(runs, rounds, LOOPS)
    traced = [traced_calls(url, number) for number in chosen]
    trips, replayed = taped(url, chosen, rounds)
    lines = zip([found[n] for n in chosen], calls, traced, trips, replayed, real, strict=True)
    return [Line(*line) for line in lines]


def taped(url: str, chosen: Sequence[int], rounds: int) -> tuple[list[int], list[float]]:
    """Return the round trips, and the CPU time without a server."""
    tape, trips, replays = Tape(), [], []
    tape.install()
    found = list(costs(url))
    for run in (found[number].run for number in chosen):
        warm_up(run)
        trips.append(tape.record(run))
        replays.append(tape.replayed(run))
    return trips, [statistics.median(times) for times in cpu_times(replays, rounds, LOOPS)]


def traced_calls(url: str, number: int) -> float | None:
    module = ("-m", "tests.benchmarks.costs", "--url", url, "--only", str(number), "--loops")
    return system_calls(module, LOOPS)


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
    traced = "" if line.system_calls is None else f"{line.system_calls:.1f}"
    name = "" if line is not ours else line.cost.name
    return (
        f"{name:<22}{line.cost.who:<22}{line.calls:7.0f}{traced:>14}{line.trips:7}"
        f"{line.replayed - nothing:13.1f}{statistics.median(line.real):9.1f}{ratio:7.2f}"
    )


if __name__ == "__main__":
    main()

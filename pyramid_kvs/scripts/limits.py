"""``pkvs limits``: list the limits of an application by view, or clear their counters."""

from __future__ import annotations

import argparse

from ..exceptions import KVSError
from ..ratelimit import Ratelimit, limiter_of
from ..ratelimit.listing import Row, clear, rows
from .application import Command, Failed, add_ini, add_vars, application, print_line

TITLES = Row("SCOPE", "NAME", "STRATEGY", "LIMIT", "WINDOW", "BY", "STORE", "NOTES")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_ini(parser)
    add_vars(parser)
    parser.add_argument(
        "--clear",
        metavar="SESSION-OR-ADDRESS",
        help="remove the counters of a session id or token, an address, or another identity that "
        "limits count by; 'none' means clients without an address",
    )


def run(args: argparse.Namespace) -> int:
    """List the limits by view, or remove the counters of one client."""
    with application(args) as registry:
        limiter = limiter_of(registry)
        if limiter is None:
            print_line("no rate limit: the setting kvs.ratelimit is not set")
        elif args.clear is None:
            _print_limits(limiter)
        else:
            _clear(limiter, args.clear)
    return 0


def _clear(limiter: Ratelimit, who: str) -> None:
    try:
        print_line(f"counters removed: {clear(limiter, who)}")
    except KVSError as error:
        raise Failed(str(error)) from error
    limits = limiter.registry.limits
    in_memory = sorted({limit.name for limit in limits if limit.store.driver.kvs == "memory"})
    if in_memory:
        print_line(
            f"not removed: the counters of {', '.join(in_memory)}, which are in the memory of the "
            "server's processes until those restart"
        )


def _print_limits(limiter: Ratelimit) -> None:
    listed = rows(limiter)
    titles = TITLES if any(row.notes for row in listed) else TITLES._replace(notes="")
    _print_table([titles, *listed])


def _print_table(table: list[Row]) -> None:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print_line("  ".join(cells).rstrip())


LIMITS = Command("list the rate limits by view, or clear counters", add_arguments, run)

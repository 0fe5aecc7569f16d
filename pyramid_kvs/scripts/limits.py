"""``pkvs limits``: the limits of an application by view, and lifting one."""

from __future__ import annotations

import argparse

from pyramid.registry import Registry

from ..exceptions import KVSError
from ..ratelimit import Ratelimit, limiter_of
from ..ratelimit.listing import Row, clear, rows
from .application import Command, Failed, add_ini, application, print_line

TITLES = Row("SCOPE", "NAME", "STRATEGY", "LIMIT", "WINDOW", "BY", "STORE")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_ini(parser)
    parser.add_argument(
        "--clear",
        metavar="SESSION-OR-ADDRESS",
        help="remove the counters of a session id or token, an address, or whoever else limits "
        "count by; 'none': of clients without an address",
    )


def run(args: argparse.Namespace) -> int:
    """List the limits by view, or remove the counters of one client."""
    with application(args) as registry:
        limiter = _limiter(registry)
        if args.clear is None:
            _print_table([TITLES, *rows(limiter)])
        else:
            _clear(limiter, args.clear)
    return 0


def _limiter(registry: Registry) -> Ratelimit:
    limiter = limiter_of(registry)
    if limiter is None:
        raise Failed("the application has no rate limit: the setting kvs.ratelimit is not set")
    return limiter


def _clear(limiter: Ratelimit, who: str) -> None:
    try:
        print_line(f"counters removed: {clear(limiter, who)}")
    except KVSError as error:
        raise Failed(str(error)) from error
    alone = {limit.name for limit in limiter.book.limits if limit.store.driver.kvs == "memory"}
    if alone:
        print_line(
            f"not those of {', '.join(sorted(alone))}: they are in the memory of the server's "
            "processes, which forget them when they restart"
        )


def _print_table(table: list[Row]) -> None:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print_line("  ".join(cells).rstrip())


LIMITS = Command("list the rate limits by view, or lift one", add_arguments, run)

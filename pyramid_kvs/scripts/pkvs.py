"""``pkvs``: look after the stores of an application from the command line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from .. import __version__
from .application import Command, Failed, print_error
from .limits import LIMITS
from .sessions import SESSIONS
from .stores import MIGRATE, PING, PURGE
from .thaw import THAW

COMMANDS: dict[str, Command] = {
    "limits": LIMITS,
    "migrate": MIGRATE,
    "ping": PING,
    "purge": PURGE,
    "sessions": SESSIONS,
    "thaw": THAW,
}


class Parser(argparse.ArgumentParser):
    """Reports wrong arguments in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="pkvs", description="Look after the stores of pyramid_kvs.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        of_command = parsers.add_parser(name, help=command.help, description=command.run.__doc__)
        command.add_arguments(of_command)
        of_command.set_defaults(run=command.run)
    return parser


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the arguments of a command; the values for its ini file may follow an option."""
    parser = build_parser()
    args, others = parser.parse_known_args(argv)
    if others:
        if "vars" not in args or any(word.startswith("-") for word in others):
            parser.exit(2, f"{parser.prog}: unrecognized arguments: {' '.join(others)}\n")
        args.vars += others
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status."""
    args = parse(argv)
    try:
        status: int = args.run(args)
        sys.stdout.flush()
    except Failed as error:
        print_error(str(error))
        return 1
    except BrokenPipeError:  # "pkvs thaw big | head"
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())

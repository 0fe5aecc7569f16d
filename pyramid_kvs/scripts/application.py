"""What the commands of ``pkvs`` share: the application of an ini file, and printing."""

from __future__ import annotations

import argparse
import configparser
import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from plaster import PlasterError
from pyramid.exceptions import ConfigurationError, ConfigurationExecutionError
from pyramid.paster import bootstrap
from pyramid.registry import Registry
from pyramid.scripts.common import parse_vars


class Failed(Exception):
    """Ends the command: its text goes to standard error, and the exit status is 1."""


class Command(NamedTuple):
    """One command: a line of help, its arguments, and what it does."""

    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    #: Returns the exit status.
    run: Callable[[argparse.Namespace], int]


def add_ini(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of every command that starts the application."""
    parser.add_argument(
        "ini",
        metavar="INI[#NAME]",
        help="the application's ini file; of several applications in it, the one called NAME",
    )
    parser.add_argument(
        "vars",
        metavar="KEY=VALUE",
        nargs="*",
        help="what the ini file needs: http_port=8080 for a %%(http_port)s in it",
    )


@contextlib.contextmanager
def application(args: argparse.Namespace) -> Iterator[Registry]:
    """Start the application and give its registry; its stores may be down.

    :raises Failed: there is no such file, or the application does not start.
    """
    path = args.ini.partition("#")[0]
    if "://" not in path and not os.path.isfile(path):
        raise Failed(f"{path}: no such file")
    try:
        started = bootstrap(args.ini, options=_parse_vars(args.vars))
    except (ConfigurationError, PlasterError) as error:
        raise Failed(f"{path}: {_reason(error)}") from error
    except configparser.Error as error:
        raise Failed(f"{path}: {_mistake(error)}") from error
    except UnicodeDecodeError as error:
        raise Failed(f"{path}: no text in UTF-8: {error.reason} at byte {error.start}") from error
    except (LookupError, ImportError, OSError) as error:
        raise Failed(f"{path}: {type(error).__name__}: {error}") from error
    with started:
        yield started["registry"]


def _reason(error: Exception) -> str:
    """Return what is wrong, without the place where Pyramid ran the check of a setting."""
    cause = error.evalue if isinstance(error, ConfigurationExecutionError) else error
    return str(cause if isinstance(cause, ConfigurationError) else error)


def _mistake(error: configparser.Error) -> str:
    """Return what is wrong in an ini file, and none of its lines: they may hold a password."""
    if isinstance(error, configparser.InterpolationMissingOptionError):
        return f"{error.option} in [{error.section}]: nothing says what %({error.reference})s is"
    if isinstance(error, configparser.InterpolationError):
        return f"{error.option} in [{error.section}]: write %% for a percent sign"
    if isinstance(error, configparser.MissingSectionHeaderError):
        return f"line {error.lineno} stands before the first [section]"
    if isinstance(error, configparser.ParsingError):
        return f"line {', '.join(str(number) for number, _ in error.errors)}: no KEY = VALUE"
    return error.message


def _parse_vars(pairs: Sequence[str]) -> dict[str, str]:
    try:
        parsed: dict[str, str] = parse_vars(pairs)
    except ValueError as error:
        raise Failed(f"{error}: expected KEY=VALUE") from error
    return parsed


def print_line(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def print_error(text: str) -> None:
    sys.stdout.flush()
    sys.stderr.write(f"pkvs: {text}\n")

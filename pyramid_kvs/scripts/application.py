"""What the commands of ``pkvs`` share: the application of an ini file, and output."""

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

from ..messages import reason
from ..start import unchecked


class Failed(Exception):
    """Ends the command with exit status 1; the message goes to standard error."""


class Command(NamedTuple):
    """One command: a line of help, its arguments, and what it does."""

    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    #: Returns the exit status.
    run: Callable[[argparse.Namespace], int]


def add_ini(parser: argparse.ArgumentParser) -> None:
    """Add the first argument of every command that starts the application."""
    parser.add_argument(
        "ini",
        metavar="INI[#NAME]",
        help="the ini file of the application; NAME selects one of several applications in it",
    )


def add_vars(parser: argparse.ArgumentParser) -> None:
    """Add the last arguments of every command that starts the application."""
    parser.add_argument(
        "vars",
        metavar="KEY=VALUE",
        nargs="*",
        default=[],  # without a default, argparse says that one is required
        help="values that the ini file refers to: http_port=8080 for %%(http_port)s",
    )


@contextlib.contextmanager
def application(args: argparse.Namespace) -> Iterator[Registry]:
    """Start the application and give its registry; its stores may be unavailable.

    :raises Failed: there is no such file, or the application does not start.
    """
    path = args.ini.partition("#")[0]
    if "://" not in path and not os.path.isfile(path):
        raise Failed(f"{path or repr(path)}: no such file")
    try:
        with unchecked():
            started = bootstrap(args.ini, options=_parse_vars(args.vars))
    except (ConfigurationError, PlasterError) as error:
        raise Failed(f"{path}: {reason(_cause(error))}") from error
    except configparser.Error as error:
        raise Failed(f"{path}: {_mistake(error)}") from error
    except UnicodeDecodeError as error:
        raise Failed(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from error
    except (LookupError, AttributeError, ImportError, OSError) as error:
        raise Failed(f"{path}: {type(error).__name__}: {reason(error)}") from error
    with started:
        yield started["registry"]


def _cause(error: Exception) -> Exception:
    """Return the error without the place that Pyramid adds, which is the setting again."""
    cause = error.evalue if isinstance(error, ConfigurationExecutionError) else error
    return cause if isinstance(cause, ConfigurationError) else error


def _mistake(error: configparser.Error) -> str:
    """Return what is wrong in an ini file, without its lines, which may contain a password."""
    if isinstance(error, configparser.InterpolationMissingOptionError):
        return f"{error.option} in [{error.section}]: %({error.reference})s has no value"
    if isinstance(error, configparser.InterpolationError):
        return f"{error.option} in [{error.section}]: write %% for a percent sign"
    if isinstance(error, configparser.MissingSectionHeaderError):
        return f"line {error.lineno} is before the first [section]"
    if isinstance(error, configparser.ParsingError):
        lines = ", ".join(str(number) for number, _ in error.errors)
        return f"line {lines}: expected KEY = VALUE"
    return error.message


def _parse_vars(pairs: Sequence[str]) -> dict[str, str]:
    try:
        parsed: dict[str, str] = parse_vars(pairs)
    except ValueError as error:
        raise Failed(f"{error}: expected KEY=VALUE") from error
    if "" in parsed:
        raise Failed(f"Variable assignment '={parsed['']}' invalid (no key): expected KEY=VALUE")
    return parsed


def print_line(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def print_error(text: str) -> None:
    sys.stdout.flush()
    sys.stderr.write(f"pkvs: {text}\n")

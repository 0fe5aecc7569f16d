"""``pkvs``: look after an application's stores from the command line.

Each command is a row of :data:`COMMANDS`; what belongs to a feature is in a module of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from pyramid.registry import Registry

from .. import FEATURES, __version__, storable
from ..application import Application, Store
from ..exceptions import KVSError
from ..kvs import KVS
from ..storable import tagged_json
from .application import Command, Failed, add_ini, application, print_error, print_line
from .limits import LIMITS

# -- the application -------------------------------------------------------------------------


def stores(registry: Registry) -> list[Store]:
    """Return the stores that the application uses.

    :raises Failed: it has none.
    """
    found = Application.of(registry).stores
    if not found:
        known = ", ".join(sorted(FEATURES))
        raise Failed(f"the application has no store: none of the settings {known} is set")
    return found


def for_each(stores: Iterable[Store], act: Callable[[KVS], str]) -> int:
    """Print what ``act`` returns for each store, or why it failed; return the exit status."""
    return max([_act_on(store, act) for store in stores], default=0)


def _act_on(store: Store, act: Callable[[KVS], str]) -> int:
    name = f"{store.place} ({store.driver.kvs})"
    try:
        print_line(f"{name}: {act(store.driver)}")
    except KVSError as error:
        print_error(f"{name}: {error}")
        return 1
    return 0


# -- migrate ---------------------------------------------------------------------------------


def add_migrate_arguments(parser: argparse.ArgumentParser) -> None:
    add_ini(parser)
    parser.add_argument(
        "-n", "--dry-run", action="store_true", help="print what would be done, and do nothing"
    )


def migrate(args: argparse.Namespace) -> int:
    """Create what the stores need; running it again changes nothing."""

    def act(driver: KVS) -> str:
        if type(driver).initialize_schema is KVS.initialize_schema:
            return "needs nothing"
        driver.initialize_schema(dry_run=args.dry_run)
        return "nothing was done" if args.dry_run else "ready"

    with application(args) as registry, log_printed():
        return for_each(stores(registry), act)


@contextlib.contextmanager
def log_printed() -> Iterator[None]:
    """Print what the library logs, from level INFO, to standard output."""
    logger = logging.getLogger("pyramid_kvs")
    level, handler = logger.level, logging.StreamHandler(sys.stdout)
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


# -- ping ------------------------------------------------------------------------------------


def ping(args: argparse.Namespace) -> int:
    """Print, of each store, its driver, server and latency, or why it does not answer."""
    status = 0
    with application(args) as registry:
        for store in stores(registry):
            latency, error = measure(store.driver)
            found = f"{latency * 1000:.2f} ms  ok" if error is None else f"failed: {error}"
            print_line(f"{store.place}  {store.driver.kvs}  {store.server}  {found}")
            status = status if error is None else 1
    return status


def measure(driver: KVS) -> tuple[float, str | None]:
    """Return how long a round trip takes, in seconds, and the error, if there is one.

    The first opens the connection; the second is measured.
    """
    if not driver.ping():
        return 0.0, _reason(driver)
    started = time.perf_counter()
    answers = driver.ping()
    return time.perf_counter() - started, None if answers else _reason(driver)


def _reason(driver: KVS) -> str:
    """Ask once more for the error that ``ping`` keeps to itself."""
    try:
        driver.raw_get("__kvs_ping")
    except Exception as error:  # noqa: BLE001 - a driver of the application may raise anything
        return str(error) or type(error).__name__
    return "no answer"


# -- purge -----------------------------------------------------------------------------------


def purge(args: argparse.Namespace) -> int:
    """Remove expired entries from the stores that keep them until somebody does."""

    def act(driver: KVS) -> str:
        remove = getattr(driver, "purge", None)
        if remove is None:
            return "removes expired entries by itself"
        return f"{remove()} expired removed"

    with application(args) as registry:
        return for_each(stores(registry), act)


# -- thaw ------------------------------------------------------------------------------------


def add_thaw_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="an image of Perl's Storable; -: the input")
    parser.add_argument(
        "--encoding",
        default="utf-8",
        help="of strings without Perl's UTF-8 flag (utf-8); 'none': they stay bytes",
    )
    parser.add_argument("--indent", type=int, metavar="N", help="spaces for each level of nesting")


def thaw(args: argparse.Namespace) -> int:
    """Print a Storable image as JSON, with tags for what JSON has no form for."""
    encoding = None if args.encoding == "none" else args.encoding
    try:
        value = storable.thaw(_read(args.file), encoding=encoding)
        text = tagged_json.dumps(value, indent=args.indent)
    except (OSError, ValueError, LookupError) as error:
        raise Failed(f"{args.file}: {getattr(error, 'strerror', None) or error}") from error
    print_line(text)
    return 0


def _read(path: str) -> bytes:
    if path == "-":
        return sys.stdin.buffer.read(storable.MAX_SIZE + 1)
    with Path(path).open("rb") as file:
        return file.read(storable.MAX_SIZE + 1)


# -- the script ------------------------------------------------------------------------------

COMMANDS: dict[str, Command] = {
    "limits": LIMITS,
    "migrate": Command("create the tables that the stores need", add_migrate_arguments, migrate),
    "ping": Command("ask each store whether it answers, and how fast", add_ini, ping),
    "purge": Command("remove expired entries from the stores that keep them", add_ini, purge),
    "thaw": Command("print an image of Perl's Storable as JSON", add_thaw_arguments, thaw),
}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pkvs", description="Look after the stores of pyramid_kvs."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        of_command = parsers.add_parser(name, help=command.help, description=command.run.__doc__)
        command.add_arguments(of_command)
        of_command.set_defaults(run=command.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status."""
    args = build_parser().parse_args(argv)
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

"""``pkvs migrate``, ``ping`` and ``purge``: the stores of an application."""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator

from pyramid.registry import Registry

from .. import FEATURES
from ..application import Application, Store
from ..exceptions import KVSError
from ..kvs import KVS, is_default
from ..messages import reason
from ..start import failure_of, nodes_of
from .application import (
    Command,
    Failed,
    add_ini,
    add_vars,
    application,
    print_error,
    print_line,
)


def stores_of(registry: Registry) -> list[Store]:
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
        print_error(f"{name}: {reason(error)}")
        return 1
    return 0


# -- migrate ---------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_ini(parser)
    add_vars(parser)


def add_migrate_arguments(parser: argparse.ArgumentParser) -> None:
    add_arguments(parser)
    parser.add_argument(
        "-n", "--dry-run", action="store_true", help="print what would be done, and do nothing"
    )


def migrate(args: argparse.Namespace) -> int:
    """Create what the stores need; running it again changes nothing."""

    def act(driver: KVS) -> str:
        if is_default(type(driver).initialize_schema, KVS.initialize_schema):
            return "needs nothing"
        driver.initialize_schema(dry_run=args.dry_run)
        return "nothing was done" if args.dry_run else "ready"

    with application(args) as registry, log_printed():
        return for_each(stores_of(registry), act)


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
    """Print the driver, server and latency of each store, or why it cannot serve.

    If a store consists of several servers that its driver tells apart, each has a line below it.
    """
    status = 0
    with application(args) as registry:
        for store in stores_of(registry):
            failure = failure_of(store.driver)
            found = f"failed: {failure}" if failure else f"{milliseconds(store.driver):.2f} ms  ok"
            print_line(f"{store.place}  {store.driver.kvs}  {store.server}  {found}")
            for node, problem in nodes_of(store.driver).items():
                print_line(f"    {node}  {f'failed: {problem}' if problem else 'ok'}")
            status = 1 if failure else status
    return status


def milliseconds(driver: KVS) -> float:
    """Return the time that a read takes on an open connection."""
    started = time.perf_counter()
    driver.raw_get("__kvs_ping")
    return (time.perf_counter() - started) * 1000


# -- purge -----------------------------------------------------------------------------------


def purge(args: argparse.Namespace) -> int:
    """Remove expired entries from the stores that do not remove them by themselves."""

    def act(driver: KVS) -> str:
        remove = getattr(driver, "purge", None)
        if remove is None:
            return "removes expired entries by itself"
        return f"{remove()} expired removed"

    with application(args) as registry:
        return for_each(stores_of(registry), act)


MIGRATE = Command("create the tables that the stores need", add_migrate_arguments, migrate)
PING = Command("check whether each store can serve, and how fast it answers", add_arguments, ping)
PURGE = Command("remove expired entries from stores that keep them", add_arguments, purge)

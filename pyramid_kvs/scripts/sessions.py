"""``pkvs sessions``: list the sessions of a user, or end them."""

from __future__ import annotations

import argparse
from datetime import datetime, timezone

from pyramid.interfaces import ISessionFactory
from pyramid.registry import Registry

from ..exceptions import KVSError
from ..kvs import KVS, is_default
from ..messages import reason
from ..session import SessionFactory, UserSession, end_user_sessions
from ..session.users.functions import list_user_sessions
from .application import Command, Failed, add_ini, add_vars, application, print_error, print_line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_ini(parser)
    parser.add_argument("user", metavar="USER", help="the id that the application gives to bind()")
    add_vars(parser)
    parser.add_argument("--end", action="store_true", help="end the sessions, and print how many")


def run(args: argparse.Namespace) -> int:
    """List the sessions of a user: handle, begin and last use. No line has a session id."""
    with application(args) as registry:
        driver = _driver(registry)
        try:
            if args.end:
                _print_ended(end_user_sessions(registry, args.user))
            else:
                _print_sessions(registry, driver, args.user)
        except (KVSError, TypeError) as error:
            raise Failed(reason(error)) from error
    return 0


def _driver(registry: Registry) -> KVS:
    """Return the driver of the sessions.

    :raises Failed: there is none, or only the processes of the server can see its sessions.
    """
    factory = registry.queryUtility(ISessionFactory)
    if not isinstance(factory, SessionFactory):
        raise Failed(
            "the application has no sessions of pyramid_kvs: the setting kvs.session is not set"
        )
    if not factory.driver.is_shared:
        raise Failed(
            f"the sessions are in the memory of the server's processes (driver "
            f"{factory.driver.kvs}), where this command cannot see them"
        )
    return factory.driver


def _print_sessions(registry: Registry, driver: KVS, user: str) -> None:
    if is_default(type(driver).get_keys, KVS.get_keys):
        raise Failed(
            f"the {driver.kvs} driver cannot list the sessions of a user: --end ends all of them"
        )
    found = list_user_sessions(registry, user)
    for session in found:
        print_line(_line(session))
    if not found:
        print_error("the user has no sessions")


def _line(session: UserSession) -> str:
    last_seen = "-" if session.last_seen is None else _time(session.last_seen)
    return f"{session.handle}  {_time(session.created)}  {last_seen}"


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _print_ended(count: int | None) -> None:
    if count is None:
        print_line("all sessions of the user are ended; the store cannot count them")
    else:
        print_line(f"sessions ended: {count}")


SESSIONS = Command("list the sessions of a user, or end them", add_arguments, run)

"""The limits of an application for its operators: listing them by view, and clearing counters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .identity import UNKNOWN_ADDRESS, address_of, parse_address, plain
from .limiter import Ratelimit
from .limits import Limit


class Row(NamedTuple):
    """A limit and where it applies, or that there is no limit; all as strings."""

    scope: str
    name: str
    strategy: str = ""
    limit: str = ""
    window: str = ""
    by: str = ""
    store: str = ""
    notes: str = ""


def rows(limiter: Ratelimit) -> list[Row]:
    """Return a row for each limit of the application, then of each view with an option."""
    listed = list(_rows("application", limiter.registry.application.limits, "no limit"))
    for view in limiter.registry.views:
        listed += _rows(view.label, view.limits.limits, "exempt")
    return listed


def _rows(scope: str, limits: list[Limit], otherwise: str) -> Iterator[Row]:
    if not limits:
        yield Row(scope, otherwise)
    for limit in limits:
        rule = limit.rule
        burst = f" (burst {rule.burst})" if rule.burst != rule.limit else ""
        yield Row(
            scope,
            limit.name,
            rule.strategy + burst,
            str(rule.limit),
            f"{limit.window:g} s",
            limit.by,
            limit.store.driver.kvs,
            limit.notes,
        )


def clear(limiter: Ratelimit, who: str) -> int:
    """Remove the counters of a session, address, user or header's value; return how many.

    :param who: the id or token of a session, an address, or another identity.
    :raises KVSError: a store does not remove them.
    """
    removed = 0
    for limit in limiter.registry.limits:
        driver = limit.store.driver
        for identity, home in sorted(_identities(limiter, limit, who).items()):
            key = limit.key(identity, home)
            removed += key is not None and driver.raw_delete(key) is not None
    return removed


def _identities(limiter: Ratelimit, limit: Limit, who: str) -> dict[str, str]:
    """Return the identities that somebody may have, and the key that is the home of each."""
    found = [] if parse_address(who) is None else [address_of(who)]
    if who == "none":
        found.append(UNKNOWN_ADDRESS)
    if limit.by == "user":
        found.append(plain(f"@user::{who}"))
    elif limit.by.startswith("header:"):
        name = limit.by.removeprefix("header:").lower()
        found.append(plain(f"@header::{name}::{who}"))
    elif limit.by not in ("address", "session"):
        found.append(plain(f"@by::{who}"))
    homes = {identity: identity for identity in found}
    if limit.by == "session" and limiter.session is not None:
        homes.update((plain(key), key) for key in limiter.session.keys_of(who))
    return homes

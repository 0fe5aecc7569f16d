"""Counting on a store, and what the limits do while the store is unavailable: ``on_error``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..exceptions import KVSError, KVSUnavailable
from .counting import Hit, LimitCheck
from .limits import Limit
from .store import LimitStore


class Answer(NamedTuple):
    """What was counted, or ``None``, and whether the store has counted it."""

    hit: Hit | None
    is_of_store: bool


def count(
    store: LimitStore,
    limits: Sequence[Limit],
    checks: Sequence[LimitCheck],
    session_key: str | None = None,
    renew: float | None = None,
) -> Answer:
    """Count a request on a store, or do what ``on_error`` of each limit says.

    :param checks: one for each limit.
    :raises KVSUnavailable: the store is unavailable, and ``on_error`` of a limit is ``"deny"``.
    """
    try:
        return Answer(store.count(checks, session_key, renew), is_of_store=True)
    except KVSError as error:
        return Answer(_count_without(store, limits, checks, error), is_of_store=False)


def _count_without(
    store: LimitStore, limits: Sequence[Limit], checks: Sequence[LimitCheck], error: KVSError
) -> Hit | None:
    chosen = {limit.on_error for limit in limits}
    if "deny" in chosen:
        raise KVSUnavailable("rate limit: no request passes without the store") from error
    store.log.warning(
        "rate limit: the store is unavailable, %s: %s",
        "this process counts by itself" if "memory" in chosen else "requests pass uncounted",
        error,
    )
    if "memory" not in chosen:
        return None
    return store.count_here(
        [_check_here(limit, check) for limit, check in zip(limits, checks, strict=True)]
    )


def _check_here(limit: Limit, check: LimitCheck) -> LimitCheck:
    """Return the check for this process, where no session is known."""
    key = check.unknown_key or check.key if limit.on_error == "memory" else None
    return LimitCheck(check.rule, key, key)

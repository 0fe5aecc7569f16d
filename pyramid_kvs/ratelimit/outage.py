"""Counting on a store, and what the limits do if it fails.

An unavailable store is an outage, which ends by itself: ``on_error`` of each limit applies. A store
that refuses, for example because a permission or a table is missing, refuses until somebody
corrects it. A limit must not be off until then, so this process counts by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import TypeAlias

from ..exceptions import KVSError, KVSUnavailable
from ..messages import reason
from .counting import Hit, LimitCheck
from .limits import Limit
from .store import LimitStore

#: What was counted, or ``None``, and whether the store has counted it.
Answer: TypeAlias = "tuple[Hit | None, bool]"


def count(
    store: LimitStore,
    limits: Sequence[Limit],
    checks: Sequence[LimitCheck],
    session_key: str | None = None,
    renew: float | None = None,
) -> Answer:
    """Count a request on a store, or do what is right if it fails.

    A request that the store has just refused is refused again without asking it.

    :param checks: one for each limit.
    :raises KVSUnavailable: the store fails, and ``on_error`` of a limit is ``"deny"``.
    """
    sent, offenders = monotonic(), store.offenders
    if sent < offenders.until:
        known = offenders.find(checks)
        if known is not None:
            return known, False
    try:
        count_on_store = store.count
        hit = count_on_store(checks, session_key, renew)
    except KVSUnavailable as error:
        return _count_without(store, limits, checks, error), False
    except KVSError as error:
        return _count_refused(store, limits, checks, error), False
    if not hit.all_allow:
        offenders.note(checks, hit, sent)
    return hit, True


def _count_without(
    store: LimitStore, limits: Sequence[Limit], checks: Sequence[LimitCheck], error: KVSError
) -> Hit | None:
    """Do what ``on_error`` of each limit says."""
    chosen = {limit.on_error for limit in limits}
    _deny(chosen, error)
    store.log.warning(
        "rate limit: the store is unavailable, %s: %s",
        "this process counts by itself" if "memory" in chosen else "requests pass uncounted",
        error,
    )
    if "memory" not in chosen:
        return None
    return store.count_here(
        [
            _check_here(check) if limit.on_error == "memory" else LimitCheck(check.rule, None, None)
            for limit, check in zip(limits, checks, strict=True)
        ]
    )


def _count_refused(
    store: LimitStore, limits: Sequence[Limit], checks: Sequence[LimitCheck], error: KVSError
) -> Hit:
    """Count in this process, whatever ``on_error`` says but ``"deny"``."""
    chosen = {limit.on_error for limit in limits}
    store.refusals.error(
        "rate limit: the store refuses to count, %s: %s",
        "no request passes" if "deny" in chosen else "this process counts by itself",
        reason(error),
    )
    _deny(chosen, error)
    return store.count_here([_check_here(check) for check in checks])


def _deny(chosen: set[str], error: KVSError) -> None:
    if "deny" in chosen:
        raise KVSUnavailable("rate limit: no request passes without the store") from error


def as_counted(checks: Sequence[LimitCheck], hit: Hit) -> list[LimitCheck]:
    """Return checks for what else the request counts, after this process has counted it.

    It knows no session, and has counted one under its key if nothing else counts the request.
    """
    pairs = zip(checks, hit.results, strict=True)
    return [
        check if hit.is_known or result is None else _check_here(check) for check, result in pairs
    ]


def _check_here(check: LimitCheck) -> LimitCheck:
    """Return the check for this process, where no session is known."""
    key = check.unknown_key or check.key
    return LimitCheck(check.rule, key, key)

"""A limit's store, and what holds while it is away."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..exceptions import KVSError, KVSUnavailable
from ..kvs import KVS
from ..logs import ThrottledLog
from .counting import Hit, LimitCheck, RequestCounter, request_counter

if TYPE_CHECKING:
    from .options import Limit

#: A store that took so long (seconds) to fail is hung: for a while it is not asked again, since
#: each request would wait as long.
SLOW = 0.2
LEFT_ALONE = 1.0


class Answer(NamedTuple):
    """What was counted (``None``: nothing), and whether the store did it."""

    hit: Hit | None
    is_of_store: bool


class LimitStore:
    """One driver that limits count on."""

    def __init__(self, driver: KVS) -> None:
        self.driver = driver
        self._count = request_counter(driver)
        self._log = ThrottledLog(logging.getLogger("pyramid_kvs.ratelimit"))
        self._left_alone_until = 0.0
        self._count_locally: RequestCounter | None = None

    def hit(
        self,
        limits: Sequence[Limit],
        checks: Sequence[LimitCheck],
        session_key: str | None = None,
        renew: float | None = None,
    ) -> Answer:
        """Count a request, or do what each limit's ``on_error`` says.

        :raises KVSUnavailable: the store is away, and ``on_error`` of a limit is ``"deny"``.
        """
        try:
            return Answer(self._ask(checks, session_key, renew), is_of_store=True)
        except KVSError as error:
            return Answer(self._without_store(limits, checks, error), is_of_store=False)

    def _ask(
        self, checks: Sequence[LimitCheck], session_key: str | None, renew: float | None
    ) -> Hit:
        started = time.monotonic()
        if started < self._left_alone_until:
            raise KVSUnavailable(f"the {self.driver.kvs} store did not answer a moment ago")
        try:
            return self._count(checks, session_key, renew)
        except KVSUnavailable as error:
            ended = time.monotonic()
            # Without a cause it is our own pool that is empty: no reason to count nobody at all.
            if ended - started > SLOW and error.__cause__ is not None:
                self._left_alone_until = ended + LEFT_ALONE
            raise

    def _without_store(
        self, limits: Sequence[Limit], checks: Sequence[LimitCheck], error: KVSError
    ) -> Hit | None:
        wishes = {limit.on_error for limit in limits}
        if "deny" in wishes:
            raise KVSUnavailable("rate limit: the store is away, no request passes") from error
        self._log.warning(
            "rate limit: the store is away, %s: %s",
            "this process counts alone" if "memory" in wishes else "requests pass uncounted",
            error,
        )
        if "memory" not in wishes:
            return None
        return self._count_here(limits, checks)

    def _count_here(self, limits: Sequence[Limit], checks: Sequence[LimitCheck]) -> Hit:
        """Count in this process those limits that want it; nobody's session is known now."""
        if self._count_locally is None:
            self._count_locally = request_counter(KVS("memory"))
        here = [_check_here(limit, check) for limit, check in zip(limits, checks, strict=True)]
        return self._count_locally(here)


def _check_here(limit: Limit, check: LimitCheck) -> LimitCheck:
    key = check.unknown_key or check.key if limit.on_error == "memory" else None
    return LimitCheck(check.rule, key, key)

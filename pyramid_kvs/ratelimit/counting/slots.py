"""Counting on a cluster: a script for each slot, all at the same time.

Within a slot, either all limits allow a request, or none counts it, as on a single server. No
store does that in one step over several slots. So each slot counts by itself, and if a limit in
one of them refuses, the others return in a second round trip what they have counted. For that
moment a refused request holds units of other limits. No limit is ever exceeded.

The counters of a session are in its slot, so that one script loads the session and counts. Only
its reply tells whether limits count by another key, because the store does not know the session.
Then they count in a second round trip.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from time import monotonic
from typing import Any

from ...exceptions import KVSError, KVSUnavailable
from ...kvs import RunsScriptsBySlot, Stored
from .rules import LOOK, Hit, LimitCheck, LimitResult, Rule, returning
from .scripts import hit, hit_in, script_call

#: Checks by their place among those of the request. Each counts at its key.
Part = dict[int, LimitCheck]


class SlotCounter:
    """Counts requests on a driver whose store is a cluster.

    A key for a known session must be a companion of the session's key.
    """

    def __init__(self, driver: RunsScriptsBySlot) -> None:
        self._driver = driver

    def __call__(
        self,
        checks: Sequence[LimitCheck],
        session_key: str | None = None,
        renew: float | None = None,
    ) -> Hit:
        """Count one request; see :class:`~pyramid_kvs.ratelimit.counting.RequestCounter`.

        :raises KVSError: a node fails, and no limit on another node refuses the request.
        """
        if session_key is None:
            if len(checks) == 1 and checks[0].unknown_key is not None:
                return hit(self._driver, checks)
        elif all(check.key != check.unknown_key for check in checks):
            found = self._count_known(checks, session_key, renew)
            if found.is_known:
                return found
            return self([LimitCheck(rule, key, key) for rule, _, key in checks])
        return _Count(self._driver, checks).count(session_key, renew)

    def _count_known(
        self, checks: Sequence[LimitCheck], session_key: str, renew: float | None
    ) -> Hit:
        """Count on limits that all depend on the session, unless the store does not know it."""
        known = [LimitCheck(rule, key, None) for rule, key, _ in checks]
        call = script_call(self._driver, known, session_key, renew)
        return hit_in(self._driver.run_packed(*call), known)


class _Count:
    """One request that is being counted."""

    def __init__(self, driver: RunsScriptsBySlot, checks: Sequence[LimitCheck]) -> None:
        self._driver = driver
        self._checks = checks
        self._results: dict[int, LimitResult | None] = dict.fromkeys(range(len(checks)))
        self._session: Stored | None = None
        #: What has counted the request.
        self._counted: Part = {}
        self._is_refused = False
        self._errors: list[KVSError] = []
        self._sent = monotonic()

    def count(self, session_key: str | None, renew: float | None) -> Hit:
        parts, waiting = self._split(session_key)
        self._ask(parts, session_key, renew)
        if self._session is not None or self._errors:
            waiting = {}
        elif not self._is_refused:
            self._ask(self._by_slot(waiting))
            waiting = {}
        if self._is_refused:
            self._give_back(waiting)
        elif self._errors:
            raise _most_lasting(self._errors)
        return Hit.of(self._checks, list(self._results.values()), self._session)

    def _split(self, session_key: str | None) -> tuple[list[Part], Part]:
        """Return the parts, the one of the session first, and what waits for its reply.

        Those checks count only if the session is unknown.
        """
        unknown = {
            place: LimitCheck(rule, key, key) for place, (rule, _, key) in enumerate(self._checks)
        }
        if session_key is None:
            return self._by_slot(unknown), {}
        with_session = {
            place: LimitCheck(check.rule, check.key, None)
            for place, check in enumerate(self._checks)
            if check.key != check.unknown_key
        }
        waiting = {place: unknown.pop(place) for place in with_session}
        return self._by_slot(unknown, {self._driver.slot_of(session_key): with_session}), waiting

    def _by_slot(self, checks: Part, parts: dict[int, Part] | None = None) -> list[Part]:
        """Add checks to the parts of their slots, and return all parts."""
        found: dict[int, Part] = parts or {}
        for place, check in checks.items():
            if check.key is not None:
                found.setdefault(self._driver.slot_of(check.key), {})[place] = check
        return list(found.values())

    def _ask(
        self, parts: list[Part], session_key: str | None = None, renew: float | None = None
    ) -> None:
        """Count on each part, and load the session with the first one."""
        for part, reply in zip(parts, self._run(parts, session_key, renew), strict=True):
            if isinstance(reply, KVSError):
                self._errors.append(reply)
            else:
                self._note(part, hit_in(reply, list(part.values())))

    def _run(
        self, parts: list[Part], session_key: str | None = None, renew: float | None = None
    ) -> list[Any]:
        calls = [script_call(self._driver, list(part.values())) for part in parts[1:]]
        if parts:
            first = list(parts[0].values())
            calls.insert(0, script_call(self._driver, first, session_key, renew))
        if len(calls) != 1:
            return self._driver.run_many(calls) if calls else []
        try:
            return [self._driver.run_packed(*calls[0])]
        except KVSError as error:
            return [error]

    def _note(self, part: Part, found: Hit) -> None:
        self._session = self._session or found.session
        self._is_refused = self._is_refused or not found.allowed
        for (place, check), result in zip(part.items(), found.results, strict=True):
            self._results[place] = result
            is_counted = found.allowed and result is not None and result.allowed
            if is_counted and check.rule.cost > 0 and check.rule.mode != LOOK:
                self._counted[place] = LimitCheck(check.rule, check.key, check.key)

    def _give_back(self, waiting: Part) -> None:
        """Return what was counted for a request that is refused, as far as nodes answer.

        :param waiting: checks that were not asked yet. They tell what they would have decided.
        """
        again = {
            place: check._replace(rule=self._returning(check.rule, self._results[place]))
            for place, check in self._counted.items()
        }
        for place, check in waiting.items():
            again[place] = check._replace(rule=check.rule._replace(mode=LOOK, is_shadow=True))
        parts = self._by_slot(again)
        for part, reply in zip(parts, self._run(parts), strict=True):
            if not isinstance(reply, KVSError):
                found = hit_in(reply, list(part.values()))
                self._results.update(zip(part, found.results, strict=True))

    def _returning(self, rule: Rule, result: LimitResult | None) -> Rule:
        """Return the rule that returns what a rule has just counted, unless it no longer counts."""
        assert result is not None
        age_ms = 0
        if rule.strategy == "fixed-window":  # a window that began since is younger
            age_ms = rule.window_ms - result.reset_ms
        elif rule.strategy == "gcra":
            age_ms = math.ceil((monotonic() - self._sent) * 1000)
        return returning(rule, None, age_ms, result.remaining)


def _most_lasting(errors: list[KVSError]) -> KVSError:
    """Return the error that will not pass by itself, if there is one."""
    return min(errors, key=lambda error: isinstance(error, KVSUnavailable))

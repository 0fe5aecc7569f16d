"""The limiter: counts requests against limits, and refuses those over one of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any, NamedTuple

from pyramid.path import DottedNameResolver
from pyramid.request import Request

from ..application import Application
from ..exceptions import KVSError, KVSUnavailable
from . import outage
from .counting import LimitCheck
from .counting.offenders import LONGEST
from .decision import Counters, RequestLimits, resolved
from .identity import Lookup, SessionSource, client_address
from .limits import Limit
from .outcome import await_outcome
from .proxies import ProxyWatch
from .registry import Group, LimitRegistry, LimitSet
from .store import LimitStore
from .views.late import LateRefusals
from .views.matcher import RouteMatcher

_RESOLVER = DottedNameResolver(None)

#: For how many clients to remember the store that has refused them.
_MOST_CLIENTS = 10_000

#: The key of a WSGI environment for what an earlier attempt of pyramid_retry has decided.
_EARLIER = "pyramid_kvs.ratelimit"


#: For how many refused clients to remember their sessions. Each has up to eight look-ups.
_MOST_SESSIONS = 1_000


class Holder(NamedTuple):
    """The key that a session counts under, ``None`` if no session is known, and until when."""

    known: str | None
    until: float


class RefusedSessions:
    """Remembers the sessions of refused clients for a second.

    They were looked for before the store of the counters was asked, which needs no other trip to
    refuse the client again.
    """

    def __init__(self) -> None:
        self._found: dict[tuple[Lookup, ...], Holder] = {}

    def find(self, lookups: Sequence[Lookup]) -> Holder | None:
        """Return what was found, or ``None`` to look again."""
        found = self._found.get(tuple(lookups)) if self._found else None
        return None if found is None or found.until < monotonic() else found

    def note(self, lookups: Sequence[Lookup], holder: Holder) -> None:
        """Remember the session of a client that is refused."""
        if len(self._found) >= _MOST_SESSIONS:
            self._found = {}
        self._found[tuple(lookups)] = holder


class Ratelimit:
    """The limiter of an application.

    :param settings: the value of ``kvs.ratelimit``: JSON, an object, or a list of objects.
    :param session: a session factory. Its sessions are counted, by default on its store.
    :param application: the application whose drivers and codecs are used.
    :param resolve: imports a dotted name.
    :raises pyramid.exceptions.ConfigurationError: the settings are not valid.
    """

    def __init__(
        self,
        settings: Any,
        session: SessionSource | None = None,
        application: Application | None = None,
        resolve: Callable[[str], Any] = _RESOLVER.maybe_resolve,
    ) -> None:
        self.session = session
        self.matcher = RouteMatcher()
        self.late_refusals = LateRefusals()
        self.refused_sessions = RefusedSessions()
        self._refused_by: dict[str | None, LimitStore] = {}
        self.proxies = ProxyWatch()
        self.registry = LimitRegistry(session, application or Application(), resolve)
        self.registry.add_setting(settings)

    def count(self, request: Request, limits: LimitSet | None = None) -> RequestLimits:
        """Count a request, and have the header fields added to its response.

        :param limits: ``None`` means the limits of the application.
        :returns: what ``request.ratelimit`` is from now on.
        :raises RateLimitError: the request is over a limit. Then no limit has counted it.
        :raises KVSUnavailable: a store is unavailable, and ``on_error`` is ``"deny"``.
        """
        limits = self.registry.application if limits is None else limits
        decided = request.__dict__.get("ratelimit")
        if not isinstance(decided, RequestLimits):
            decided = request.ratelimit = RequestLimits()
        environ = request.environ
        if "retry.attempt" in environ:
            decided, limits = self._in_attempt(request, decided, limits)
        if environ.get("REQUEST_METHOD") == "OPTIONS" and _is_preflight(environ):
            limits = limits.of_preflights
        if limits.groups:
            if limits.by_address and (
                "HTTP_X_FORWARDED_FOR" in environ or "HTTP_FORWARDED" in environ
            ):
                self.proxies.look(environ)
            if decided.is_empty:
                request.add_response_callback(decided.add_headers)
            self._count(request, limits, decided)
        return decided

    def _in_attempt(
        self, request: Request, decided: RequestLimits, limits: LimitSet
    ) -> tuple[RequestLimits, LimitSet]:
        """Return what an attempt of pyramid_retry continues with, and what it has to count.

        A request that is repeated counts once, and pays for what its last attempt is charged.
        """
        environ = request.environ
        earlier = environ.get(_EARLIER) if environ["retry.attempt"] else None
        if earlier is None:
            environ[_EARLIER] = decided
            return decided, limits
        if request.ratelimit is not earlier:
            request.ratelimit = earlier
            earlier.begin_attempt(request)
        return earlier, limits.without(earlier.limits)

    def _count(self, request: Request, limits: LimitSet, decided: RequestLimits) -> None:
        lookups: Sequence[Lookup] = ()
        if limits.by_session and self.session is not None:
            lookups = self.session.lookups(request)
        for group in limits.groups if len(limits.groups) < 2 else self._in_order(request, limits):
            counters = self._count_group(request, group, lookups, decided)
            if counters is not None:
                if group.by_outcome:
                    counters = await_outcome(request, decided, counters)
                decided.add_counters(counters)

    def _in_order(self, request: Request, limits: LimitSet) -> list[Group]:
        """Return the groups, and first the store that has refused the client before.

        It may refuse again without being asked, and then no other store has counted for nothing.
        """
        store = self._refused_by.get(client_address(request))
        return sorted(limits.groups, key=lambda group: group.store is not store)

    def _note_refusal(self, request: Request, group: Group) -> None:
        if len(self._refused_by) >= _MOST_CLIENTS:
            self._refused_by = {}
        self._refused_by[client_address(request)] = group.store

    def _count_group(
        self, request: Request, group: Group, lookups: Sequence[Lookup], decided: RequestLimits
    ) -> Counters | None:
        """Count on one store; return the counters, or ``None`` if nothing was counted."""
        limits = group.limits
        if group.is_conditional:
            limits = [limit for limit in limits if limit.applies(request)]
        if not limits:
            return None
        try:
            checks, lookup, holder = self._checks(request, group, limits, lookups)
            asked, renew, _ = lookup or (None, None, None)
            hit, is_of_store = outage.count(group.store, limits, checks, asked, renew)
        except KVSUnavailable:
            decided.note_uncounted(limits)
            raise
        if hit is None:
            decided.note_uncounted(limits)
            return None
        if asked is not None and is_of_store and self.session is not None:
            self.session.preload(request, asked, hit.session)
        decided.note(limits, hit.results)
        if not hit.allowed:
            self._note_refusal(request, group)
            if holder is not None:
                self.refused_sessions.note(lookups, holder)
            if any(limit.is_late for limit in limits):
                self.late_refusals.note(request)
            decided.refuse_request()
        if not is_of_store:
            checks = outage.as_counted(checks, hit)
        return Counters.after(group.store, limits, checks, hit)

    def _checks(
        self, request: Request, group: Group, limits: list[Limit], lookups: Sequence[Lookup]
    ) -> tuple[list[LimitCheck], Lookup | None, Holder | None]:
        """Return what to count, and who looks for the session.

        That is the look-up that the counters' store does with it, or what was found before.
        """
        counted_as = lookups[0][2] if lookups else None
        if not (lookups and group.by_session):
            return [limit.check(request, counted_as) for limit in limits], None, None
        if group.store is self.registry.session_store and len(lookups) == 1:
            return [limit.check(request, counted_as) for limit in limits], lookups[0], None
        holder = self.refused_sessions.find(lookups) or self._holder(request, limits, lookups)
        checks = [limit.check(request, holder.known or counted_as) for limit in limits]
        return resolved(checks, holder.known is not None), None, holder

    def _holder(self, request: Request, limits: list[Limit], lookups: Sequence[Lookup]) -> Holder:
        """Look for the session; there is none if its store fails.

        :raises KVSUnavailable: it fails, and ``on_error`` of a limit is ``"deny"``.
        """
        until = monotonic() + LONGEST
        try:
            return Holder(self._known(request, lookups), until)
        except KVSError as error:
            for limit in limits:
                if limit.by == "session":
                    limit.note_failure(error)
            return Holder(None, until)

    def _known(self, request: Request, lookups: Sequence[Lookup]) -> str | None:
        """Look for the session where the counters' store cannot; return the key to count it under.

        :raises KVSError: the store of the sessions fails.
        """
        if self.session is None:
            return None
        for key, ttl, counted_as in lookups:
            stored = self.session.driver.raw_load(key, ttl)
            if self.session.preload(request, key, stored):
                return counted_as
        return None


def _is_preflight(environ: Mapping[str, Any]) -> bool:
    """Return whether an ``OPTIONS`` request asks if CORS allows another request."""
    return "HTTP_ORIGIN" in environ and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ

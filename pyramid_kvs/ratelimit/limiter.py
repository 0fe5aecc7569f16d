"""The limiter: counts requests against limits, and refuses those over one of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any, NamedTuple, NoReturn

from pyramid.path import DottedNameResolver
from pyramid.request import Request

from ..application import Application
from ..exceptions import KVSError, KVSUnavailable
from ..kvs import new_tuple
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

#: Instead of a look-up, if there is none to do.
_NO_LOOKUP = (None, None, None)


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
        self._session_store = self.registry.session_store

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
            if not decided.by_limit:
                request.add_response_callback(decided.add_headers)
            lookups: Sequence[Lookup] = ()
            if limits.by_session and self.session is not None:
                lookups = self.session.lookups(request)
            groups = limits.groups
            for group in groups if len(groups) < 2 else self._in_order(request, groups):
                self._count_group(request, group, lookups, decided)
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

    def _in_order(self, request: Request, groups: list[Group]) -> list[Group]:
        """Return the groups, and first the store that has refused the client before.

        It may refuse again without being asked, and then no other store has counted for nothing.
        """
        store = self._refused_by.get(client_address(request))
        return sorted(groups, key=lambda group: group.store is not store)

    def _count_group(
        self, request: Request, group: Group, lookups: Sequence[Lookup], decided: RequestLimits
    ) -> None:
        """Count on one store."""
        store, limits, by_session, is_conditional, by_outcome = group
        limits, holder = (group.applying(request) if is_conditional else limits), None
        if not limits:
            return
        asked, renew, counted_as = lookups[0] if lookups else _NO_LOOKUP
        # The store of the counters loads the session with them, if it is the session's store.
        asked, renew = (asked, renew) if by_session else (None, None)
        try:
            if asked is not None and (len(lookups) > 1 or store is not self._session_store):
                checks, holder = self._checks(request, limits, lookups)
                asked = renew = None
            else:
                checks = []
                for limit in limits:  # in Python 3.11, faster than a comprehension
                    checks.append(limit.check(request, counted_as))
            hit, is_of_store = outage.count(store, limits, checks, asked, renew)
        except KVSUnavailable:
            decided.note_uncounted(limits)
            raise
        if hit is None:
            decided.note_uncounted(limits)
            return
        results, session, is_known, is_allowed, all_allow = hit
        if asked is not None and is_of_store and self.session is not None:
            self.session.preload(request, asked, session)
        if not is_allowed:
            decided.note(limits, results)
            self._refuse(request, limits, lookups, holder, decided)
        checks = checks if is_of_store else outage.as_counted(checks, hit)
        counters = new_tuple(Counters, (store, limits, checks, is_known))
        if not all_allow:
            counters = counters.without_shadows(hit)
        if by_outcome:
            decided.note(limits, results)  # subscribers may add callbacks, which go first
            decided.note([], [], await_outcome(request, decided, counters))
        else:
            decided.note(limits, results, counters)

    def _refuse(
        self,
        request: Request,
        limits: list[Limit],
        lookups: Sequence[Lookup],
        holder: Holder | None,
        decided: RequestLimits,
    ) -> NoReturn:
        """Refuse a request, and remember the client."""
        if len(self._refused_by) >= _MOST_CLIENTS:
            self._refused_by = {}
        self._refused_by[client_address(request)] = limits[0].store
        if holder is not None:
            self.refused_sessions.note(lookups, holder)
        if any(limit.is_late for limit in limits):
            self.late_refusals.note(request)
        decided.refuse_request()

    def _checks(
        self, request: Request, limits: list[Limit], lookups: Sequence[Lookup]
    ) -> tuple[list[LimitCheck], Holder]:
        """Return what to count for a session that the store of the counters cannot load."""
        holder = self._holder(request, limits, lookups)
        counted_as = holder.known or lookups[0][2]
        checks = [limit.check(request, counted_as) for limit in limits]
        return resolved(checks, holder.known is not None), holder

    def _holder(self, request: Request, limits: list[Limit], lookups: Sequence[Lookup]) -> Holder:
        """Return what was found before, or look for the session; none if its store fails.

        :raises KVSUnavailable: it fails, and ``on_error`` of a limit is ``"deny"``.
        """
        found = self.refused_sessions.find(lookups)
        if found is not None:
            return found
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

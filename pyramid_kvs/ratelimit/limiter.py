"""The limiter: counts requests against limits, and refuses those over one of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pyramid.path import DottedNameResolver
from pyramid.request import Request

from ..application import Application
from ..exceptions import KVSError, KVSUnavailable
from . import outage
from .counting import LimitCheck
from .decision import Counters, RequestLimits, resolved
from .identity import SessionSource
from .limits import Limit
from .proxies import ProxyWatch
from .registry import Group, LimitRegistry, LimitSet
from .views.matcher import RouteMatcher

_RESOLVER = DottedNameResolver(None)

#: The key of a WSGI environment for what an earlier attempt of pyramid_retry has decided.
_EARLIER = "pyramid_kvs.ratelimit"


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
            request.add_response_callback(earlier.add_headers)
            earlier.begin_attempt()
        return earlier, limits.without(earlier.limits)

    def _count(self, request: Request, limits: LimitSet, decided: RequestLimits) -> None:
        session_keys: list[str] = []
        if limits.by_session and self.session is not None:
            session_keys = self.session.session_keys(request)
        for group in limits.groups:
            counters = self._count_group(request, group, session_keys, decided)
            if counters is not None:
                if not decided.allowed:
                    decided.refuse()
                decided.add_counters(counters)

    def _count_group(
        self, request: Request, group: Group, session_keys: list[str], decided: RequestLimits
    ) -> Counters | None:
        """Count on one store; return the counters, or ``None`` if nothing was counted."""
        limits = group.limits
        if group.by_method:
            limits = [limit for limit in limits if limit.applies(request)]
        if not limits:
            return None
        try:
            checks, asked = self._checks(request, group, limits, session_keys)
            renew = None if asked is None or self.session is None else self.session.ttl
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
        return Counters(group.store, limits, checks, hit.session is not None)

    def _checks(
        self, request: Request, group: Group, limits: list[Limit], session_keys: list[str]
    ) -> tuple[list[LimitCheck], str | None]:
        """Return what to count, and the session that the counters' store loads with them."""
        session_key = session_keys[0] if session_keys else None
        checks = [limit.check(request, session_key) for limit in limits]
        if not (session_keys and group.by_session):
            return checks, None
        if group.store is self.registry.session_store and len(session_keys) == 1:
            return checks, session_key
        try:
            is_known = self._is_known(request, session_keys)
        except KVSError as error:
            for limit in limits:
                if limit.by == "session":
                    limit.note_failure(error)
            is_known = False
        return resolved(checks, is_known), None

    def _is_known(self, request: Request, session_keys: list[str]) -> bool:
        """Look for a session in another store than the counters, or under one of two keys.

        :raises KVSError: the store of the sessions fails.
        """
        if self.session is None:
            return False
        for key in session_keys:
            stored = self.session.driver.raw_load(key, self.session.ttl)
            self.session.preload(request, key, stored)
            if stored is not None:
                return True
        return False


def _is_preflight(environ: Mapping[str, Any]) -> bool:
    """Return whether an ``OPTIONS`` request asks if CORS allows another request."""
    return "HTTP_ORIGIN" in environ and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ

"""The limiter: counts requests against limits, and refuses those over one of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyramid.path import DottedNameResolver
from pyramid.request import Request

from ..application import Application
from ..exceptions import KVSError, KVSUnavailable
from .book import Group, LimitBook, LimitSet, ViewLimits
from .counting import LimitCheck
from .decision import Counters, RequestLimits, settled
from .identity import SessionLike
from .options import Limit, read_setting

_RESOLVER = DottedNameResolver(None)


class Ratelimit:
    """The limiter of an application.

    :param settings: of ``kvs.ratelimit``: JSON text, an object, or a list of objects.
    :param session: a session factory; its holders are counted, by default on its store.
    :param application: whose drivers and codecs are known.
    :param resolve: imports a dotted name.
    :raises pyramid.exceptions.ConfigurationError: the settings are not valid.
    """

    def __init__(
        self,
        settings: Any,
        session: SessionLike | None = None,
        application: Application | None = None,
        resolve: Callable[[str], Any] = _RESOLVER.maybe_resolve,
    ) -> None:
        self.session = session
        self.book = LimitBook(session, application or Application(), resolve)
        #: What holds where no view says otherwise.
        self.application = LimitSet(self.book.add_application(read_setting(settings)))
        #: The views that have an option of their own.
        self.views: list[ViewLimits] = []
        #: The limits that routes give to their views, by the route's name.
        self.of_routes: dict[str, list[Limit]] = {}

    def count(self, request: Request, limits: LimitSet | None = None) -> RequestLimits:
        """Count a request, and see to the header fields of its response.

        :param limits: ``None``: those of the application.
        :returns: what ``request.ratelimit`` is from now on.
        :raises RateLimitError: it is over a limit; then no limit has counted it.
        :raises KVSUnavailable: a store is away, and ``on_error`` is ``"deny"``.
        """
        limits = self.application if limits is None else limits
        decided = request.__dict__.get("ratelimit")
        if not isinstance(decided, RequestLimits):
            decided = request.ratelimit = RequestLimits()
        if limits.groups:
            self.book.watch.look(request)
            if decided.is_empty:
                request.add_response_callback(decided.add_headers)
            self._count(request, limits, decided)
        return decided

    def _count(self, request: Request, limits: LimitSet, decided: RequestLimits) -> None:
        session_keys: list[str] = []
        if limits.by_session and self.session is not None:
            session_keys = self.session.session_keys(request)
        done: list[Counters] = []
        for group in limits.groups:
            counters = self._count_group(request, group, session_keys, decided)
            if counters is not None:
                if not decided.allowed:
                    decided.refuse(done)
                decided.add_counters(counters)
                done.append(counters)

    def _count_group(
        self, request: Request, group: Group, session_keys: list[str], decided: RequestLimits
    ) -> Counters | None:
        """Count on one store; return where, or ``None`` where nothing was counted."""
        limits = group.limits
        if group.by_method:
            limits = [limit for limit in limits if limit.applies(request)]
        checks, asked = self._checks(request, group, limits, session_keys)
        if not checks:
            return None
        try:
            hit, is_of_store = group.store.hit(limits, checks, asked, self._renewal(asked))
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
        """Return what to count, and the session that the counters' store is to look for."""
        session_key = session_keys[0] if session_keys else None
        checks = [_check(limit, request, session_key) for limit in limits]
        if not (checks and session_keys and group.by_session):
            return checks, None
        if group.store is self.book.session_store and len(session_keys) == 1:
            return checks, session_key
        return settled(checks, self._is_known(request, session_keys)), None

    def _renewal(self, session_key: str | None) -> float | None:
        return None if session_key is None or self.session is None else self.session.ttl

    def _is_known(self, request: Request, session_keys: list[str]) -> bool:
        """Look for a session that is kept elsewhere than the counters, or under one of two keys."""
        if self.session is None:
            return False
        for key in session_keys:
            try:
                stored = self.session.driver.raw_load(key, self.session.ttl)
            except KVSError:
                return False
            self.session.preload(request, key, stored)
            if stored is not None:
                return True
        return False


def _check(limit: Limit, request: Request, session_key: str | None) -> LimitCheck:
    identity = limit.identify(request, session_key)
    return LimitCheck(
        limit.rule,
        None if identity.known is None else identity.known + limit.suffix,
        None if identity.unknown is None else identity.unknown + limit.suffix,
    )

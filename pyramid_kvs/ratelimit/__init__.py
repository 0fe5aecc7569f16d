"""``kvs.ratelimit``: a tween that counts requests and refuses those over a limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyramid.config import Configurator
from pyramid.registry import Registry
from pyramid.request import Request
from pyramid.response import Response
from pyramid.tweens import EXCVIEW
from pyramid.viewderivers import INGRESS

from ..components import ORDER_FEATURES, components
from ..settings import is_set
from .book import LimitSet
from .decision import LimitStatus, RequestLimits
from .limiter import Ratelimit
from .options import SETTING
from .response import RateLimitError
from .views import (
    AT_ONCE,
    CATEGORY,
    DONE,
    LATER,
    RouteOption,
    Sorter,
    describe_limit,
    ratelimit_view,
)

__all__ = [
    "LimitSet",
    "LimitStatus",
    "RateLimitError",
    "Ratelimit",
    "RequestLimits",
    "includeme",
    "subscribe_ratelimit",
    "tween_factory",
]

Handler = Callable[[Request], Response]


def includeme(config: Configurator) -> None:
    """Add the option of views and routes and, if ``kvs.ratelimit`` is set, limiter and tween."""
    config.add_view_deriver(ratelimit_view, "kvs_ratelimit", under=INGRESS, over="secured_view")
    config.add_route_predicate("ratelimit", RouteOption)
    value = config.registry.settings.get(SETTING)
    if not is_set(config.registry.settings, SETTING):
        return
    introspectable = config.introspectable(CATEGORY, SETTING, "all other views", "setting")

    def build() -> None:
        parts = components(config.registry)
        limiter = Ratelimit(value, parts.session, parts, config.maybe_dotted)
        parts.ratelimit = limiter
        introspectable["limits"] = ", ".join(map(describe_limit, limiter.book.limits)) or "none"

    # One later than the session, whose store it uses.
    config.action(SETTING, build, introspectables=(introspectable,), order=ORDER_FEATURES + 1)
    config.add_request_method(_PerRequest(), "ratelimit")
    config.add_tween("pyramid_kvs.ratelimit.tween_factory", under=EXCVIEW)


class _PerRequest:
    """Makes ``request.ratelimit`` by ``__get__``, so that requests need no class of their own."""

    def __get__(self, request: Request | None, owner: type | None = None) -> RequestLimits:
        return RequestLimits()


def tween_factory(handler: Handler, registry: Registry) -> Handler:
    """Return the tween that counts requests at once, or sees to it that a view does."""
    limiter = components(registry).ratelimit
    if limiter is None:
        return handler
    sorter = Sorter(limiter.views, registry)

    def count_at_once(request: Request) -> Response:
        limiter.count(request)
        return handler(request)

    def count_in_time(request: Request) -> Response:
        if not sorter.may_differ(request):
            request._kvs_counted = AT_ONCE
            return count_at_once(request)
        request._kvs_counted = LATER
        try:
            response = handler(request)
        except Exception:  # a 404 too: no view answered, and the request counts all the same
            _count_after(request, limiter)
            raise
        _count_after(request, limiter)
        return response

    return count_in_time if sorter.is_needed else count_at_once


def _count_after(request: Request, limiter: Ratelimit) -> None:
    """Count a request that no view answered."""
    if request._kvs_counted is LATER:
        request._kvs_counted = DONE
        limiter.count(request)


def subscribe_ratelimit(event: Any) -> None:
    """Count the request of an event, and add the header fields by a response callback.

    For requests that did not pass through the router, and so not through the tween.

    :raises RateLimitError: it is over the limit.
    """
    request = event.request
    limiter = components(request.registry).ratelimit
    if limiter is not None:
        limiter.count(request)

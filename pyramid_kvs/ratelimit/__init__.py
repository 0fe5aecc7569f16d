"""``kvs.ratelimit``: a tween that counts requests and refuses those over a limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyramid.config import Configurator
from pyramid.registry import Registry
from pyramid.request import Request
from pyramid.response import Response
from pyramid.tweens import EXCVIEW

from ..application import ORDER_FEATURES, Application
from ..web.attribute import RequestAttribute
from .book import LimitSet
from .decision import LimitStatus, RequestLimits
from .limiter import Ratelimit
from .response import RateLimitError
from .settings import SETTING
from .views import (
    AT_ONCE,
    CATEGORY,
    DONE,
    LATER,
    Sorter,
    describe_limit,
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


def limiter_of(registry: Registry) -> Ratelimit | None:
    """Return the limiter of an application, or ``None`` if ``kvs.ratelimit`` is not set."""
    return Application.of(registry).features.get(SETTING)


def includeme(config: Configurator) -> None:
    """Add the limiter and its tween."""
    introspectable = config.introspectable(CATEGORY, SETTING, "all other views", "setting")
    features = Application.of(config.registry).features

    def build() -> None:
        application = Application.of(config.registry)
        limiter = Ratelimit(
            config.registry.settings[SETTING],
            features.get("kvs.session"),
            application,
            config.maybe_dotted,
        )
        features[SETTING] = limiter
        introspectable["limits"] = ", ".join(map(describe_limit, limiter.book.limits)) or "none"

    # One later than the session, whose store it uses.
    config.action(SETTING, build, introspectables=(introspectable,), order=ORDER_FEATURES + 1)
    config.add_request_method(RequestAttribute(lambda _: RequestLimits()), "ratelimit")
    config.add_tween("pyramid_kvs.ratelimit.tween_factory", under=EXCVIEW)


def tween_factory(handler: Handler, registry: Registry) -> Handler:
    """Return the tween that counts requests at once, or sees to it that a view does."""
    limiter = limiter_of(registry)
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
    limiter = limiter_of(request.registry)
    if limiter is not None:
        limiter.count(request)

"""``kvs.ratelimit``: a tween that counts requests and refuses those over a limit.

The names below are imported on first use. Every application includes the view option, and not
every application has limits.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pyramid.config import Configurator
from pyramid.registry import Registry
from pyramid.request import Request
from pyramid.response import Response
from pyramid.tweens import EXCVIEW

from ..application import ORDER_FEATURES, Application, SettingInfo
from ..web.attribute import RequestAttribute
from .settings import SETTING
from .views import AT_ONCE, CATEGORY, DONE, LATER, RouteMatcher, describe

if TYPE_CHECKING:
    from .decision import RequestLimits
    from .limiter import Ratelimit
    from .limits import LimitStatus
    from .registry import LimitSet
    from .response import RateLimitError
else:
    _MODULES = {
        "LimitSet": ".registry",
        "LimitStatus": ".limits",
        "RateLimitError": ".response",
        "Ratelimit": ".limiter",
        "RequestLimits": ".decision",
    }

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_MODULES[name], __name__), name)


__all__ = [
    "LimitSet",
    "LimitStatus",
    "RateLimitError",
    "Ratelimit",
    "RequestLimits",
    "includeme",
    "limiter_of",
    "subscribe_ratelimit",
    "tween_factory",
]

Handler = Callable[[Request], Response]


def limiter_of(registry: Registry) -> Ratelimit | None:
    """Return the limiter of an application, or ``None`` if ``kvs.ratelimit`` is not set."""
    return Application.of(registry).features.get(SETTING)


def includeme(config: Configurator) -> None:
    """Add the limiter and its tween."""
    from .decision import RequestLimits
    from .limiter import Ratelimit

    config.info = SettingInfo(SETTING)
    introspectable = config.introspectable(CATEGORY, SETTING, "all other views", "setting")
    application = Application.of(config.registry)

    def build() -> None:
        settings, session = config.registry.settings, application.features.get("kvs.session")
        limiter = Ratelimit(settings[SETTING], session, application, config.maybe_dotted)
        application.features[SETTING] = limiter
        introspectable["limits"] = describe(limiter.registry.application.limits) or "none"

    # After the session, whose store it uses.
    config.action(SETTING, build, introspectables=(introspectable,), order=ORDER_FEATURES + 1)
    config.add_request_method(RequestAttribute(lambda _: RequestLimits()), "ratelimit")
    config.add_tween("pyramid_kvs.ratelimit.tween_factory", under=EXCVIEW)


def tween_factory(handler: Handler, registry: Registry) -> Handler:
    """Return the tween that counts requests at once, or makes sure that a view counts them."""
    limiter = limiter_of(registry)
    if limiter is None:
        return handler
    matcher = RouteMatcher(limiter.registry.views, registry)

    def count_at_once(request: Request) -> Response:
        limiter.count(request)
        return handler(request)

    def count_in_time(request: Request) -> Response:
        if not matcher.may_differ(request):
            request._kvs_counted = AT_ONCE
            return count_at_once(request)
        request._kvs_counted = LATER
        try:
            response = handler(request)
        except Exception:  # for example a 404: no view has answered, but the request counts
            _count_after(request, limiter)
            raise
        _count_after(request, limiter)
        return response

    return count_in_time if matcher.is_needed else count_at_once


def _count_after(request: Request, limiter: Ratelimit) -> None:
    """Count a request that no view answered."""
    if request._kvs_counted is LATER:
        request._kvs_counted = DONE
        limiter.count(request)


def subscribe_ratelimit(event: Any) -> None:
    """Count the request of an event, and add the header fields by a response callback.

    Requests that do not pass through the router need this, because no tween counts them.

    :raises RateLimitError: the request is over a limit.
    """
    request = event.request
    limiter = limiter_of(request.registry)
    if limiter is not None:
        limiter.count(request)

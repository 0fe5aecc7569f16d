"""``kvs.ratelimit``: a tween that counts requests and refuses those over a limit.

The names below are imported on first use. Every application includes the view option, and not
every application has limits.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError
from pyramid.interfaces import PHASE3_CONFIG, ITweens
from pyramid.registry import Registry
from pyramid.request import Request
from pyramid.response import Response
from pyramid.tweens import EXCVIEW, excview_tween_factory

from ..application import ORDER_FEATURES, Application, SettingInfo
from ..web.attribute import RequestAttribute
from .settings import SETTING
from .views.introspection import CATEGORY, describe
from .views.phases import DONE, EARLY, NO_VIEW, UNCOUNTED

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

TWEEN = "pyramid_kvs.ratelimit.tween_factory"

#: After everything that adds tweens.
_ORDER_CHECK = PHASE3_CONFIG + 10

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
    config.add_request_method(RequestAttribute(RequestLimits), "ratelimit")
    config.add_tween(TWEEN, under=EXCVIEW)
    config.action((SETTING, "tween"), lambda: _check_tweens(config.registry), order=_ORDER_CHECK)


def _check_tweens(registry: Registry) -> None:
    """Refuse a list of tweens, written out in the settings, in which the tween has no effect."""
    # By the factory, because a name can be written in several ways.
    explicit = [factory for _, factory in registry.getUtility(ITweens).explicit]
    if not explicit:
        return
    if tween_factory not in explicit:
        problem = f"does not name {TWEEN}, so that no request would be counted"
    elif excview_tween_factory in explicit[explicit.index(tween_factory) :]:
        problem = f"names {TWEEN} above {EXCVIEW}, so that nothing would answer a refused request"
    else:
        return
    raise ConfigurationError(
        f"pyramid.tweens {problem}, but kvs.ratelimit is set: write this line below the line "
        f"{EXCVIEW}:\n    {TWEEN}"
    )


def tween_factory(handler: Handler, registry: Registry) -> Handler:
    """Return the tween that counts requests at once, or makes sure that a view counts them."""
    limiter = limiter_of(registry)
    if limiter is None:
        return handler
    application, matcher = limiter.registry.application, limiter.matcher
    refused = limiter.late_refusals
    early = application.early
    late = application.without(early.limits)
    has_late = bool(late.limits)

    def tween(request: Request) -> Response:
        if has_late or matcher.is_needed:
            return count_in_time(request)
        limiter.count(request, early)
        return handler(request)

    def count_in_time(request: Request) -> Response:
        if (has_late and refused.has(request)) or (
            matcher.is_needed and matcher.may_differ(request)
        ):
            request._kvs_counted = UNCOUNTED
        else:
            limiter.count(request, early)
            request._kvs_counted = EARLY
        try:
            response = handler(request)
        except Exception:  # for example a 404: no view has answered, but the request counts
            count_rest(request, NO_VIEW)
            raise
        count_rest(request, DONE)
        return response

    def count_rest(request: Request, phase: str) -> None:
        before, request._kvs_counted = request._kvs_counted, phase
        if before is UNCOUNTED:
            limiter.count(request, application)
        elif before is EARLY and has_late:
            limiter.count(request, late)

    return tween


def subscribe_ratelimit(event: Any) -> None:
    """Count the request of an event, and add the header fields by a response callback.

    Requests that do not pass through the router need this, because no tween counts them.

    :raises RateLimitError: the request is over a limit.
    """
    request = event.request
    limiter = limiter_of(request.registry)
    if limiter is not None:
        limiter.count(request)

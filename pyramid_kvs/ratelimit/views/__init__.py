"""The view option ``ratelimit``, and the counting that begins when a view is found.

Most requests are counted before any other work is done. What cannot be counted then is counted
when a view is about to be called, before its permission is checked: a limit by user or by a
callable, and all limits of a request that could reach a view with the option. If no view answers,
they are counted in the end. Only Pyramid decides which view that is; nothing here guesses it from
a path.

Every application includes this module, whether it has limits or not, because its views may have
the option. It therefore imports little.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError
from pyramid.request import Request
from pyramid.response import Response
from pyramid.viewderivers import INGRESS

from ...application import Application
from ..settings import SETTING, ViewOption
from .introspection import add_introspection
from .option import RouteOption, find_option
from .phases import DONE, EARLY, UNCOUNTED

if TYPE_CHECKING:
    from ..limiter import Ratelimit
    from ..registry import LimitSet

View = Callable[[Any, Request], Response]


def includeme(config: Configurator) -> None:
    """Add the option ``ratelimit`` of views and routes."""
    config.add_view_deriver(ratelimit_view, "kvs_ratelimit", under=INGRESS, over="secured_view")
    config.add_route_predicate("ratelimit", RouteOption)


def ratelimit_view(view: View, info: Any) -> View:
    """Derive a view that counts what the tween has left to it; a view deriver."""
    option = find_option(info)
    limiter: Ratelimit | None = Application.of(info.registry).features.get(SETTING)
    if limiter is None:
        _refuse(option)
        return view
    if info.exception_only:
        return view
    if option is None:
        return _counting(view, limiter, limiter.registry.application)
    found = limiter.registry.add_view(option)
    limiter.matcher.add(option.route, info.registry)
    add_introspection(found, info)
    return _counting(view, limiter, found.limits)


ratelimit_view.options = ("ratelimit",)  # type: ignore[attr-defined]


def _counting(view: View, limiter: Ratelimit, limits: LimitSet) -> View:
    """Return the view with the counting before it.

    :param limits: all limits of the view.
    """
    rest = limits.without(limiter.registry.application.early.limits)

    def counting_view(context: Any, request: Request) -> Response:
        if "_kvs_counted" in request.__dict__:
            phase = request._kvs_counted
            if phase is UNCOUNTED or phase is EARLY:
                request._kvs_counted = DONE
                limiter.count(request, limits if phase is UNCOUNTED else rest)
        return view(context, request)

    return counting_view


def _refuse(option: ViewOption | None) -> None:
    """Raise for the limit of a view in an application that has no limiter."""
    if option is not None and option.value is not False and option.value != []:
        raise ConfigurationError(
            f"{option.place}: kvs.ratelimit is not set: set it, to [] if only views have limits"
        )

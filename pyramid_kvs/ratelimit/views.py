"""The view option ``ratelimit``: the limits of a view, and counting when the view is found.

Most requests are counted before any other work is done. A request that could reach a view with
the option is counted when that view is about to be called, before its permission is checked. If
no view answers, it is counted in the end. Only Pyramid decides which view that is; nothing here
guesses it from a path.

Every application includes this module, whether it has limits or not, because its views may have
the option. It therefore imports little.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError
from pyramid.interfaces import IRoutesMapper
from pyramid.registry import Introspectable, Registry
from pyramid.request import Request
from pyramid.response import Response
from pyramid.static import static_view
from pyramid.viewderivers import INGRESS

from ..application import Application
from ..messages import show
from .settings import SETTING, ViewOption

if TYPE_CHECKING:
    from .limiter import Ratelimit
    from .limits import Limit
    from .registry import LimitSet, ViewLimits

View = Callable[[Any, Request], Response]

CATEGORY = "kvs rate limits"

#: ``request._kvs_counted``: not before a view is found; by the tween; by the tween and the view.
LATER, AT_ONCE, DONE = "later", "at once", "done"


def includeme(config: Configurator) -> None:
    """Add the option ``ratelimit`` of views and routes."""
    config.add_view_deriver(ratelimit_view, "kvs_ratelimit", under=INGRESS, over="secured_view")
    config.add_route_predicate("ratelimit", RouteOption)


class RouteMatcher:
    """Tells the requests that may reach a view with the option from those that cannot.

    :param views: those that have the option.
    """

    def __init__(self, views: Iterable[ViewLimits], registry: Registry) -> None:
        mapper = registry.queryUtility(IRoutesMapper)
        names = {view.route for view in views}
        self.is_needed = bool(names)
        self._by_traversal = None in names
        routes = [mapper.get_route(name) for name in names - {None}] if mapper else []
        self._matches = [route.match for route in routes if route is not None]

    def may_differ(self, request: Request) -> bool:
        """Return whether a view with the option may answer. If in doubt, it may."""
        if self._by_traversal:
            return True
        try:
            path = request.path_info or "/"
        except (KeyError, UnicodeDecodeError):
            return False
        return any(match(path) is not None for match in self._matches)


class RouteOption:
    """The ``ratelimit`` of a route, for its views without one: a predicate that is always true."""

    def __init__(self, value: Any, info: Any) -> None:
        self.value = value

    def text(self) -> str:
        return f"ratelimit = {show(self.value)}"

    phash = text

    def __call__(self, info: Any, request: Request) -> bool:
        return True


def ratelimit_view(view: View, info: Any) -> View:
    """Derive a view that counts requests which the tween has left to it; a view deriver."""
    option = _find_option(info)
    limiter: Ratelimit | None = Application.of(info.registry).features.get(SETTING)
    if limiter is None:
        _refuse(option, info)
        return view
    if info.exception_only:
        return view
    if option is None:
        return _counting(view, limiter, limiter.registry.application)
    found = limiter.registry.add_view(option)
    _add_introspection(found, info)
    return _counting(view, limiter, found.limits, found.own)


ratelimit_view.options = ("ratelimit",)  # type: ignore[attr-defined]


def _counting(
    view: View, limiter: Ratelimit, limits: LimitSet, own: LimitSet | None = None
) -> View:
    """Return the view with the counting before it.

    :param own: what remains to be counted if the tween did not expect this view, and has counted
        the limits of the application.
    """
    has_own = own is not None and bool(own.groups)

    def counting_view(context: Any, request: Request) -> Response:
        counted = request.__dict__.get("_kvs_counted")
        if counted is LATER or (counted is AT_ONCE and has_own):
            request._kvs_counted = DONE
            limiter.count(request, limits if counted is LATER else own)
        return view(context, request)

    return counting_view


# -- finding the option ------------------------------------------------------------------------


def _find_option(info: Any) -> ViewOption | None:
    """Return the option of a view, or of its route. Static views are exempt without one."""
    value = info.options.get("ratelimit")
    if value is not None:
        if info.exception_only:
            raise ConfigurationError(
                f"ratelimit of {_label(info)}: an exception view cannot have a limit, because its "
                "requests have already been counted: leave ratelimit out"
            )
        return _option(info, value)
    if info.exception_only:
        return None
    of_route = _find_route_option(info)
    if of_route is not None:
        return _option(info, of_route.value, is_of_route=True)
    return _option(info, False) if isinstance(info.original_view, static_view) else None


def _find_route_option(info: Any) -> RouteOption | None:
    name = info.options.get("route_name")
    mapper = info.registry.queryUtility(IRoutesMapper)
    route = mapper.get_route(name) if mapper is not None and name else None
    for predicate in route.predicates if route is not None else ():
        if isinstance(predicate, RouteOption):
            return predicate
    return None


def _option(info: Any, value: Any, is_of_route: bool = False) -> ViewOption:
    route, name = info.options.get("route_name"), info.options.get("name")
    scope = route or name or getattr(info.original_view, "__name__", None) or "view"
    return ViewOption(value, _label(info), scope, route, is_of_route)


def _label(info: Any) -> str:
    """Return what a list of views calls this one."""
    route, name = info.options.get("route_name"), info.options.get("name")
    parts = [f"route {route}"] if route else []
    if name or not route:
        parts.append(f"view {name!r}" if name else "view")
    view = info.original_view
    called = getattr(view, "__qualname__", None) or type(view).__qualname__
    attr = info.options.get("attr")
    return " ".join([*parts, f"({called}.{attr})" if attr else f"({called})"])


def _refuse(option: ViewOption | None, info: Any) -> None:
    """Raise for an option in an application that has no limiter."""
    if option is not None and not isinstance(info.original_view, static_view):
        raise ConfigurationError(
            f"{option.place}: kvs.ratelimit is not set: set it, to [] if only views have limits"
        )


# -- showing the limits ------------------------------------------------------------------------


class IntrospectionPredicate:
    """Shows the limits of a view among its predicates, in ``pviews``; it is always true."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __call__(self, context: Any, request: Request) -> bool:
        return True

    def text(self) -> str:
        return self._text


def _add_introspection(found: ViewLimits, info: Any) -> None:
    description = describe(found.limits.limits) or "exempt"
    introspectable = Introspectable(
        CATEGORY, (CATEGORY, found.label, description), found.label, "view"
    )
    introspectable["view"] = found.label
    introspectable["limits"] = description
    info.registry.introspector.add(introspectable)
    if isinstance(info.predicates, list):
        info.predicates.append(IntrospectionPredicate(f"ratelimit = {description}"))


def describe(limits: Iterable[Limit]) -> str:
    """Return limits in one line."""
    return ", ".join(
        f"{limit.name}: {limit.rule.limit} in {limit.window:g} s by {limit.by}" for limit in limits
    )

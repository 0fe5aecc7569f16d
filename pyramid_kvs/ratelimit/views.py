"""The view option ``ratelimit``: which limits a view has, and counting when it is reached.

Most requests are counted before anything else is done. One that may reach a view with limits of
its own, or without any, is counted when that view is about to be called, before its permission is
checked; or after it turned out that no view answers. Which view that is, Pyramid alone decides:
nothing here guesses it from a path.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

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
from .book import LimitSet, ViewLimits
from .limiter import Ratelimit
from .options import Limit, read_view_option
from .settings import SETTING

View = Callable[[Any, Request], Response]

CATEGORY = "kvs rate limits"

#: ``request._kvs_counted``: until a view is reached; by the tween; by the tween and the view.
LATER, AT_ONCE, DONE = "later", "at once", "done"


def includeme(config: Configurator) -> None:
    """Add the option ``ratelimit`` of views and routes."""
    config.add_view_deriver(ratelimit_view, "kvs_ratelimit", under=INGRESS, over="secured_view")
    config.add_route_predicate("ratelimit", RouteOption)


class Sorter:
    """Tells the requests that may reach a view with an option from those that cannot."""

    def __init__(self, found: list[ViewLimits], registry: Registry) -> None:
        mapper = registry.queryUtility(IRoutesMapper)
        names = {view.route for view in found if view.route is not None}
        routes = [mapper.get_route(name) for name in sorted(names)] if mapper else []
        self._matches = [route.match for route in routes if route is not None]
        self._by_traversal = any(view.route is None for view in found)
        self.is_needed = bool(found)

    def may_differ(self, request: Request) -> bool:
        """Return whether a view that has an option may answer; too often rather than too rarely."""
        if self._by_traversal:
            return True
        try:
            path = request.path_info or "/"
        except (KeyError, UnicodeDecodeError):
            return False
        return any(match(path) is not None for match in self._matches)


class RouteOption:
    """The ``ratelimit`` of a route, for its views without one: a predicate that lets all pass."""

    def __init__(self, value: Any, info: Any) -> None:
        self.value = value

    def text(self) -> str:
        return f"ratelimit = {show(self.value)}"

    phash = text

    def __call__(self, info: Any, request: Request) -> bool:
        return True


class Wish(NamedTuple):
    """An option that holds for a view, and the route that gives it; ``None``: the view itself."""

    option: Any
    route: str | None = None


def ratelimit_view(view: View, info: Any) -> View:
    """Derive a view that counts, where the tween has left that to it; a view deriver."""
    wish = _find_wish(info)
    limiter: Ratelimit | None = Application.of(info.registry).features.get(SETTING)
    if limiter is None:
        _refuse(wish, info)
        return view
    if info.exception_only:
        return view
    if wish is None:
        return _counting(view, limiter, limiter.application, LimitSet([]))
    found = _view_limits(wish, info, limiter)
    limiter.views.append(found)
    _show(found, info)
    return _counting(view, limiter, found.limits, LimitSet(found.own))


ratelimit_view.options = ("ratelimit",)  # type: ignore[attr-defined]


def _counting(view: View, limiter: Ratelimit, limits: LimitSet, own: LimitSet) -> View:
    """Return the view with the counting before it.

    :param own: what remains to be counted when the tween, who expected another view, counted
        those of the application.
    """

    def counting_view(context: Any, request: Request) -> Response:
        counted = request.__dict__.get("_kvs_counted")
        if counted is LATER or (counted is AT_ONCE and own.groups):
            request._kvs_counted = DONE
            limiter.count(request, limits if counted is LATER else own)
        return view(context, request)

    return counting_view


def _find_wish(info: Any) -> Wish | None:
    option = info.options.get("ratelimit")
    if info.exception_only:
        if option is not None:
            raise ConfigurationError(
                f"{_place(info)}: an exception view answers requests that are counted already: "
                "leave ratelimit out"
            )
        return None
    if option is not None:
        return Wish(option)
    return _wish_of_route(info) or (
        Wish(False) if isinstance(info.original_view, static_view) else None
    )


def _wish_of_route(info: Any) -> Wish | None:
    name = info.options.get("route_name")
    mapper = info.registry.queryUtility(IRoutesMapper)
    route = mapper.get_route(name) if mapper is not None and name else None
    for predicate in route.predicates if route is not None else ():
        if isinstance(predicate, RouteOption):
            return Wish(predicate.value, name)
    return None


def _refuse(wish: Wish | None, info: Any) -> None:
    if wish is not None and not isinstance(info.original_view, static_view):
        raise ConfigurationError(
            f"{_place(info)}: there is a ratelimit, but kvs.ratelimit is not set: set it; "
            '[] stands for "no limit but those of views"'
        )


def _view_limits(wish: Wish, info: Any, limiter: Ratelimit) -> ViewLimits:
    listed = [] if wish.option is False else read_view_option(wish.option, _place(info))
    own = _own_limits(wish, listed, info, limiter)
    is_added = any(options["add"] for options in listed)
    limits = LimitSet(limiter.application.limits + own if is_added else own)
    return ViewLimits(info.options.get("route_name"), _label(info), limits, own)


def _own_limits(
    wish: Wish, listed: list[dict[str, Any]], info: Any, limiter: Ratelimit
) -> list[Limit]:
    """Return the limits of a view; those of its route are the same for all of its views."""
    if wish.route is None:
        return limiter.book.add_view(listed, _place(info), _scope(info))
    if wish.route not in limiter.of_routes:
        limiter.of_routes[wish.route] = limiter.book.add_view(listed, _place(info), wish.route)
    return limiter.of_routes[wish.route]


# -- what is shown of it ---------------------------------------------------------------------


class Shown:
    """Stands among a view's predicates, where ``pviews`` shows it; it lets every request pass."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __call__(self, context: Any, request: Request) -> bool:
        return True

    def text(self) -> str:
        return self._text


def _show(found: ViewLimits, info: Any) -> None:
    text = describe(found)
    shown = Introspectable(CATEGORY, (CATEGORY, found.label, text), found.label, "view")
    shown["view"] = found.label
    shown["limits"] = text
    info.registry.introspector.add(shown)
    if isinstance(info.predicates, list):
        info.predicates.append(Shown(f"ratelimit = {text}"))


def describe(found: ViewLimits) -> str:
    """Return the limits of a view in a line."""
    if found.is_exempt:
        return "exempt"
    return ", ".join(describe_limit(limit) for limit in found.limits.limits)


def describe_limit(limit: Limit) -> str:
    return f"{limit.name}: {limit.rule.limit} in {limit.window:g} s by {limit.by}"


def _scope(info: Any) -> str:
    name = info.options.get("route_name") or info.options.get("name")
    return name or getattr(info.original_view, "__name__", None) or "view"


def _label(info: Any) -> str:
    """Return how a list of views calls this one."""
    route, name = info.options.get("route_name"), info.options.get("name")
    parts = [f"route {route}"] if route else []
    if name or not route:
        parts.append(f"view {name!r}" if name else "view")
    view = info.original_view
    called = getattr(view, "__qualname__", None) or type(view).__qualname__
    attr = info.options.get("attr")
    return " ".join([*parts, f"({called}.{attr})" if attr else f"({called})"])


def _place(info: Any) -> str:
    return f"ratelimit of {_label(info)}"

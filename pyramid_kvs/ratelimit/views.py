"""The view option ``ratelimit``: which limits a view has, and counting when it is reached.

Most requests are counted before anything else is done. One that may reach a view with limits of
its own, or without any, is counted when that view is about to be called, before its permission is
checked; or after it turned out that no view answers. Which view that is, Pyramid alone decides:
nothing here guesses it from a path.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyramid.exceptions import ConfigurationError
from pyramid.interfaces import IRoutesMapper
from pyramid.registry import Introspectable, Registry
from pyramid.request import Request
from pyramid.response import Response
from pyramid.static import static_view

from ..components import components
from .book import LimitSet, ViewLimits
from .limiter import Ratelimit
from .options import Limit, read_view_option

View = Callable[[Any, Request], Response]

_NOT_GIVEN: Any = object()
CATEGORY = "kvs rate limits"

#: ``request._kvs_counted``: until a view is reached; by the tween; by the tween and the view.
LATER, AT_ONCE, DONE = "later", "at once", "done"


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


def ratelimit_view(view: View, info: Any) -> View:
    """Derive a view that counts, where the tween has left that to it; a view deriver."""
    option = info.options.get("ratelimit", _NOT_GIVEN)
    limiter = components(info.registry).ratelimit
    if limiter is None:
        _refuse_option(option, info)
        return view
    limits = _limits_of(option, info, limiter)

    def counting_view(context: Any, request: Request) -> Response:
        counted = request.__dict__.get("_kvs_counted")
        if counted is LATER:
            request._kvs_counted = DONE
            limiter.count(request, limits.limits if limits else limiter.application)
        elif counted is AT_ONCE and limits is not None:
            request._kvs_counted = DONE
            limiter.count(request, own)
        return view(context, request)

    own = LimitSet(limits.own if limits else [])
    return counting_view


ratelimit_view.options = ("ratelimit",)  # type: ignore[attr-defined]


def _refuse_option(option: Any, info: Any) -> None:
    if option is not _NOT_GIVEN and option is not None:
        raise ConfigurationError(
            f"{_place(info)}: the view has a ratelimit, but kvs.ratelimit is not set: set it; "
            '[] stands for "no limit but those of views"'
        )


def _limits_of(option: Any, info: Any, limiter: Ratelimit) -> ViewLimits | None:
    """Return the limits of a view; ``None``: it has those of the application."""
    if option is _NOT_GIVEN or option is None:
        if not isinstance(info.original_view, static_view):
            return None
        option = False
    elif info.exception_only:
        raise ConfigurationError(
            f"{_place(info)}: an exception view answers requests that are counted already: "
            "leave ratelimit out"
        )
    own, is_added = _own_limits(option, info, limiter)
    limits = LimitSet(limiter.application.limits + own if is_added else own)
    found = ViewLimits(info.options.get("route_name"), _label(info), limits, own)
    limiter.views.append(found)
    _show(found, info)
    return found


def _own_limits(option: Any, info: Any, limiter: Ratelimit) -> tuple[list[Limit], bool]:
    if option is False:
        return [], False
    place = _place(info)
    listed = read_view_option(option, place)
    limits = limiter.book.add_view(listed, place, _scope(info))
    return limits, any(options["add"] for options in listed)


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

"""Finding the option ``ratelimit`` of a view, or of its route."""

from __future__ import annotations

from typing import Any

from pyramid.exceptions import ConfigurationError
from pyramid.interfaces import IRoutesMapper
from pyramid.request import Request
from pyramid.static import static_view

from ...messages import show
from ..settings import ViewOption


class RouteOption:
    """The ``ratelimit`` of a route, for its views without one: a predicate that is always true."""

    def __init__(self, value: Any, info: Any) -> None:
        self.value = value

    def text(self) -> str:
        return f"ratelimit = {show(self.value)}"

    phash = text

    def __call__(self, info: Any, request: Request) -> bool:
        return True


def find_option(info: Any) -> ViewOption | None:
    """Return the option of a view, or of its route. Static views are exempt without one.

    :raises ConfigurationError: an exception view has the option.
    """
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

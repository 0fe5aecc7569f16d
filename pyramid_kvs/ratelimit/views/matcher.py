"""Which requests may reach a view with the option ``ratelimit``."""

from __future__ import annotations

from typing import Any

from pyramid.interfaces import IRoutesMapper
from pyramid.registry import Registry
from pyramid.request import Request


class RouteMatcher:
    """Tells the requests that may reach a view with the option from those that cannot."""

    def __init__(self) -> None:
        #: Whether any view has the option.
        self.is_needed = False
        self._by_traversal = False
        self._routes: list[str] = []
        self._mapper: Any = None

    def add(self, route: str | None, registry: Registry) -> None:
        """Add a view that has the option, perhaps while the application already serves requests.

        :param route: the name of its route; ``None`` if it is found by traversal.
        """
        if route is None:
            self._by_traversal = True
        elif route not in self._routes:
            self._routes = [*self._routes, route]
        self._mapper = registry.queryUtility(IRoutesMapper)
        self.is_needed = True

    def may_differ(self, request: Request) -> bool:
        """Return whether a view with the option may answer. If in doubt, it may."""
        if self._by_traversal:
            return True
        try:
            path = request.path_info or "/"
        except (KeyError, UnicodeDecodeError):
            return False
        # Looked up by name, because a later commit may give the route another pattern.
        routes = map(self._mapper.get_route, self._routes)
        return any(route.match(path) is not None for route in routes)

"""``kvs.health``: a view that says whether the stores can serve the application."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pyramid.config import Configurator
from pyramid.config.views import DefaultViewMapper
from pyramid.exceptions import ConfigurationError
from pyramid.httpexceptions import HTTPMethodNotAllowed
from pyramid.interfaces import IRoutesMapper
from pyramid.registry import Registry
from pyramid.request import Request
from pyramid.response import Response
from pyramid.security import NO_PERMISSION_REQUIRED

from ..application import Application, add_feature
from ..settings import InvalidOption, Option, check_options, parse
from .checks import StoreChecks

SETTING = "kvs.health"
ROUTE = "pyramid_kvs health"
_EXAMPLE = '{"path": "/health"}'
_PATH = re.compile(r"(?:/[A-Za-z0-9._~-]+)+/?|/")


def _path(value: Any) -> str:
    if not isinstance(value, str) or not _PATH.fullmatch(value):
        raise InvalidOption('a path such as "/health", of letters, digits, ".", "_", "~" and "-"')
    return value


OPTIONS: dict[str, Option] = {"path": Option(_path, other_words=("url", "route", "pattern"))}


def includeme(config: Configurator) -> None:
    """Add the route and the view. They need no session, no permission, and count for no limit."""
    registry = config.registry
    value = registry.settings[SETTING]
    options = check_options(SETTING, parse(SETTING, value, _EXAMPLE), OPTIONS, _EXAMPLE)
    application = Application.of(registry)

    def build() -> Mapping[str, object]:
        application.features[SETTING] = StoreChecks(application.stores)
        application.start_checks.append(lambda: _refuse_taken(registry))
        return options

    add_feature(config, SETTING, build)
    config.route_prefix = None  # the path is absolute
    # The context is not the application's root, which may need a store or a database.
    config.add_route(ROUTE, options["path"], factory=_Context)
    config.add_view(
        health,
        route_name=ROUTE,
        permission=NO_PERMISSION_REQUIRED,
        require_csrf=False,
        ratelimit=False,
        mapper=DefaultViewMapper,
    )


class _Context:
    def __init__(self, request: Request) -> None:
        pass


def health(request: Request) -> Response:
    """Answer 200 if all stores can serve, or else 503, with what was found of each; a view."""
    if request.method not in ("GET", "HEAD"):
        return HTTPMethodNotAllowed(headers=[("Allow", "GET, HEAD")])
    checks: StoreChecks = Application.of(request.registry).features[SETTING]
    found = checks.run()
    return Response(
        json_body={"stores": found},
        status=200 if all(store["ok"] for store in found) else 503,
        headerlist=[("Content-Type", "application/json"), ("Cache-Control", "no-store")],
    )


def _refuse_taken(registry: Registry) -> None:
    """Refuse a path that another route has, which would answer instead, or never.

    :raises ConfigurationError: the message names the route.
    """
    mapper = registry.getUtility(IRoutesMapper)
    own, is_before = mapper.get_route(ROUTE), True
    path = _path_of(own)
    for route in mapper.get_routes():
        if route is own:
            is_before = False
        elif _path_of(route) == path or (is_before and _answers(route, path, registry)):
            raise ConfigurationError(
                f"{SETTING}: path: {path!r} is a path of the route {route.name!r} "
                f"({route.pattern}) too: write another path, or include pyramid_kvs before that "
                "route is added"
            )


def _path_of(route: Any) -> str:
    return f"/{route.pattern.lstrip('/')}"


def _answers(route: Any, path: str, registry: Registry) -> bool:
    """Return whether a route matches a plain request for a path."""
    match = route.match(path)
    if match is None:
        return False
    request = Request.blank(path)
    request.registry = registry
    try:
        return all(found({"match": match, "route": route}, request) for found in route.predicates)
    except Exception:  # noqa: BLE001 (a predicate of the application needs more than the request)
        return False

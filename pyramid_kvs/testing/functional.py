"""Helpers for functional tests with WebTest: the session of a client, and a test without limits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyramid.interfaces import ISessionFactory
from pyramid.registry import Registry
from pyramid.request import Request
from pyramid.response import Response

from ..ratelimit import limiter_of
from ..ratelimit.decision import RequestLimits


@contextmanager
def session_of(app: Any, url: str = "/") -> Iterator[Any]:
    """Give a test the session of a WebTest client, to look into it and to change it.

    What the test changes is saved at the end of the block, by the code that saves it after a view.
    A new session is the client's from then on, because the client gets its cookie.

    :param app: a ``webtest.TestApp`` around the application.
    :param url: the client's cookies for this URL decide which session it is.
    :raises LookupError: the application has no sessions.
    """
    registry = _registry(app)
    factory = registry.queryUtility(ISessionFactory)
    if factory is None:
        raise LookupError(
            "the application has no session factory: the setting kvs.session is missing"
        )
    request = _request(app, url)
    request.registry = registry
    session = request.session = factory(request)
    yield session
    response = Response()
    request._process_response_callbacks(response)
    _ask(app, url, response)


@contextmanager
def without_limits(app: Any) -> Iterator[None]:
    """Let requests pass that a rate limit would count. ``request.ratelimit`` is empty.

    :param app: a ``webtest.TestApp``, the application itself, or its registry.
    :raises LookupError: the application has no limits.
    """
    limiter: Any = limiter_of(_registry(app))
    if limiter is None:
        raise LookupError("the application has no limits: the setting kvs.ratelimit is missing")
    before = limiter.count
    limiter.count = lambda request, limits=None: RequestLimits()
    try:
        yield
    finally:
        limiter.count = before


def _registry(app: Any) -> Registry:
    """Return the registry of an application, which a WebTest client may wrap."""
    for found in (app, getattr(app, "app", None)):
        if isinstance(found, Registry):
            return found
        registry = getattr(found, "registry", None)
        if isinstance(registry, Registry):
            return registry
    raise TypeError(
        f"found {type(app).__name__}, expected webtest.TestApp(application): the application is "
        "what config.make_wsgi_app() returns, without middleware around it"
    )


def _request(app: Any, url: str) -> Request:
    """Return the request that a client would send, with its cookies."""
    requests: list[Request] = []

    def keep(environ: dict[str, Any], start_response: Any) -> Any:
        requests.append(Request(environ))
        return Response()(environ, start_response)

    _ask(app, url, keep)
    return requests[0]


def _ask(app: Any, url: str, answer: Any) -> None:
    """Let a client send a request that something other than its application answers."""
    application, app.app = app.app, answer
    try:
        app.get(url)
    finally:
        app.app = application

"""A request for unit tests of views, with the features of the application's configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyramid import testing
from pyramid.interfaces import ISessionFactory
from pyramid.registry import Registry
from pyramid.response import Response

from ..cache import cache_of
from ..perlsess import perlsess_of
from ..ratelimit import limiter_of
from ..ratelimit.decision import RequestLimits


class _Feature:
    """An attribute that a feature gives to a request, made on first use.

    It has no ``__set__``, so a test may assign another object.

    :param find: returns the feature of an application, or ``None`` if it has none.
    :param make: returns the attribute of a request, from the feature and the request.
    """

    def __init__(
        self, name: str, find: Callable[[Registry], Any], make: Callable[[Any, Any], Any]
    ) -> None:
        self._name = name
        self._find = find
        self._make = make

    def __get__(self, request: Any, owner: type) -> Any:
        if request is None:
            return self
        found = self.of(request)
        request.__dict__[self._name] = found = self._make(found, request)
        return found

    def of(self, request: Any) -> Any:
        """Return the feature of the request's application.

        :raises AttributeError: the configuration does not have it.
        """
        found = self._find(request.registry)
        if found is None:
            raise AttributeError(
                f"DummyRequest has no {self._name}: the configuration has no kvs.{self._name}. "
                "Before the request is made, call config = pyramid.testing.setUp(settings="
                f'{{"kvs.{self._name}": {{"kvs": "mock"}}}}) and '
                'config.include("pyramid_kvs.testing")'
            )
        return found


def _session_factory(registry: Registry) -> Any:
    return registry.queryUtility(ISessionFactory)


class DummyRequest(testing.DummyRequest):  # type: ignore[misc]
    """Pyramid's ``DummyRequest``, with ``cache``, ``session``, ``ratelimit`` and ``perlsess``.

    They are those of the configuration that ``pyramid.testing.setUp()`` made, and that includes
    ``pyramid_kvs.testing`` or ``pyramid_kvs``. The arguments are those of Pyramid's class.
    ``cookies`` and ``headers`` decide which session the request has.
    """

    remote_addr = client_addr = "127.0.0.1"

    cache = _Feature("cache", cache_of, lambda cache, request: cache)
    session = _Feature("session", _session_factory, lambda factory, request: factory(request))
    ratelimit = _Feature("ratelimit", limiter_of, lambda limiter, request: RequestLimits())
    perlsess = _Feature("perlsess", perlsess_of, lambda factory, request: factory(request))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "session" not in kwargs:
            del self.__dict__["session"]  # Pyramid's DummySession

    def respond(self, response: Response | None = None) -> Response:
        """Run the response callbacks, as Pyramid does after a view, and return the response.

        They save the session, and add its cookie and the headers of the rate limit.

        :param response: ``None`` means ``request.response``.
        """
        response = self.response if response is None else response
        self._process_response_callbacks(response)
        return response

    def count_limits(self) -> RequestLimits:
        """Count the request on the limits of the application. Nothing else counts it.

        :returns: what ``request.ratelimit`` is from now on.
        :raises pyramid_kvs.ratelimit.RateLimitError: it is over a limit.
        """
        counted: RequestLimits = type(self).ratelimit.of(self).count(self)
        return counted

"""Responses to failures: 503 while a store is unavailable, and saves that fail.

Pyramid runs response callbacks outside of the exception views. An error that leaves a callback
reaches the WSGI server: the response is lost, and no exception view runs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeAlias

from pyramid.config import Configurator
from pyramid.config.views import DefaultViewMapper
from pyramid.httpexceptions import HTTPConflict, HTTPNotFound, HTTPServiceUnavailable
from pyramid.registry import Registry
from pyramid.request import Request
from pyramid.response import Response
from pyramid.router import Router

from ..exceptions import KVSUnavailable, RetryLater
from ..logs import ThrottledLog
from ..messages import reason
from .attempts import repeats

#: Seconds after which a client may try again. By then the drivers know that a store is back.
RETRY_AFTER = 5

#: Answers the request of a WSGI environment; see ``pyramid.interfaces.IExecutionPolicy``.
Policy: TypeAlias = "Callable[[dict[str, Any], Router], Response]"

_REGISTRY_KEY = "pyramid_kvs.web"
_OF_THE_OLD_BODY = ("cache-control", "etag", "expires", "last-modified", "location", "set-cookie")


def includeme(config: Configurator) -> None:
    """Add the library's view for an unavailable store; an application's own view replaces it."""
    throttled = ThrottledLog(logging.getLogger("pyramid_kvs.web"))
    config.registry[_REGISTRY_KEY] = throttled
    config.add_exception_view(
        lambda error, request: _log_and_answer(throttled, error),
        context=RetryLater,
        mapper=DefaultViewMapper,
    )


def answered(policy: Policy, registry: Registry) -> Policy:
    """Return an execution policy that answers 503 also where Pyramid asks no exception view.

    A store can become unavailable in an exception view, in a response callback, in a subscriber
    or in a tween. Without this, the error would reach the WSGI server.
    """
    throttled = registry[_REGISTRY_KEY]

    def answer(environ: dict[str, Any], router: Router) -> Response:
        try:
            return policy(environ, router)
        except RetryLater as error:
            return _log_and_answer(throttled, error)

    return answer


def _log_and_answer(throttled: ThrottledLog, error: Exception) -> HTTPServiceUnavailable:
    throttled.warning("a store is unavailable, requests that need it get a 503: %s", error)
    return unavailable()


def unavailable() -> HTTPServiceUnavailable:
    """Return a 503 that says nothing about the store."""
    return HTTPServiceUnavailable(headers=[("Retry-After", str(RETRY_AFTER))])


class FailedSaves:
    """Logs the saves of a feature that failed, each with its reason.

    While the store is unavailable one line a minute is enough, because all saves fail.

    :param what: what was not saved, for the log.
    """

    def __init__(self, log: logging.Logger, what: str) -> None:
        self._log = log
        self._throttled = ThrottledLog(log)
        self._what = what

    def add(self, error: Exception, outcome: str) -> None:
        """Log a save that failed.

        :param outcome: what the client gets.
        """
        log = self._throttled if isinstance(error, KVSUnavailable) else self._log
        name = type(error).__name__
        log.warning("%s was not saved (%s): %s: %s", self._what, name, outcome, reason(error))


def answer_failed_save(
    request: Request, response: Response, error: Exception, failed: FailedSaves
) -> None:
    """Turn a finished response into the answer to a save that failed, without its cookies.

    The answer is that of the application's exception view for the error, unless it reports
    success. Otherwise the error's ``http_status`` decides.

    :param failed: the log of the feature that saves.
    :raises Exception: the error itself, if neither a view nor ``http_status`` answers it, or if
        pyramid_retry repeats the request because of it.
    """
    if repeats(request, error):
        failed.add(error, "the request is repeated")
        raise error
    answer = _rendered(request, error) or _default(error)
    if answer is None:
        failed.add(error, "the error is raised")
        raise error
    failed.add(error, f"answered {answer.status}")
    _replace(request, response, answer)


def _rendered(request: Request, error: Exception) -> Response | None:
    invoke = getattr(request, "invoke_exception_view", None)
    if invoke is None:
        return None
    try:
        answer: Response = invoke((type(error), error, error.__traceback__))
    except HTTPNotFound:
        return None
    except RetryLater:  # the view needs a store itself
        return unavailable()
    return None if answer.status_code < 300 else answer


def _default(error: Exception) -> Response | None:
    status = getattr(error, "http_status", None)
    if status == HTTPServiceUnavailable.code:
        return unavailable()
    if status == HTTPConflict.code:
        return HTTPConflict("Another request changed the same data. Try again.")
    return None


def _replace(request: Request, response: Response, answer: Response) -> None:
    """Give a finished response the status, headers and body of another one.

    Headers that describe the old body, and its cookies, are removed. Others are kept, for
    example those of a rate limit and of CORS.
    """
    prepare = getattr(answer, "prepare", None)
    if prepare is not None:  # an HTTP exception makes its body when it is called
        prepare(request.environ)
    kept = [
        (name, value)
        for name, value in response.headerlist
        if not name.lower().startswith("content-") and name.lower() not in _OF_THE_OLD_BODY
    ]
    replaced = response.app_iter
    response.status = answer.status
    response.headerlist = kept + list(answer.headerlist)
    response.app_iter = answer.app_iter
    response.empty_body = True  # an HTTPFound would fill an empty body with its own text
    if hasattr(replaced, "close"):
        replaced.close()

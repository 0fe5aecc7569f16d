"""What responses say of stores: 503 while one is away, a failed save, and ``Vary``.

Pyramid runs response callbacks outside of the exception views, so an error that left one would
reach the WSGI server, with the view's response lost and no view asked.
"""

from __future__ import annotations

import logging

from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPConflict, HTTPNotFound, HTTPServiceUnavailable
from pyramid.request import Request
from pyramid.response import Response

from .exceptions import (
    CodecError,
    KVSError,
    KVSNotSupported,
    RetryLater,
    SessionConflict,
    ValueTooLarge,
)
from .logs import ThrottledLog

log = logging.getLogger("pyramid_kvs.session")

#: Seconds after which a client may ask again: within this time the drivers notice the return.
RETRY_AFTER = 5

_OF_THE_OLD_BODY = ("cache-control", "etag", "expires", "last-modified", "location", "set-cookie")
_MISTAKES = (CodecError, KVSNotSupported, ValueTooLarge)


def includeme(config: Configurator) -> None:
    """Add the library's view for a store that is away; an application's own replaces it."""
    away = ThrottledLog(logging.getLogger(__name__))

    def log_and_answer(error: Exception, request: Request) -> HTTPServiceUnavailable:
        away.warning("a store is away, requests that need it are answered 503: %s", error)
        return unavailable(error, request)

    config.add_exception_view(log_and_answer, context=RetryLater)


def unavailable(error: Exception, request: Request) -> HTTPServiceUnavailable:
    """Answer 503 without a word about the store."""
    return HTTPServiceUnavailable(headers=[("Retry-After", str(RETRY_AFTER))])


def answer_failure(request: Request, response: Response, error: Exception) -> None:
    """Turn a finished response into that of a save that failed, without its cookies.

    The application's exception view counts, where it has one for the error and does not answer
    that all is well.

    :raises Exception: the error itself, where it is a mistake of the application that no view
        answers.
    """
    answer = _rendered(request, error) or _default(request, error)
    if answer is None:
        raise error
    log.warning(
        "a session was not saved (%s); the answer is %s", type(error).__name__, answer.status
    )
    _replace(request, response, answer)


def _rendered(request: Request, error: Exception) -> Response | None:
    invoke = getattr(request, "invoke_exception_view", None)
    if invoke is None:
        return None
    try:
        answer: Response = invoke((type(error), error, error.__traceback__))
    except HTTPNotFound:
        return None
    return None if answer.status_code < 300 else answer


def _default(request: Request, error: Exception) -> Response | None:
    if isinstance(error, SessionConflict):
        return HTTPConflict("Another request changed the same part of the session. Try again.")
    if isinstance(error, KVSError) and not isinstance(error, _MISTAKES):
        return unavailable(error, request)
    return None


def _replace(request: Request, response: Response, answer: Response) -> None:
    """Put an answer in the place of a finished response.

    Headers that describe the old body, and its cookies, go; others (a rate limit's, CORS) stay.
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


def add_vary(headers: list[tuple[str, str]], name: str) -> None:
    """Have caches tell responses apart by a request header."""
    for index, (header, value) in enumerate(headers):
        if header.lower() == "vary":
            named = [item.strip().lower() for item in value.split(",")]
            if name.lower() not in named and "*" not in named:
                headers[index] = (header, f"{value}, {name}" if value.strip() else name)
            return
    headers.append(("Vary", name))

"""What a client gets while a store is away: 503 with ``Retry-After``."""

from __future__ import annotations

import sys
from typing import Any

from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPNotFound, HTTPServiceUnavailable
from pyramid.request import Request
from pyramid.response import Response

from .exceptions import RetryLater

#: Seconds after which a client may ask again: within this time the drivers notice the return.
RETRY_AFTER = 5

_OF_THE_OLD_BODY = ("cache-control", "etag", "expires", "last-modified", "location", "set-cookie")


def includeme(config: Configurator) -> None:
    """Add the library's view for a store that is away; an application's own replaces it."""
    config.add_exception_view(unavailable, context=RetryLater)


def unavailable(error: Exception, request: Request) -> HTTPServiceUnavailable:
    """Answer 503 without a word about the store."""
    return HTTPServiceUnavailable(headers=[("Retry-After", str(RETRY_AFTER))])


def answer_with_error(request: Request, response: Response, error: BaseException) -> None:
    """Turn a finished response into the answer that the exception views give to an error.

    For response callbacks, which Pyramid runs outside of the exception views. Headers that
    describe the old body, and its cookies, go; others (a rate limit's, CORS) stay.

    :raises BaseException: the error itself, when no view answers it.
    """
    replace_response(request, response, _answer(request, error))


def replace_response(request: Request, response: Response, answer: Any) -> None:
    """Put an answer in the place of a finished response."""
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
    if hasattr(replaced, "close"):
        replaced.close()


def _answer(request: Request, error: BaseException) -> Any:
    try:
        raise error
    except type(error):
        try:
            return request.invoke_exception_view(sys.exc_info())
        except HTTPNotFound:
            raise error from None

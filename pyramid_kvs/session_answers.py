"""What a response says about the session: ``Vary``, and that a save failed.

Pyramid runs response callbacks outside of the exception views, so an error that left one would
reach the WSGI server, with the view's response lost and no view asked.
"""

from __future__ import annotations

import logging

from pyramid.httpexceptions import HTTPConflict, HTTPNotFound
from pyramid.request import Request
from pyramid.response import Response

from .exceptions import KVSError, KVSNotSupported, SessionConflict, SessionTooLarge
from .responses import replace_response, unavailable

log = logging.getLogger("pyramid_kvs.session")


def add_vary(headers: list[tuple[str, str]], name: str) -> None:
    """Have caches tell responses apart by a request header."""
    for index, (header, value) in enumerate(headers):
        if header.lower() == "vary":
            named = [item.strip().lower() for item in value.split(",")]
            if name.lower() not in named and "*" not in named:
                headers[index] = (header, f"{value}, {name}" if value.strip() else name)
            return
    headers.append(("Vary", name))


def answer_failure(request: Request, response: Response, error: Exception) -> None:
    """Turn the response into that of a save that failed, without its cookies.

    The application's exception view counts, where it has one for the error.

    :raises Exception: the error itself, where it is a mistake of the application that no view
        answers.
    """
    answer = _rendered(request, error) or _default(request, error)
    if answer is None:
        raise error
    log.warning(
        "a session was not saved (%s); the answer is %s", type(error).__name__, answer.status
    )
    replace_response(request, response, answer)


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
    if isinstance(error, KVSError) and not isinstance(error, (SessionTooLarge, KVSNotSupported)):
        return unavailable(error, request)
    return None

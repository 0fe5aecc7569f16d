"""The attempts of pyramid_retry, which repeats a request after some errors.

An attempt that is going to be repeated must leave nothing behind. What is saved by a response
callback asks :func:`is_repeated` first. What acts earlier, and can wait, asks :func:`may_repeat`.
"""

from __future__ import annotations

import sys

from pyramid.request import Request


def may_repeat(request: Request) -> bool:
    """Return whether an error could repeat the request: this is not its last attempt."""
    try:
        environ = request.environ
    except ReferenceError:  # the request has ended
        return False
    attempt = environ.get("retry.attempt")
    return attempt is not None and attempt + 1 < environ.get("retry.attempts", 0)


def is_repeated(request: Request) -> bool:
    """Return whether the request will be repeated; to be called when there is a response.

    An exception view has made this response, which nobody will see. That also holds if pyramid_tm
    ran the view, because of a conflict at the commit.
    """
    error = getattr(request, "exception", None)
    return error is not None and repeats(request, error)


def repeats(request: Request, error: BaseException) -> bool:
    """Return whether this error repeats the request."""
    # If a request may be repeated, pyramid_retry has been imported.
    library = sys.modules.get("pyramid_retry") if may_repeat(request) else None
    return library is not None and library.is_error_retryable(request, error)

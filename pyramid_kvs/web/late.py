"""The time after the response callbacks, when nobody saves a session by itself.

A generator in ``app_iter``, a subscriber of ``NewResponse``, a finished callback or a thread can
change a session then, and has to call ``session.save()``.
"""

from __future__ import annotations

from typing import Any

from pyramid.interfaces import INewResponse
from pyramid.request import Request
from pyramid.response import Response


def may_follow(request: Request, response: Response) -> bool:
    """Return whether code of the application runs after the response callbacks.

    It may have values of the session that it changes in place. Threads cannot be foreseen.
    """
    if type(getattr(response, "app_iter", None)) is not list:
        return True
    if request.__dict__.get("finished_callbacks"):
        return True
    registry: Any = getattr(request, "registry", None)
    if not getattr(registry, "has_listeners", False):
        return False
    return bool(registry.adapters.subscriptions((INewResponse,), None))

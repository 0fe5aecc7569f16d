"""Attributes of requests that cost little until they are used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class RequestAttribute:
    """An attribute of every request, for ``config.add_request_method``.

    Pyramid calls ``__get__`` for each request. For a property it makes a class for each request,
    which takes 17 microseconds where this takes less than one.

    :param make: returns the attribute of a request. It may be set later, until the first request.
    """

    __slots__ = ("make",)

    def __init__(self, make: Callable[[Any], Any] | None = None) -> None:
        if make is not None:
            self.make = make

    def __get__(self, request: Any, owner: type | None = None) -> Any:
        return self.make(request)

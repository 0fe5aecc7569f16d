"""Attributes of requests: those of the features, and an explanation of those that are missing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from pyramid.config import Configurator
from pyramid.interfaces import PHASE3_CONFIG, IRequestFactory
from pyramid.request import Request

#: After ``set_request_factory``.
_ORDER = PHASE3_CONFIG + 10


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
        make = self.make  # Python is faster at a call of a local variable than of an attribute
        return make(request)


class MissingAttribute:
    """Raises ``AttributeError`` with the name of the setting that would add the attribute.

    It has no ``__set__``, so an attribute that something else adds takes precedence.
    """

    def __init__(self, setting: str) -> None:
        self._setting = setting
        self.name = setting.removeprefix("kvs.")

    def __get__(self, request: Any, owner: type) -> Any:
        raise AttributeError(
            f"{owner.__name__!r} object has no attribute {self.name!r}: the setting "
            f"{self._setting} is missing"
        )


def explain_missing(config: Configurator, settings: Iterable[str]) -> None:
    """Have requests say which setting an attribute needs, at no cost for each request.

    The class of requests has an attribute that explains. It is a subclass of the application's
    request factory, because other applications in the process may use the same factory.

    :param settings: the settings that are missing.
    """
    registry = config.registry

    def subclass_factory() -> None:
        factory = registry.queryUtility(IRequestFactory, default=Request)
        if isinstance(factory, type):
            attributes: dict[str, Any] = {
                "__module__": factory.__module__,
                "__doc__": factory.__doc__,
            }
            for missing in map(MissingAttribute, settings):
                if not hasattr(factory, missing.name):
                    attributes[missing.name] = missing
            subclass = type(factory.__name__, (factory,), attributes)
            registry.registerUtility(subclass, IRequestFactory)

    config.action("kvs request factory", subclass_factory, order=_ORDER)

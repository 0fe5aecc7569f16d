"""For test suites: ``pyramid.includes = pyramid_kvs.testing`` adds the ``mock`` driver.

- ``MockCache``, ``MockStore``, ``empty_store``: the ``mock`` driver, and its store
- ``DummyRequest``: a request for unit tests of views
- ``session_of``, ``without_limits``: for functional tests with WebTest
- ``pyramid_kvs.testing.pytest_plugin``: the fixture ``kvs_store``; needs pytest
- ``pyramid_kvs.testing.conformance``: the tests of a driver; needs pytest
"""

from __future__ import annotations

from pyramid.config import Configurator

from ..kvs import register
from .functional import session_of, without_limits
from .mock import MockCache
from .request import DummyRequest
from .store import MockStore, empty_store

__all__ = [
    "DummyRequest",
    "MockCache",
    "MockStore",
    "empty_store",
    "session_of",
    "without_limits",
]

register("mock", MockCache)


def includeme(config: Configurator) -> None:
    """Include ``pyramid_kvs``, and add the ``mock`` driver to the application."""
    config.include("pyramid_kvs")
    config.add_kvs_driver("mock", MockCache)

"""For test suites: ``pyramid.includes = pyramid_kvs.testing`` adds the ``mock`` driver."""

from __future__ import annotations

from pyramid.config import Configurator

from ..kvs import register
from .mock import MockCache

__all__ = ["MockCache"]

register("mock", MockCache)


def includeme(config: Configurator) -> None:
    """Include ``pyramid_kvs``, and add the ``mock`` driver to the application."""
    config.include("pyramid_kvs")
    config.add_kvs_driver("mock", MockCache)

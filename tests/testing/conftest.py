"""Fixtures of the tests of the kit for testers."""

from __future__ import annotations

from tests.testing.environments import bare_python

__all__ = ["bare_python"]

"""Fixtures for pytest: ``pytest_plugins = ["pyramid_kvs.testing.pytest_plugin"]``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .store import MockStore, empty_store


@pytest.fixture
def kvs_store() -> Iterator[MockStore]:
    """Give the test an empty mock store, and restore afterwards what was there."""
    with empty_store() as store:
        yield store

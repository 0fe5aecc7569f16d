"""The pytest plugin, as the test suite of an application uses it, with pytest-xdist too."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.testing.environments import run

CONFTEST = 'pytest_plugins = ["pyramid_kvs.testing.pytest_plugin"]\n'

SUITE = """
import pytest
from pyramid.config import Configurator
from pyramid_kvs.testing import MockCache

kvs = MockCache("mock", {}, "p::")


@pytest.mark.parametrize("number", range(20))
def test_each_test_has_an_empty_store(kvs_store, number):
    assert dict(kvs_store) == {}
    assert kvs_store.last_ttl is None
    kvs.set(str(number), number, 42)
    assert kvs_store.last_ttl == 42
    assert kvs_store[b"p::%d" % number] == str(number)
    kvs_store.pass_time(43)
    assert kvs.get(str(number)) is None
"""

RESTORED = """
from pyramid_kvs.testing import MockCache

kvs = MockCache("mock", {}, "p::")


def test_before():
    kvs.set("key", 1, 42)


def test_between(kvs_store):
    kvs.set("other", 1, 5)


def test_after():
    assert MockCache.cached_data == {b"p::key": "1"}
    assert MockCache.last_ttl == 42
    assert 40 < kvs.ttl_of("key") <= 42
"""


@pytest.mark.parametrize("workers", ["0", "2"])
def test_each_test_has_an_empty_store(bare_python: Path, tmp_path: Path, workers: str) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST, encoding="utf-8")
    found = run(bare_python, tmp_path, "-n", workers, suite=SUITE)
    assert (found.status, found.outcomes["passed"]) == (0, 20), found.output


def test_what_was_there_is_restored(bare_python: Path, tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST, encoding="utf-8")
    found = run(bare_python, tmp_path, suite=RESTORED)
    assert (found.status, found.outcomes["passed"]) == (0, 3), found.output


def test_the_plugin_is_loaded_only_where_it_is_named(bare_python: Path, tmp_path: Path) -> None:
    found = run(bare_python, tmp_path, suite=SUITE)
    assert found.status == 1
    assert "fixture 'kvs_store' not found" in found.output

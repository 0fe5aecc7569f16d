"""The distribution: its files, its metadata, its console script."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from importlib.metadata import distribution
from pathlib import Path

import pytest

import pyramid_kvs

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "pyramid_kvs"
TOP_LEVEL = {
    *("pyramid_kvs", "tests", "docs", "pyproject.toml", "setup.py", "setup.cfg", "tox.ini"),
    *("README.rst", "CHANGES.rst", "LICENSE", "MANIFEST.in"),
}


def metadata() -> configparser.SectionProxy:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser["metadata"]


def test_top_level() -> None:
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    names = {line.partition("/")[0] for line in listed.stdout.splitlines()}
    assert {name for name in names if not name.startswith(".")} == TOP_LEVEL


def test_version_is_the_same_everywhere() -> None:
    version = metadata()["version"]
    changes = (ROOT / "CHANGES.rst").read_text(encoding="utf-8")
    latest = re.search(r"^(\d\S*) \(", changes, re.MULTILINE)
    assert latest
    assert latest[1] == version
    assert distribution("pyramid_kvs").version == version
    assert pyramid_kvs.__version__ == version


def test_the_build_system_is_declared() -> None:
    """Without it, pip before 23.1 runs ``setup.py install``, whose scripts fail at their start."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert re.findall(r"^\[.*", text, re.MULTILINE) == ["[build-system]"]
    assert 'requires = ["setuptools", "wheel"]' in text


def test_console_script_loads() -> None:
    points = distribution("pyramid_kvs").entry_points.select(group="console_scripts")
    assert [point.name for point in points] == ["pkvs"]
    assert all(callable(point.load()) for point in points)


def test_the_package_is_typed() -> None:
    assert (PACKAGE / "py.typed").exists()

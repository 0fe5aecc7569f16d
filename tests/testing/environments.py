"""Virtual environments that have pyramid_kvs, pytest, what these need, and nothing else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]


def environment(folder: Path, *roots: str) -> Path:
    """Make an environment with the named distributions and their requirements.

    The files are links to those of the running environment, so nothing is downloaded.

    :returns: its python.
    """
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", "--symlinks", str(folder)], check=True
    )
    python = folder / "bin/python"
    site_packages = next(folder.glob("lib/python*/site-packages"))
    for found in _with_requirements(*roots):
        _link(found, site_packages)
    (site_packages / "pyramid_kvs").symlink_to(ROOT / "pyramid_kvs")
    return python


def _with_requirements(*roots: str) -> list[Distribution]:
    found: dict[str, Distribution] = {}
    wanted = list(roots)
    while wanted:
        name = wanted.pop()
        if name not in found and (known := _installed(name)):
            found[name] = known
            wanted += [_name(line) for line in known.requires or () if "extra ==" not in line]
    return list(found.values())


def _name(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0]


def _installed(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:  # a requirement of other systems
        return None


def _link(found: Distribution, site_packages: Path) -> None:
    tops = {Path(file).parts[0] for file in found.files or () if ".." not in Path(file).parts}
    for top in tops - {"__pycache__", "pyramid_kvs"}:
        source, target = Path(str(found.locate_file(top))), site_packages / top
        if source.exists() and not target.exists() and "editable" not in top:
            target.symlink_to(source)


@pytest.fixture(scope="session")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The python of an environment with pyramid_kvs and pytest, but without hypothesis."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    return environment(folder, "pyramid_kvs", "pytest", "pytest-xdist", "webtest")


class Run(NamedTuple):
    """How a run of pytest ended."""

    status: int
    outcomes: dict[str, int]
    output: str


def run(python: Path, folder: Path, *arguments: str, **files: str) -> Run:
    """Run pytest in a folder that has only these test modules."""
    for name, text in files.items():
        (folder / f"test_{name}.py").write_text(text, encoding="utf-8")
    result = subprocess.run(
        [python, "-m", "pytest", "-p", "no:cacheprovider", "-ra", "--strict-markers", *arguments],
        cwd=folder, capture_output=True, text=True, timeout=300,
        env={"PATH": os.environ["PATH"], "COLUMNS": "300"},
    )  # fmt: skip
    last = result.stdout.splitlines()[-1]
    outcomes = {name: int(count) for count, name in re.findall(r"(\d+) ([a-z]+)", last)}
    return Run(result.returncode, outcomes, result.stdout + result.stderr)

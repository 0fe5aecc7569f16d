"""``.ci/venv``, which makes the environments of a checkout, and ``tests/run``."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


# -- .ci/venv --------------------------------------------------------------------------------


def make(checkout: Path) -> str:
    """Make the environment as the scripts do; return what was printed."""
    return subprocess.run(
        [".ci/venv", ".venv", "pip"],
        cwd=checkout,
        env={**os.environ, "PYTHON": sys.executable},
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def uses_own_code(checkout: Path) -> bool:
    """Tell whether a script of the environment runs the code in this very environment."""
    script = checkout / ".venv" / "bin" / "pip"
    printed = subprocess.run([script, "--version"], check=True, capture_output=True, text=True)
    return str(checkout / ".venv") in printed.stdout


def test_copied_and_moved_checkouts_make_their_own_environment(tmp_path: Path) -> None:
    """The scripts of an environment, and an editable install, name the checkout by its path."""
    first, copy, moved = (tmp_path / name for name in ("a checkout", "a copy", "moved"))
    (first / ".ci").mkdir(parents=True)
    for name in (".ci/venv", "pyproject.toml", "setup.cfg", "setup.py"):
        shutil.copy(ROOT / name, first / name)
    assert "making .venv" in make(first)
    assert make(first) == ""

    shutil.copytree(first, copy, symlinks=True)
    assert not uses_own_code(copy)
    assert "making .venv" in make(copy)
    assert uses_own_code(copy)

    first.rename(moved)
    assert "making .venv" in make(moved)
    assert uses_own_code(moved)
    assert make(moved) == ""


# -- tests/run -------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with ``tests/run``, where python fails, and the Kinto tests print a line."""
    (tmp_path / "tests" / "kinto").mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "run", tmp_path / "tests" / "run")
    write_script(tmp_path / ".ci" / "venv", "exit 0")
    write_script(tmp_path / ".ci" / "servers", "exit 0")
    write_script(tmp_path / ".venv-test" / "bin" / "python", 'echo "$@"; exit 5')
    write_script(tmp_path / "tests" / "kinto" / "run", "echo Kinto")
    write_script(tmp_path / "bin" / "id", "echo 1000")  # not root: it may not install anything
    return tmp_path


def write_script(path: Path, body: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def run_tests(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["tests/run", *arguments],
        cwd=checkout,
        env={**os.environ, "PATH": f"{checkout}/bin:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )


def test_failing_tests_do_not_hide_the_kinto_tests(checkout: Path) -> None:
    done = run_tests(checkout)
    assert done.returncode == 1
    lines = [line for line in done.stdout.splitlines() if not line.startswith("tests/run: running")]
    parallel = "-m pytest -n logical --maxprocesses 4 --dist loadfile"
    assert lines[-5:] == [
        parallel,
        f"{parallel} -m valkey_cluster tests/session tests/ratelimit tests/cache",
        "Kinto",
        "tests/run: failed: the tests",
        "tests/run: failed: the tests on a cluster of Valkey",
    ]


def test_arguments_go_to_pytest_alone(checkout: Path) -> None:
    done = run_tests(checkout, "-k", "session and redis")
    assert done.returncode == 5
    assert done.stdout.splitlines()[-1] == "-m pytest -k session and redis"


def test_readme_names_the_packages_that_the_script_installs() -> None:
    script = (ROOT / "tests" / "run").read_text(encoding="utf-8")
    programs = re.search(r"for name in (.*); do", script)
    assert programs
    modules = re.findall(r"^\t[\w:]+ (\S+)$", script, re.MULTILINE)
    readme = (ROOT / "README.rst").read_text(encoding="utf-8")
    command = re.search(r"sudo apt-get install (.*)", readme)
    assert command
    others = re.findall(r"\|\| echo ([\w-]+)$", script, re.MULTILINE)
    assert set(command[1].split()) == {*programs[1].split(), *modules, *others}

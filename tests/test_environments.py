"""``.ci/venv`` makes an environment again if its checkout was copied or moved."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


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

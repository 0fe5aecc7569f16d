"""The examples of ``docs/testing.rst`` and ``docs/drivers.rst`` run as they are printed."""

from __future__ import annotations

from pathlib import Path

from tests.docpages import ROOT, blocks
from tests.testing.environments import run

PLUGINS = "pytest_plugins = "


def python_examples(page: str) -> list[str]:
    found = blocks(ROOT / f"docs/{page}.rst")
    return [block.text for block in found if block.language == "python"]


def test_the_examples_of_the_page_about_tests_run(bare_python: Path, tmp_path: Path) -> None:
    examples = python_examples("testing")
    conftest = [text for text in examples if text.startswith(PLUGINS)]
    (tmp_path / "conftest.py").write_text("".join(conftest), encoding="utf-8")
    suite = "\n\n".join(text for text in examples if text not in conftest)
    found = run(bare_python, tmp_path, "-n", "2", suite=suite)
    assert found.status == 0, found.output
    tests = suite.count("def test_")
    assert tests >= 11
    assert found.outcomes["passed"] > tests + 150  # those of DriverConformance too


def test_the_driver_on_the_page_about_drivers_passes_its_test(
    bare_python: Path, tmp_path: Path
) -> None:
    files = {block.caption: block.text for block in blocks(ROOT / "docs/drivers.rst")}
    (tmp_path / "sqlite_driver.py").write_text(files["sqlite_driver.py"], encoding="utf-8")
    found = run(bare_python, tmp_path, "-n", "2", sqlite_driver=files["test_sqlite_driver.py"])
    assert found.status == 0, found.output
    assert found.outcomes["passed"] > 150
    assert found.outcomes["skipped"] == 2  # SQLite does not tell the time

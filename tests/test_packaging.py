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
PAGES = [page for page in ROOT.glob("docs/**/*.rst") if "_build" not in page.parts]
TOP_LEVEL = {
    *("pyramid_kvs", "tests", "docs", "pyproject.toml", "setup.py", "setup.cfg", "tox.ini"),
    *("README.rst", "CHANGES.rst", "LICENSE", "MANIFEST.in"),
}


def metadata(section: str = "metadata") -> configparser.SectionProxy:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser[section]


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


def lines_of(option: str) -> list[str]:
    """Return the lines of an option in the metadata."""
    return metadata()[option].strip().splitlines()


def test_the_page_of_the_project_has_links() -> None:
    urls = dict(line.split(" = ", 1) for line in lines_of("project_urls"))
    assert urls.keys() == {"Documentation", "Changes", "Source", "Issues"}
    assert all(url.startswith("https://") for url in [metadata()["url"], *urls.values()])


def test_the_long_description_is_readme_and_changes() -> None:
    """``.ci/packaging`` checks that it renders."""
    assert metadata()["long_description"] == "file: README.rst, CHANGES.rst"
    assert "twine check --strict" in (ROOT / ".ci/packaging").read_text(encoding="utf-8")


def test_every_version_of_python_is_tested() -> None:
    named = re.findall(r"Python :: (3\.\d+)$", metadata()["classifiers"], re.MULTILINE)
    workflow = (ROOT / ".github/workflows/checks.yml").read_text(encoding="utf-8")
    tox = (ROOT / "tox.ini").read_text(encoding="utf-8")
    assert named[0] == "3.10"
    assert re.findall(r'"(3\.\d+)"', workflow) == named
    assert re.findall(r"\bpy3(\d+),", tox)[: len(named)] == [name[2:] for name in named]


def test_the_workflow_runs_the_command_of_everybody() -> None:
    workflow = (ROOT / ".github/workflows/checks.yml").read_text(encoding="utf-8")
    commands = re.findall(r"^ +- run: (.+)$", workflow, re.MULTILINE)
    assert [command for command in commands if not command.startswith("git config")] == [".ci/run"]


def test_the_package_needs_no_library_of_the_tests() -> None:
    """The kit for testers imports pytest and WebTest only where it needs them."""
    required = metadata("options")["install_requires"]
    assert not re.search("pytest|webtest|hypothesis", required)


def test_readme_lists_the_extras_of_an_application() -> None:
    of_the_project = {"demo", "testing", "docs", "lint"}
    readme = (ROOT / "README.rst").read_text(encoding="utf-8")
    table = readme.partition("extra  ")[2].partition("Demo\n")[0]
    listed = set(re.findall(r"^``(\w+)``  ?", table, re.MULTILINE))
    assert listed == {*metadata("options.extras_require")} - of_the_project


#: Pages that say what ``pip install pyramid_kvs`` installs until version 2 is released.
OF_RELEASES = {"README.rst", "docs/development.rst", "docs/faq.rst", "docs/getting_started.rst"}


def test_no_page_installs_the_other_program_of_the_same_name() -> None:
    pages = {str(page.relative_to(ROOT)): page for page in [*ROOT.glob("*.rst"), *PAGES]}
    found = [
        f"{name}: {line.strip()}"
        for name, page in pages.items()
        for line in page.read_text(encoding="utf-8").splitlines()
        if re.search(r"pip install (-\S+ )*[\"']?pyramid_kvs", line) and name not in OF_RELEASES
    ]
    assert [line for line in found if "which is not installed" not in line] == []

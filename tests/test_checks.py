"""The checks of ``.ci`` that are programs of this repository: they find what they are for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def check(name: str, *arguments: str | Path, folder: Path = ROOT) -> tuple[int, str]:
    """Run a check; return its exit status and what it printed."""
    done = subprocess.run(
        [sys.executable, ROOT / ".ci" / name, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


# -- language --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "instead"),
    [
        ("The value is no\nnumber.", "a.rst:1: 'is no ': write is not a"),
        ("# The value\n# stands there.", "a.rst:2: 'stands': write is"),
        ("A text that is kept for ever", "a.rst:1: 'A text': write a string"),
        ("``None``: no limit", "a.rst:1: 'None``: ': write None if"),
        ("Not once is it tried anew", "a.rst:1: 'anew': write again"),
        ("The store is away.", "a.rst:1: 'is away': write is unavailable"),
        ("It waits for so many seconds.", "a.rst:1: 'so many': write this number of, enough"),
    ],
)
def test_idiom_is_found(text: str, instead: str, tmp_path: Path) -> None:
    (tmp_path / "a.rst").write_text(text)
    status, printed = check("language.py", "a.rst", folder=tmp_path)
    assert status == 1
    assert instead in printed


@pytest.mark.parametrize(
    "text",
    [
        "There is no cookie, and that is no longer an error.",
        "LRU stands for least recently used.",
        "Open it in a text editor. It returns None: the key is missing.",
        "Take it away from the list. The life cycle of a request.",
        "A new id for every session.",
    ],
)
def test_plain_english_passes(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.rst").write_text(text)
    assert check("language.py", "a.rst", folder=tmp_path) == (0, "1 files, 0 idioms\n")


def test_prose_of_a_module_is_its_comments_and_strings(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        "texts = anew = None\n"
        "if texts is None:\n"
        "    lest = 1  # not lest\n"
        "    raise ValueError('the key is '\n"
        "        'no string')\n"
    )
    status, printed = check("language.py", "a.py", folder=tmp_path)
    assert status == 1
    assert sorted(printed.splitlines()[:-1]) == [
        "a.py:3: 'lest': write so that ... does not",
        "a.py:4: 'is no ': write is not a",
    ]


# -- sizes -----------------------------------------------------------------------------------


def function(lines: int) -> str:
    return (
        f"@decorated\ndef f{lines}():\n"
        + "    '''Not\n\n    counted.'''\n"
        + ("    pass\n" * (lines - 1))
    )


def sizes(functions: list[int], files: int, folder: Path) -> tuple[int, str]:
    (folder / "package").mkdir()
    for number in range(files):
        (folder / "package" / f"m{number}.py").write_text("")
    (folder / "package" / "m0.py").write_text("".join(map(function, functions)))
    return check("sizes.py", "package", folder=folder)


def test_sizes_within_the_limits(tmp_path: Path) -> None:
    status, printed = sizes([2, 3, 4, 5, 5, 5, 8, 9, 13, 60], 13, tmp_path)
    assert status == 0
    assert "10 functions: median 5 lines, 90th percentile 13\n1 over 40 lines\n" in printed
    assert "f60 has 60" in printed


@pytest.mark.parametrize(
    ("functions", "files", "problem"),
    [
        ([6, 6, 6], 1, "the median is above 5"),
        ([2, 2, 2, 14], 1, "the 90th percentile is above 13"),
        ([*[2] * 30, 41, 41], 1, "more than one function is over 40 lines"),
        ([2], 14, "package: 14 files, at most 13"),
    ],
)
def test_sizes_above_a_limit(
    functions: list[int], files: int, problem: str, tmp_path: Path
) -> None:
    status, printed = sizes(functions, files, tmp_path)
    assert status == 1
    assert problem in printed


# -- links -----------------------------------------------------------------------------------


def test_links_that_lead_somewhere(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<a href="b.html#here">b</a> <a href="#top">a</a>')
    (tmp_path / "b.html").write_text('<p id="here"><a href="https://example.org/#x">x</a>')
    assert check("links.py", tmp_path) == (0, "0 broken links\n")


@pytest.mark.parametrize("link", ["c.html", "b.html#there", "#there", "images/c.svg"])
def test_links_that_lead_nowhere(link: str, tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(f'<a href="{link}">c</a>')
    (tmp_path / "b.html").write_text('<p id="here">')
    assert check("links.py", tmp_path) == (1, f"a.html: {link}\n1 broken links\n")

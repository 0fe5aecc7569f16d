"""The documentation has no misspelt directives, its examples parse, and its settings start."""

from __future__ import annotations

import ast
import configparser
import json
import pkgutil
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError

from .docpages import PAGES, ROOT, Block, blocks

sys.path[:0] = [str(ROOT / "docs"), str(ROOT / "docs" / "images")]
import draw  # noqa: E402
import setting_keys  # noqa: E402

PICTURES = [*ROOT.glob("docs/images/*.svg")]
MODULES = [*ROOT.glob("pyramid_kvs/**/*.py"), *ROOT.glob("tests/**/*.py")]
ONE_COLON = re.compile(r"^[ \t]*\.\.[ \t]+[a-z][\w.-]*:(?!:)(?=\s|$)", re.MULTILINE)
#: A file or folder of the repository, or of the package, in the text of a page.
NAMED = re.compile(r"(?:tests|docs|\.ci)/[\w./-]+|[\w-]+(?:/[\w-]+)*(?:/|\.py)")
#: Described for authors of drivers, who import them from their public places.
NOT_PUBLIC = {"pyramid_kvs.kvs.hooks.Hooks"}
WRITTEN_BY_THE_READER = {"app.py"}


EXAMPLES = [block for page in sorted(PAGES) for block in blocks(page)]


def examples(*languages: str, having: str = "") -> pytest.MarkDecorator:
    found = [b for b in EXAMPLES if b.language in languages and re.search(having, b.text)]
    return pytest.mark.parametrize("block", found, ids=[block.place for block in found])


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of every docstring of a module."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, kinds) and (text := ast.get_docstring(node)):
            yield getattr(node, "lineno", 1), text


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.name)
def test_a_picture_with_colours_for_the_dark_has_a_background(picture: Path) -> None:
    # The page around it stays white, whatever colours the reader prefers.
    text = picture.read_text(encoding="utf-8")
    width, height = re.findall(r'viewBox="0 0 (\d+) (\d+)"', text)[0]
    assert text.count(".page { fill:") == 2
    assert f'<rect class="page" width="{width}" height="{height}"/>' in text


def test_pictures_are_what_their_source_draws() -> None:
    assert draw.PICTURES.keys() <= {picture.stem for picture in PICTURES}
    stale = [
        name
        for name, picture in draw.PICTURES.items()
        if (ROOT / f"docs/images/{name}.svg").read_text("utf-8") != picture().svg()
    ]
    assert stale == []  # python docs/images/draw.py


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.name)
def test_a_picture_is_on_a_page_with_a_description(picture: Path) -> None:
    figure = re.compile(rf"figure:: images/{picture.name}\n( +:figclass: \w+\n)? +:alt: \w")
    assert any(figure.search(page.read_text(encoding="utf-8")) for page in PAGES)


def test_the_lint_finds_a_directive_with_one_colon() -> None:
    assert ONE_COLON.search("text\n\n  .. note: is not shown\n")
    assert not ONE_COLON.search(".. note:: is shown\n.. _target:\n.. a comment: with a colon\n")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_directives_of_a_page_have_two_colons(page: Path) -> None:
    """Docutils reads ``.. note:`` as a comment and drops it without a warning."""
    assert ONE_COLON.findall(page.read_text(encoding="utf-8")) == []


def test_directives_of_docstrings_have_two_colons() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in MODULES
        for line, text in docstrings(path)
        if ONE_COLON.search(text)
    ]
    assert found == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_first_cell_of_a_simple_table_is_in_one_line(page: Path) -> None:
    """Docutils begins a new row at each line with a first cell, without a warning."""
    cells = first_cells(page.read_text(encoding="utf-8").splitlines())
    assert [cell for cell in cells if cell.endswith((",", "(", " or", " and"))] == []


def first_cells(lines: list[str]) -> Iterator[str]:
    """Yield the first column of the simple tables of a page, line by line."""
    width = 0
    for line in lines:
        if border := re.match(r" *=+(?=  *=)", line):
            width = border.end()
        elif not line.strip():
            width = 0
        elif width:
            yield line[:width].rstrip()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_a_page_names_exist(page: Path) -> None:
    """Files are found from the top of the repository, or in the package."""
    literals = re.findall(r"``([^`]+)``", page.read_text(encoding="utf-8"))
    names = {word for literal in literals for word in literal.split() if NAMED.fullmatch(word)}
    names -= {*WRITTEN_BY_THE_READER, *(block.caption for block in blocks(page))}
    roots = [ROOT, ROOT / "pyramid_kvs"]
    assert [name for name in names if not any((root / name).exists() for root in roots)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_tests_that_a_page_names_exist(page: Path) -> None:
    named = re.findall(r"``(tests/[\w/]+\.py)::(\w+)``", page.read_text(encoding="utf-8"))
    missing = [
        f"{path}::{test}"
        for path, test in named
        if not re.search(rf"^def {test}\(", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert missing == []


@examples("json")
def test_json_example_parses(block: Block) -> None:
    json.loads(block.text)


def test_python_examples_run(tmp_path: Path) -> None:
    """In a separate process, because some of them register drivers and codecs."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.docpages", tmp_path],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@examples("ini", having=r"(?m)^kvs\.")
def test_ini_example_starts_an_application(block: Block, tmp_path: Path) -> None:
    """The stores do not have to run, because an application starts without them.

    The files of TLS have to be there, wherever they are.
    """
    (tmp_path / "internal.pem").touch()
    settings = kvs_settings(block.text.replace("/etc/ssl", str(tmp_path)))
    if "kvs.ratelimit" in settings:
        settings.setdefault("kvs.session", '{"kvs": "memory"}')
    settings.setdefault("pyramid.includes", "pyramid_kvs")
    Configurator(settings=settings).commit()


@pytest.mark.parametrize(
    "settings",
    [
        {"kvs.session": {"kvs": "memory", "ttl": "300"}},
        {"kvs.cache": {"kvs": "reddis"}},
        {"kvs.cache": "{'kvs': 'redis'}"},
        {"kvs.sesion": {"kvs": "memory"}},
    ],
    ids=str,
)
def test_messages_on_the_page_of_settings_are_real(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError) as raised:
        Configurator(settings={"pyramid.includes": "pyramid_kvs", **settings}).commit()
    message = str(raised.value).rpartition("ConfigurationError'>: ")[2].splitlines()[0]
    # Other tests of this process may have loaded the driver for tests.
    assert message.replace("mock, ", "") in text_of("settings")


@pytest.mark.parametrize("setting", setting_keys.MODULES)
def test_each_key_of_a_setting_has_a_meaning(setting: str) -> None:
    (body,) = tables_of(setting)
    own = setting_keys.read_meanings(body)
    shared = setting_keys.read_meanings(setting_keys.SHARED.splitlines())
    keys = setting_keys.read_options(setting).keys()
    assert own.keys() <= keys
    assert keys <= own.keys() | shared.keys()
    assert all(meaning.lines for meaning in own.values())


def tables_of(setting: str) -> Iterator[list[str]]:
    """Yield the content of each directive that makes the table of a setting."""
    directive = re.compile(rf"^\.\. kvs-options:: {setting}\n((?:\n|    .*\n)*)", re.MULTILINE)
    for page in PAGES:
        for found in directive.finditer(page.read_text(encoding="utf-8")):
            yield textwrap.dedent(found[1]).splitlines()


def test_names_of_the_reference_exist() -> None:
    named = re.findall(r":(?:class|func|exc):`(pyramid_kvs[\w.]+)`", text_of("reference"))
    assert len(named) > 30
    assert [name for name in named if not callable(pkgutil.resolve_name(name))] == []


def test_documented_names_are_in_the_reference() -> None:
    directive = re.compile(r"^\.\. auto(?:class|function|exception):: ([\w.]+)", re.MULTILINE)
    documented = {name for page in PAGES for name in directive.findall(page.read_text("utf-8"))}
    assert [name for name in documented - NOT_PUBLIC if not is_in_reference(name)] == []


def is_in_reference(name: str) -> bool:
    """Tell whether the page names an object, or its module as a whole. If not, add it there."""
    module = name.rpartition(".")[0]
    texts = (f"`{name}`", f":: {name}\n", f"``{module}``")
    return any(text in text_of("reference") for text in texts)


def text_of(page: str) -> str:
    return (ROOT / f"docs/{page}.rst").read_text(encoding="utf-8")


def kvs_settings(text: str) -> dict[str, str]:
    """Return the settings of pyramid_kvs in an ini file, or in a part of one."""
    parser = configparser.ConfigParser()
    parser.read_string(text if re.search(r"^\[", text, re.MULTILINE) else f"[app:main]\n{text}")
    sections = [name for name in parser.sections() if name.startswith("app:")]
    return {
        name: value
        for section in sections
        for name, value in parser[section].items()
        if name.startswith("kvs.") or name == "pyramid.includes"
    }

"""The example blocks of the documentation's pages."""

from __future__ import annotations

import importlib
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PAGES = [
    *ROOT.glob("*.rst"),
    *(page for page in ROOT.glob("docs/**/*.rst") if "_build" not in page.parts),
]
_HEAD = re.compile(r"^(?P<indent> *)\.\. code-block:: (?P<language>[\w-]+)$")
_OPTION = re.compile(r"\s+:(?P<name>[\w-]+):(?P<value>.*)")


class Block(NamedTuple):
    """One example: its page and line, its language, its caption, and its text."""

    place: str
    language: str
    caption: str
    text: str


def blocks(page: Path) -> Iterator[Block]:
    """Yield the code blocks of a page, except those with ``:class: sketch``, which do not run."""
    lines = page.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        if head := _HEAD.match(line):
            body = list(_indented(lines[number + 1 :], len(head["indent"])))
            options = _options(body)
            text = textwrap.dedent("\n".join(body[len(options) :])).strip("\n") + "\n"
            place = f"{page.relative_to(ROOT)}:{number + 1}"
            if options.get("class") != "sketch":
                yield Block(place, head["language"], options.get("caption", ""), text)


def _options(body: list[str]) -> dict[str, str]:
    found = [_OPTION.match(line) for line in body]
    first_text = next((number for number, match in enumerate(found) if not match), len(body))
    return {match["name"]: match["value"].strip() for match in found[:first_text] if match}


def _indented(lines: list[str], indent: int) -> Iterator[str]:
    for line in lines:
        if line.strip() and len(line) - len(line.lstrip()) <= indent:
            return
        yield line


def commands(block: Block) -> Iterator[tuple[str, str]]:
    """Yield the commands of a console block, each with its output."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        yield command, output


def run_examples(folder: Path) -> Iterator[str]:
    """Import each Python example as a separate module; yield those that fail, with the error.

    What an example defines is not called. ``visit.py`` is a program with arguments, which
    ``test_getting_started.py`` runs.
    """
    sys.path.insert(0, str(folder))
    found = [block for page in sorted(PAGES) for block in blocks(page)]
    for number, block in enumerate(found):
        if block.language == "python" and block.caption != "visit.py":
            name = block.caption.removesuffix(".py") or f"example_{number}"
            (folder / f"{name}.py").write_text(f"import pytest\n{block.text}", "utf-8")
            try:
                importlib.import_module(name)
            except Exception as error:
                yield f"{block.place}: {type(error).__name__}: {error}"


if __name__ == "__main__":
    failed = list(run_examples(Path(sys.argv[1])))
    sys.exit("\n".join(failed) or 0)

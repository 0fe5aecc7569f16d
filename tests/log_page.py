"""The loggers and log messages of the package, and those on the page ``docs/logs.rst``."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "pyramid_kvs"
PAGE = (ROOT / "docs/logs.rst").read_text(encoding="utf-8")
LEVELS = ("debug", "info", "warning", "error", "exception", "critical")

#: Where the line is written by a logger of the caller.
OF_CALLERS = {"web.failures": {"session", "perlsess"}}


class Call(NamedTuple):
    """A call that logs: its place, the names of its loggers, its level and its format."""

    place: str
    loggers: frozenset[str]
    level: str
    format: str

    def matches(self, row: Row) -> bool:
        """Return whether a row of the page describes what the call logs."""
        parts = re.split(r"%[-+ #0]*[\d.]*[a-zA-Z]", self.format)
        pattern = ".+".join(re.escape(" ".join(f"|{part}|".split())[1:-1]) for part in parts)
        return self.level == row.level and re.fullmatch(pattern, row.message) is not None

    @property
    def words(self) -> int:
        """How many characters of the message are always the same."""
        return len(re.sub(r"%[-+ #0]*[\d.]*[a-zA-Z]", "", self.format))


class Row(NamedTuple):
    """A row of the table of messages."""

    logger: str
    level: str
    message: str
    advice: str


def calls() -> list[Call]:
    return [call for path in sorted(PACKAGE.rglob("*.py")) for call in _calls_of(path)]


def _calls_of(path: Path) -> Iterator[Call]:
    module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    if module == "logs":
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        level = getattr(getattr(node, "func", None), "attr", "")
        if isinstance(node, ast.Call) and level in LEVELS and node.args:
            place = f"{path.relative_to(ROOT)}:{node.lineno}"
            level = level.upper().replace("EXCEPTION", "ERROR")
            yield Call(place, _loggers_of(module, path), level, _format(node.args[0]))


def _format(argument: ast.expr) -> str:
    if isinstance(argument, ast.JoinedStr):
        return "".join(_format(part) for part in argument.values)
    return str(argument.value) if isinstance(argument, ast.Constant) else "%s"


def _loggers_of(module: str, path: Path) -> frozenset[str]:
    """Return the loggers that the module names, or else those that its package names."""
    if module in OF_CALLERS:
        return loggers_in(path) | OF_CALLERS[module]
    others = [loggers_in(found) for found in (PACKAGE / module.split(".")[0]).rglob("*.py")]
    return loggers_in(path) or frozenset().union(*others)


def loggers_in(path: Path) -> frozenset[str]:
    """Return the names of the loggers of a module, without ``pyramid_kvs.``."""
    text = path.read_text(encoding="utf-8")
    names = re.findall(r"getLogger\((.*?)\)", text)
    assert all(re.fullmatch(r'"pyramid_kvs[a-z.]*"', name) for name in names), names
    return frozenset(name.strip('"').removeprefix("pyramid_kvs").lstrip(".") for name in names)


def rows() -> list[Row]:
    table = PAGE.partition(".. list-table::")[2]
    found = re.findall(
        r"\* - ``([\w.]+)``\n +- ([A-Z]+)\b.*\n +- ``([^`]+)``\n +- ((?:.|\n(?! +\* ))+)", table
    )
    return [Row(name, level, " ".join(text.split()), advice) for name, level, text, advice in found]


CALLS = calls()
ROWS = rows()


def described_by(row: Row) -> list[Call]:
    """Return the calls that a row describes, or those with the most fixed words."""
    found = [call for call in CALLS if call.matches(row)]
    most = max((call.words for call in found), default=0)
    return [call for call in found if call.words == most]


def undescribed() -> list[str]:
    """Return the calls that log a message which is not on the page."""
    described = {call for row in ROWS for call in described_by(row)}
    return [f"{call.place}: {call.level}: {call.format}" for call in CALLS if call not in described]


def loggers() -> set[str]:
    """Return the names of all loggers of the package, without ``pyramid_kvs.``."""
    return {name for path in PACKAGE.rglob("*.py") for name in loggers_in(path)}


def listed_loggers() -> list[str]:
    """Return the names in the page's table of loggers."""
    table = PAGE.partition("\nLoggers\n")[2].partition("\nMessages\n")[0]
    return re.findall(r"^``pyramid_kvs(?:\.([\w.]+))?`` ", table, re.MULTILINE)

"""Read and write the table of the figures."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from tests.figures.measuring import Figures

PATH = Path(__file__).parent / "table.txt"

Part = Mapping[str, Figures]

_HEAD = """\
The figures that tests/figures compares. Written by: python -m tests.figures
all calls: {versions}
"""


def title(missing: Collection[str]) -> str:
    """Return the title of the part for an environment without some libraries."""
    return "without hiredis" if "hiredis" in missing else "with hiredis"


def write(versions: str, parts: Mapping[str, Part]) -> None:
    lines = [_HEAD.format(versions=versions)]
    for name, rows in parts.items():
        lines += [_line(name, ["calls", "all calls", "trips", "system calls"])]
        lines += [_line("  " + row, found) for row, found in rows.items()]
        lines += [""]
    PATH.write_text("\n".join(lines), encoding="utf-8")


def _line(name: str, columns: Sequence[object]) -> str:
    return f"{name:<32}" + "".join(f"{column!s:>14}" for column in columns)


def read() -> tuple[str, dict[str, Part]]:
    """Return the versions for the number of all calls, and the parts by their titles."""
    head, *parts = PATH.read_text(encoding="utf-8").rstrip().split("\n\n")
    return head.rpartition("all calls: ")[2], dict(map(_part, parts))


def _part(text: str) -> tuple[str, Part]:
    first, *lines = text.split("\n")
    rows = {line[:32].strip(): Figures(*map(int, line[32:].split())) for line in lines}
    return first[:32].strip(), rows

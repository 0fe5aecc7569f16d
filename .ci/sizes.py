"""Print how long the package's functions are, and check that no folder has too many files.

A function's lines are counted from ``def`` to its last line, without decorators and docstring. A
function inside another one counts by itself, and its lines count for the outer one too.
"""

from __future__ import annotations

import ast
import math
import statistics
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

MEDIAN = 5
NINETIETH = 13
LONG = 40  # lines; one function may be longer
FILES = 13  # .py files in one folder


class Function(NamedTuple):
    """A function, where it begins, and how many lines it has."""

    lines: int
    place: str
    name: str


def functions(path: Path) -> Iterator[Function]:
    """Yield the functions of a module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield Function(count(node), f"{path}:{node.lineno}", node.name)


def count(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the number of lines from ``def`` to the end, without the docstring."""
    lines = node.end_lineno - node.lineno + 1
    if ast.get_docstring(node) is None:
        return lines
    docstring = node.body[0]
    return lines - (docstring.end_lineno - docstring.lineno + 1)


def percentile(values: list[int], percent: int) -> int:
    """Return the smallest value that ``percent`` of the values do not exceed."""
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]


def main(folder: str = "pyramid_kvs") -> str | int:
    """Print the figures; return those above their limits, or 0."""
    paths = sorted(Path(folder).rglob("*.py"))
    found = [function for path in paths for function in functions(path)]
    lengths = [function.lines for function in found]
    median, ninetieth = statistics.median(lengths), percentile(lengths, 90)
    long = [function for function in found if function.lines > LONG]
    files = Counter(path.parent for path in paths)

    print(f"{len(found)} functions: median {median:g} lines, 90th percentile {ninetieth}")
    print(f"{len(long)} over {LONG} lines")
    for function in long:
        print(f"  {function.place}: {function.name} has {function.lines}")
    most, number = files.most_common(1)[0]
    print(f"{len(files)} folders, at most {number} files ({most})")

    problems = [
        *([f"the median is above {MEDIAN}"] if median > MEDIAN else []),
        *([f"the 90th percentile is above {NINETIETH}"] if ninetieth > NINETIETH else []),
        *([f"more than one function is over {LONG} lines"] if len(long) > 1 else []),
        *(
            f"{name}: {number} files, at most {FILES}"
            for name, number in files.items()
            if number > FILES
        ),
    ]
    return "\n".join(problems) or 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

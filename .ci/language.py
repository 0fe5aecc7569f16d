"""Find foreign idioms in the prose of the repository, and say what to write instead.

The prose of a Python file is its comments and strings. Other text files are prose as a whole. A
phrase is also found if it is broken over lines, or over the parts of a string below each other.
``python .ci/language.py FILE...`` looks at some files only.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tokenize
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

NOT_PROSE = re.compile(
    r"LICENSE|\.ci/language\.py|tests/test_checks\.py|tests/storable/corpus/.*|.*\.typed"
)
#: What separates two sentences that only happen to be near each other. No pattern matches it.
GAP = "\0"

#: Patterns, in any case unless they say otherwise, and what to write instead.
IDIOMS = {
    r"(?<!there )(?<!that )(is|are|was|were) no "
    r"(?!longer|more|less|better|worse|matter|place|reason|way|wonder)(?=[a-z`*'])": "is not a",
    r"(that|it|which|this) (is|are|was|were) (?-i:none)\b": "is not one",
    r"stands\b(?! for)": "is",
    r"(what|who|that|which) stand\b(?! for)": "is, are",
    r"stand (in(?! (for|line))|at|on|there|before|beside|above|below|between|first|last|twice)"
    r"(?!-)": "are, be",
    r"a text\b(?! (codec|file|column|editor|field|mode|protocol|type|area|part)| ?/)": "a string",
    r"texts\b": "strings",
    r"whole numbers?": "an integer, 'a positive integer' from 1",
    r"for ever\b": "forever",
    r"anew\b": "again",
    r"lest\b": "so that ... does not",
    r"(see|sees|saw|seeing) to it": "make sure",
    r"of (ours|yours|theirs|(its|their|your|our|one's) own)": "whose it is, or nothing",
    r"(is|are|was|were|be|been|being|goes|went) away(?! from)": "is unavailable",
    r"an away (store|server)": "an unavailable store",
    r"time-outs?": "timeout",
    r"mend(s|ed|ing)?\b": "fix",
    r"commonest": "most common",
    r"meanwhile": "when: 'in the meantime', 'between the two reads'",
    r"be it\b": "whether ... or not",
    r"life time|(default|long(er|est)?|short(er|est)?|whole|rest of .{1,20}) life\b": "lifetime",
    r"(prolongs?|shortens?) \w+ life\b": "lifetime",
    r"life of (a|an|the|its|their) (new )?"
    r"(cookie|counter|entry|item|key|record|session|value)": "lifetime",
    r"(?-i:And more)(?= *\0|$)": "Reference",
    r"(?<![a-z] )(?<![a-z] ``)(?-i:None(``)?: )(?=[a-z])": "None if ..., None means ...",
    r"latest used": "most recently used",
    r"has got": "has, gains",
    r"so many\b(?! that)": "this number of, enough",
    r"of several, the": "if there are several",
    r"what others? (saved|wrote|changed|did)": "changes that other requests saved",
}
PATTERNS = [
    (re.compile(rf"\b(?:{idiom})", re.IGNORECASE), instead) for idiom, instead in IDIOMS.items()
]
MARKERS = re.compile(r"^\s*(?:#+|--|\.\.|[-*])?\s*|\s+$")


class Finding(NamedTuple):
    """A phrase, where it is, and what to write instead."""

    place: str
    phrase: str
    instead: str


class Prose:
    """Text joined from pieces whose lines are known."""

    def __init__(self) -> None:
        self.text = ""
        self.starts: list[int] = []
        self.lines: list[int] = []

    def add(self, line: int, piece: str) -> None:
        """Add a piece of one line."""
        self.starts.append(len(self.text))
        self.lines.append(line)
        self.text += " ".join(piece.split()) + " "

    def gap(self) -> None:
        """End what was added so far: no phrase goes over this place."""
        self.text += GAP

    def line(self, offset: int) -> int:
        """Return the line of a place in the text."""
        return self.lines[bisect_right(self.starts, offset) - 1]


def prose_of_text(text: str) -> Prose:
    """Return a file without the marks that begin its lines; an empty line ends a paragraph."""
    prose = Prose()
    for number, line in enumerate(text.splitlines(), 1):
        if piece := MARKERS.sub("", line):
            prose.add(number, piece)
        else:
            prose.gap()
    return prose


def prose_of_python(text: str) -> Prose:
    """Return the comments and the strings of a module."""
    prose = Prose()
    before = None
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT):
            continue
        kind = (
            "comment" if token.type == tokenize.COMMENT else "string" if is_string(token) else None
        )
        if kind is None or kind != before:
            prose.gap()
        if kind:
            add_lines(prose, token)
        before = kind
    return prose


def is_string(token: tokenize.TokenInfo) -> bool:
    """Tell whether a token is a string, or, from Python 3.12 on, text between the braces of one."""
    return tokenize.tok_name[token.type] in ("STRING", "FSTRING_MIDDLE")


def add_lines(prose: Prose, token: tokenize.TokenInfo) -> None:
    """Add the lines of a comment or a string, without the quotes; an empty one ends a paragraph."""
    inner = re.sub(
        r"""^[a-zA-Z]{0,2}(\"{3}|'{3}|"|')(.*)\1$""", r"\2", token.string, flags=re.DOTALL
    )
    for number, line in enumerate(inner.splitlines(), token.start[0]):
        if piece := MARKERS.sub("", line):
            prose.add(number, piece)
        else:
            prose.gap()


def findings(path: Path) -> Iterator[Finding]:
    """Yield what is in the prose of a file."""
    text = path.read_text(encoding="utf-8")
    prose = prose_of_python(text) if path.suffix == ".py" else prose_of_text(text)
    for pattern, instead in PATTERNS:
        for match in pattern.finditer(prose.text):
            yield Finding(f"{path}:{prose.line(match.start())}", match[0], instead)


def tracked() -> list[Path]:
    """Return the text files of the repository that people read."""
    listed = subprocess.run(["git", "ls-files"], check=True, capture_output=True, text=True).stdout
    return [Path(name) for name in listed.splitlines() if not NOT_PROSE.fullmatch(name)]


def main(*paths: str) -> int:
    """Print what was found; return the exit status."""
    files = [Path(path) for path in paths] or tracked()
    found = [finding for path in files for finding in findings(path)]
    for place, phrase, instead in found:
        print(f"{place}: {phrase!r}: write {instead}")
    print(f"{len(files)} files, {len(found)} idioms")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

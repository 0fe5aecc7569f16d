"""Draw the narrow pictures of the documentation.

``python docs/images/draw.py`` writes the SVG files.

All pictures have the same width, so that their text is readable on a phone. The colours follow the
reader's choice of light or dark. A picture has its own background, because the page around it may
have the other one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from html import escape
from pathlib import Path

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent.parent))

from pyramid_kvs.ratelimit.counting.rules import Rule  # noqa: E402
from pyramid_kvs.ratelimit.counting.strategies import count  # noqa: E402

WIDTH = 480
STYLE = """
  <style>
    .page { fill: #ffffff }
    .text { fill: #24292f } .faint { fill: #57606a } .line { stroke: #57606a; fill: none }
    .good { fill: #1f7f37 } .slow { fill: #8a5d00 } .bad { fill: #cf222e } .fast { fill: #0969da }
    .note { fill: #ffffff; stroke: #57606a } .tip { fill: #57606a }
    .on { fill: #ffffff; font-weight: 600 }
    @media (prefers-color-scheme: dark) {
      .page { fill: #0d1117 }
      .text { fill: #e6edf3 } .faint { fill: #9da7b3 } .line { stroke: #9da7b3 }
      .good { fill: #238636 } .slow { fill: #9e6a03 } .bad { fill: #da3633 } .fast { fill: #1f6feb }
      .note { fill: #0d1117; stroke: #9da7b3 } .tip { fill: #9da7b3 }
    }
  </style>
"""


class Picture:
    """Shapes, and their text, from top to bottom."""

    def __init__(self, title: str, height: int) -> None:
        self.height = height
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"\n'
            '     aria-labelledby="title" font-family="system-ui, sans-serif" font-size="14">\n'
            f'  <title id="title">{escape(title)}</title>{STYLE}'
            f'  <rect class="page" width="{WIDTH}" height="{height}"/>\n'
        ]

    def text(
        self, x: float, y: float, words: str, kind: str = "text", anchor: str = "start"
    ) -> None:
        size = ' font-size="13"' if kind == "faint" else ""
        self.parts.append(
            f'  <text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}"{size}>'
            f"{escape(words, quote=False)}</text>\n"
        )

    def box(self, x: float, y: float, width: float, words: str, kind: str = "good") -> None:
        """Draw a box of one or more lines of text, which are separated by ``|``."""
        lines = words.split("|")
        height = 12 + 18 * len(lines)
        self.parts.append(
            f'  <rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height}"'
            f' rx="4"/>\n'
        )
        for number, line in enumerate(lines):
            inside = "text" if kind == "note" else "on"
            self.text(x + width / 2, y + 20 + 18 * number, line, inside, "middle")

    def line(self, path: str, *, dashed: bool = False) -> None:
        dashes = ' stroke-dasharray="4 4"' if dashed else ""
        self.parts.append(f'  <path class="line" d="{path}"{dashes}/>\n')

    def arrow(self, x: float, y: float, to_x: float, *, dashed: bool = False) -> None:
        """Draw a horizontal arrow."""
        back = -7 if to_x > x else 7
        self.line(f"M{x:g} {y:g}H{to_x + back:g}", dashed=dashed)
        self.parts.append(f'  <path class="tip" d="M{to_x:g} {y:g}l{back} -5v10z"/>\n')

    def down(self, x: float, y: float, to_y: float) -> None:
        """Draw an arrow that points down."""
        self.line(f"M{x:g} {y:g}V{to_y - 7:g}")
        self.parts.append(f'  <path class="tip" d="M{x:g} {to_y:g}l-5 -7h10z"/>\n')

    def svg(self) -> str:
        return "".join([*self.parts, "</svg>\n"])


def features() -> Picture:
    picture = Picture("Which feature uses which store", 330)
    for x, words in ((100, "setting and attribute"), (290, "driver"), (412, "store")):
        picture.text(x, 24, words, "faint", "middle")
    rows = (
        ("kvs.cache|request.cache", "fast"),
        ("kvs.session|request.session", "fast"),
        ("kvs.ratelimit|request.ratelimit", "fast"),
        ("kvs.perlsess|request.perlsess", "fast"),
    )
    for number, (words, kind) in enumerate(rows):
        y = 40 + 66 * number
        picture.box(10, y, 180, words, kind)
        if number != 2:
            picture.arrow(190, y + 24, 240)
    picture.line("M190 196H215V142", dashed=True)
    picture.parts.append('  <path class="tip" d="M215 135l-5 7h10z"/>\n')
    picture.text(222, 178, "the session's, unless", "faint")
    picture.text(222, 196, "it names a store", "faint")
    for number, words in enumerate(("one driver", "one driver", "", "one driver")):
        if words:
            y = 40 + 66 * number
            picture.box(240, y + 9, 100, words, "slow")
            picture.arrow(340, y + 24, 368)
    picture.box(
        368,
        40,
        104,
        "|redis|||memcached|||PostgreSQL|||memory|||",
    )
    picture.text(
        10, 318, "A driver is made for each setting. Settings may name the same server.", "faint"
    )
    return picture


def request() -> Picture:
    picture = Picture(
        "The life of a request, with a rate limit, a session and a cache on redis", 640
    )
    application, store = 130, 430
    picture.box(30, 10, 200, "application", "fast")
    picture.box(380, 10, 90, "redis", "slow")
    picture.line(f"M{application} 40V600")
    picture.line(f"M{store} 40V600", dashed=True)
    steps = (
        (70, "rate limit (tween)", "count, and read the session", "1 trip, one script"),
        (160, "routes, security, view", "", ""),
        (220, "request.session[...]", "", "no trip: it is there"),
        (290, "cache.get_or_create", "get", "1 trip for a hit"),
        (380, 'session["user"] = ...', "", "no trip: kept until the end"),
        (450, "response callbacks", "", ""),
        (500, "save, if changed", "compare and set", "1 trip"),
    )
    for y, words, call, note in steps:
        picture.box(20, y, 220, words, "good" if not call else "fast")
        if call:
            picture.arrow(240, y + 12, store)
            picture.arrow(store, y + 24, 240)
            picture.text(335, y + 4, call, "faint", "middle")
            picture.text(335, y + 44, note, "text", "middle")
        elif note:
            picture.text(252, y + 20, note, "faint")
    picture.box(20, 110, 220, "over the limit: 429", "bad")
    picture.box(20, 560, 220, "cookie, Vary, X-RateLimit-*", "good")
    picture.text(252, 580, "the response", "faint")
    picture.text(
        20, 620, "Without a rate limit, the first use of the session reads it: 1 trip.", "faint"
    )
    return picture


def merge() -> Picture:
    picture = Picture(
        "Two tabs change one session at the same time, and both changes are kept", 560
    )
    first, store, second = 80, 240, 400
    for x, words, kind in (
        (first, "tab 1", "fast"),
        (store, "store", "slow"),
        (second, "tab 2", "fast"),
    ):
        picture.box(x - 65, 10, 130, words, kind)
        picture.line(f"M{x} 40V530", dashed=x == store)
    picture.box(store - 70, 55, 140, "cart: [A]|visits: 7", "note")
    picture.arrow(store, 130, first)
    picture.text(160, 123, "read", "faint", "middle")
    picture.arrow(store, 150, second)
    picture.text(320, 143, "read", "faint", "middle")
    picture.box(first - 72, 165, 144, "cart.append(B)|incr(visits)", "good")
    picture.box(second - 72, 165, 144, "cart.append(C)|theme = dark", "good")
    picture.arrow(first, 240, store)
    picture.text(160, 232, "save", "faint", "middle")
    picture.box(store - 70, 250, 140, "cart: [A, B]|visits: 8", "note")
    picture.arrow(second, 330, store)
    picture.text(320, 322, "save: changed!", "faint", "middle")
    picture.arrow(store, 352, second)
    picture.text(320, 370, "the new state", "faint", "middle")
    picture.box(second - 72, 380, 144, "merge base,|theirs and ours", "good")
    picture.arrow(second, 455, store)
    picture.text(320, 447, "save", "faint", "middle")
    picture.box(store - 95, 465, 190, "cart: [A, B, C]|visits: 8, theme: dark", "note")
    picture.text(
        240, 548, "Without a merge, tab 2 would have removed B and a visit.", "faint", "middle"
    )
    return picture


#: When requests come, in tenths of a window: a burst, single ones, and a burst around the end.
REQUESTS = (0, 0.2, 0.4, 0.6, 0.8, 3, 5, 7, 9, 9.3, 9.6, 10.1, 10.3, 10.6, 10.9, 12, 13, 15, 17, 19)
LIMIT = 6
SECOND = 1000


def strategies() -> Picture:
    """Ask the library's own strategies which of the requests pass."""
    picture = Picture(
        "The same requests under three strategies with a limit of six in a window", 400
    )
    left, tenth = 20, 22
    rules = (
        ("fixed-window", "counts from the first request of a window", LIMIT),
        ("sliding-window", "the previous window counts in part", LIMIT),
        ("gcra", "six at once, then one per sixth of the window", LIMIT),
    )
    for number, (strategy, words, burst) in enumerate(rules):
        y = 30 + 112 * number
        picture.text(left, y, strategy)
        picture.text(left + 115, y, words, "faint")
        picture.line(f"M{left} {y + 66}H{left + 20 * tenth}")
        for edge in (0, 10, 20):
            picture.line(f"M{left + edge * tenth} {y + 14}V{y + 72}", dashed=True)
        passed = _draw_requests(picture, Rule(strategy, LIMIT, 10 * SECOND, burst), left, tenth, y)
        picture.text(left + 20 * tenth, y + 88, f"{passed} of {len(REQUESTS)} pass", "faint", "end")
    picture.parts.append(
        f'  <rect class="good" x="{left}" y="366" width="10" height="20" rx="2"/>\n'
    )
    picture.text(left + 16, 381, "passes")
    picture.parts.append(
        f'  <rect class="bad" x="{left + 90}" y="376" width="10" height="10" rx="2"/>\n'
    )
    picture.text(left + 106, 381, "gets 429")
    picture.text(left + 20 * tenth, 381, "two windows", "faint", "end")
    return picture


def _draw_requests(picture: Picture, rule: Rule, left: float, tenth: float, y: float) -> int:
    state, passed = None, 0
    for at in REQUESTS:
        counted = count(state, round(1_000_000 + at * SECOND), rule)
        allowed = counted.result.allowed
        state = counted.state or state if allowed else state
        passed += allowed
        height = 46 if allowed else 23
        picture.parts.append(
            f'  <rect class="{"good" if allowed else "bad"}" x="{left + at * tenth:g}"'
            f' y="{y + 66 - height:g}" width="3.5" height="{height}" rx="1"/>\n'
        )
    return passed


def hash_keys() -> Picture:
    picture = Picture("How a running site switches hash_keys on", 420)
    picture.text(10, 22, "hash_keys", "faint")
    picture.text(185, 22, "a new session is", "faint", "middle")
    picture.text(375, 22, "an old session is", "faint", "middle")
    steps = (
        ("false", "stored under its id", "found", "slow", "slow"),
        ('"accept"', "stored under its id", "found, and so are|hashed ones", "slow", "slow"),
        ('"migrate"', "hashed", "found, and moved|when it is used", "good", "good"),
        ("true", "hashed", "not found any more", "good", "bad"),
    )
    for number, (value, new, old, new_kind, old_kind) in enumerate(steps):
        y = 40 + 92 * number
        picture.text(10, y + 24, value)
        picture.box(100, y, 170, new, new_kind)
        picture.box(285, y, 185, old, old_kind)
        if number:
            picture.down(50, y - 62, y + 4)
    for number, words in enumerate(
        (
            "restart all workers, one after the other",
            "restart all workers again",
            "wait for the ttl, then restart",
        )
    ):
        picture.text(64, 108 + 92 * number + (6 if number == 2 else 0), words, "faint")
    picture.text(
        10, 406, "No step logs a user out. A copy of the store is useless after the last.", "faint"
    )
    return picture


PICTURES: dict[str, Callable[[], Picture]] = {
    "features": features,
    "request": request,
    "merge": merge,
    "strategies": strategies,
    "hash_keys": hash_keys,
}

if __name__ == "__main__":
    for name, draw in PICTURES.items():
        (FOLDER / f"{name}.svg").write_text(draw().svg(), encoding="utf-8")

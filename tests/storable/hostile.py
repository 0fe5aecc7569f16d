"""Megabytes that an attacker would write: how long they take and how much memory.

    python -m tests.storable.hostile        prints a table

Each image is 1 MB of what costs most for its size: records of one or two bytes, nesting, empty
containers, distinct keys, strings that do not decode, numbers of odd sizes.
"""

from __future__ import annotations

import gc
import json
import resource
import struct
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from pyramid_kvs.storable import StorableError, thaw
from tests.storable.images import NETWORK, L, native

SIZE = 1_000_000
U = struct.Struct(">I").pack


def nested(unit: bytes, end: bytes = b"", tail: bytes = b"") -> bytes:
    """As many levels as fit, with as many tails behind them."""
    levels = SIZE // len(unit + tail)
    return NETWORK + unit * levels + end + tail * levels


def array(unit: bytes, first: bytes | None = None, head: bytes = NETWORK + b"\x02") -> bytes:
    """An array of as many units as fit; of other ones after the first, if that is given."""
    number = SIZE // len(unit)
    first = unit if first is None else first
    return head + U(number) + first + unit * (number - 1)


def keys(kind: bytes, flags: bytes) -> bytes:
    number = SIZE // (9 + len(flags))
    pairs = (b"\x05" + flags + U(4) + U(key) for key in range(number))
    return NETWORK + kind + U(number) + b"".join(pairs)


def doubles(payload: bytes) -> bytes:
    number = SIZE // 17
    return native(nv_size=16) + L.array(*[b"\x07" + payload] * number)


def oldest(body: bytes) -> bytes:
    level = b"".join(U(number) + body for number in range(SIZE // (4 + len(body))))
    return b"\x01" + level


CASES: dict[str, Callable[[], bytes]] = {
    "undefs": lambda: array(b"\x05"),
    "bytes": lambda: array(b"\x08\x80"),
    "references": lambda: nested(b"\x04", b"\x05"),
    "references to scalars": lambda: array(b"\x04\x05"),
    "references of references to scalars": lambda: array(b"\x04\x1b\x05"),
    "arrays": lambda: nested(b"\x02\0\0\0\x01", b"\x05"),
    "array references": lambda: nested(b"\x04\x02\0\0\0\x01", b"\x05"),
    "hashes": lambda: nested(b"\x03\0\0\0\x01", b"\x05", U(0)),
    "flag hashes": lambda: nested(b"\x19\0\0\0\0\x01", b"\x05", b"\0" + U(0)),
    "large arrays": lambda: nested(b"\x21\x02" + b"\0" * 7 + b"\x01", b"\x05"),
    "empty arrays": lambda: array(b"\x02\0\0\0\0"),
    "empty hashes": lambda: array(b"\x03\0\0\0\0"),
    "hashes of one": lambda: array(b"\x03\0\0\0\x01\x05\0\0\0\0"),
    "distinct keys": lambda: keys(b"\x03", b""),
    "distinct flagged keys": lambda: keys(b"\x19\0", b"\x01"),
    "key records": lambda: nested(b"\x19\0\0\0\0\x01\x05\x08"),
    "no UTF-8": lambda: array(b"\x0a\x01\xff"),
    "one tag again and again": lambda: array(b"\0\0\0\0\0"),
    "hooks in hooks": lambda: nested(b"\x13\x42"),
    "whole hooks in hooks": lambda: nested(b"\x13\x42", b"\x05", b"\0\0\0"),
    "hooks behind references": lambda: nested(b"\x04\x13\x42"),
    "hook tails": lambda: nested(b"\x13\x03\x04\0\0"),
    "empty hooks": lambda: array(b"\x13\0\0\0"),
    "a hook with one part often": lambda: NETWORK + b"\x13\x90\0\0" + U(SIZE // 4) + bytes(SIZE),
    "tied keys": lambda: nested(b"\x15"),
    "tied elements": lambda: nested(b"\x16"),
    "references to tied keys": lambda: nested(b"\x04\x15"),
    "small tied keys": lambda: array(b"\x15\x05\x05"),
    "blessings": lambda: nested(b"\x11\0", b"\x05"),
    "blessed references": lambda: nested(b"\x04\x11\x01A", b"\x05"),
    "blessed scalars": lambda: array(b"\x12\0\x05", b"\x11\0\x05"),
    "version strings": lambda: nested(b"\x1d\0", b"\x05"),
    "patterns": lambda: array(b"\x20\0\0\0"),
    "code": lambda: array(b"\x1a\x0a\0"),
    "quads": lambda: doubles(b"\xff" * 14 + b"\xff\x43"),
    "tiny quads": lambda: doubles(b"\xff" * 14 + b"\xd0\x3b"),
    "a long string": lambda: NETWORK + b"\x01" + U(SIZE) + b"\xff" * SIZE,
    "major 1: references": lambda: (
        b"\x03" + b"\x04" * (SIZE // 2) + b"\x05" + b"X" * (SIZE // 2 + 1)
    ),
    "major 1: arrays": lambda: b"\x03" + b"\x02\0\0\0\x01" * (SIZE // 5),
    "major 1: undefs": lambda: array(b"\x05X", head=b"\x03\x02") + b"X",
    "major 1: notes": lambda: b"\x03\x05" + b"b\0" * (SIZE // 2) + b"X",
    "major 0: references": lambda: oldest(b"\x04"),
    "major 0: arrays": lambda: oldest(b"\x02\0\0\0\x01i"),
    "major 0: holes": lambda: b"\x01\0\0\0\0\x02" + U(SIZE) + b"I" * SIZE + b"X",
}
WITH_CALLBACK = (
    "hooks in hooks",
    "whole hooks in hooks",
    "hooks behind references",
    "blessed references",
    "blessed scalars",
    "one tag again and again",
    "major 1: notes",
)


def measure() -> Iterator[tuple[str, str, float, float]]:
    """Yield name, outcome, seconds of processor time and the megabytes that all so far took."""
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, options in [(n, {}) for n in CASES] + [(n, {"blessed": keep}) for n in WITH_CALLBACK]:
        image = CASES[name]()
        gc.collect()
        begin = time.process_time()
        outcome = try_thaw(image, options)
        seconds = time.process_time() - begin
        megabytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) / 1024
        yield name + (" (callback)" if options else ""), outcome, seconds, megabytes


def keep(_name: str, value: Any) -> Any:
    return value


def try_thaw(image: bytes, options: Any) -> str:
    try:
        thaw(image, **options)
    except StorableError as error:
        return str(error)
    return "a value"


if __name__ == "__main__":
    if sys.argv[1:] == ["json"]:
        print(json.dumps(list(measure())))
    else:
        for name, outcome, seconds, megabytes in measure():
            print(f"{name:44} {seconds:5.2f} s {megabytes:6.0f} MB  {outcome}")

"""Images that an attacker would write: how much time and memory they take.

    python -m tests.storable.hostile        prints a table for images of 1 MB

Each image consists of the records that are most expensive for their size: records of one or two
bytes, nesting, empty containers, distinct keys, strings that cannot be decoded, numbers of unusual
sizes, and long names to which many short records refer.
"""

from __future__ import annotations

import gc
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from pyramid_kvs.storable import StorableError, thaw
from tests.storable.images import BIG, LITTLE, NETWORK, native, u32

MEGABYTE = 1_000_000

Image = Callable[[int], bytes]


def nested(unit: bytes, end: bytes = b"", tail: bytes = b"") -> Image:
    """As many levels as possible, followed by the same number of tails."""

    def build(size: int) -> bytes:
        levels = size // len(unit + tail)
        return NETWORK + unit * levels + end + tail * levels

    return build


def array(
    unit: bytes, first: bytes | None = None, head: bytes = NETWORK, tail: bytes = b""
) -> Image:
    """An array of as many units as possible; ``first`` replaces the first one."""

    def build(size: int) -> bytes:
        number = size // len(unit)
        start = unit if first is None else first
        return head + b"\x02" + u32(number) + start + unit * (number - 1) + tail

    return build


def after(first: Callable[[bytes], bytes], unit: bytes) -> Image:
    """An array of a record with a long name, which fills half of the image, and many units."""

    def build(size: int) -> bytes:
        number = size // 2 // len(unit)
        return NETWORK + b"\x02" + u32(number + 1) + first(b"A" * (size // 2)) + unit * number

    return build


def keys(kind: bytes, flags: bytes) -> Image:
    def build(size: int) -> bytes:
        number = size // (9 + len(flags))
        pairs = (b"\x05" + flags + u32(4) + u32(key) for key in range(number))
        return NETWORK + kind + u32(number) + b"".join(pairs)

    return build


def equal_key_records(size: int) -> bytes:
    """A hash whose keys are records that name the second of two equal long strings."""
    text = BIG.long_text(b"k" * (size // 4))
    number = size // 2 // 7
    pairs = (b"\x05\x08\0" + u32(tag) for tag in (1, *[2] * number))
    return NETWORK + BIG.array(text, text, BIG.flag_hash(*pairs))


def equal_key_and_records(size: int) -> bytes:
    """A hash with a long key, whose other keys are records that name an equal string."""
    name = b"k" * (size // 4)
    number = size // 2 // 7
    pairs = [b"\x05\0" + BIG.key(name), *[b"\x05\x08\0" + u32(1)] * number]
    return NETWORK + BIG.array(BIG.long_text(name), BIG.flag_hash(*pairs))


def doubles(payload: bytes) -> Image:
    return lambda size: native(nv_size=16) + LITTLE.array(*[b"\x07" + payload] * (size // 17))


def oldest(body: bytes) -> Image:
    def build(size: int) -> bytes:
        return b"\x01" + b"".join(u32(n) + body for n in range(size // (4 + len(body))))

    return build


CASES: dict[str, Image] = {
    "undefs": array(b"\x05"),
    "bytes": array(b"\x08\x80"),
    "references": nested(b"\x04", b"\x05"),
    "references to scalars": array(b"\x04\x05"),
    "references of references to scalars": array(b"\x04\x1b\x05"),
    "arrays": nested(b"\x02\0\0\0\x01", b"\x05"),
    "array references": nested(b"\x04\x02\0\0\0\x01", b"\x05"),
    "hashes": nested(b"\x03\0\0\0\x01", b"\x05", u32(0)),
    "flag hashes": nested(b"\x19\0\0\0\0\x01", b"\x05", b"\0" + u32(0)),
    "large arrays": nested(b"\x21\x02" + b"\0" * 7 + b"\x01", b"\x05"),
    "empty arrays": array(b"\x02\0\0\0\0"),
    "empty hashes": array(b"\x03\0\0\0\0"),
    "hashes of one": array(b"\x03\0\0\0\x01\x05\0\0\0\0"),
    "distinct keys": keys(b"\x03", b""),
    "distinct flagged keys": keys(b"\x19\0", b"\x01"),
    "key records": nested(b"\x19\0\0\0\0\x01\x05\x08"),
    "equal key records": equal_key_records,
    "an equal key and key records": equal_key_and_records,
    "not UTF-8": array(b"\x0a\x01\xff"),
    "one tag many times": array(b"\0\0\0\0\0"),
    "a long string many times": after(BIG.long_text, b"\0\0\0\0\1"),
    "hooks in hooks": nested(b"\x13\x42"),
    "complete hooks in hooks": nested(b"\x13\x42", b"\x05", b"\0\0\0"),
    "hooks behind references": nested(b"\x04\x13\x42"),
    "a hook behind many references": lambda size: (
        NETWORK + b"\x04" * size + b"\x13\x42\x05\x02\x01A\x01h"
    ),
    "hook tails": nested(b"\x13\x03\x04\0\0"),
    "empty hooks": array(b"\x13\0\0\0"),
    "a hook with one part many times": lambda size: (
        NETWORK + b"\x13\x90\0\0" + u32(size // 4) + bytes(size)
    ),
    "hooks of a class with a long name": after(
        lambda name: b"\x13\x04" + u32(len(name)) + name + b"\0", b"\x13\x20\0\0"
    ),
    "tied keys": nested(b"\x15"),
    "tied elements": nested(b"\x16"),
    "references to tied keys": nested(b"\x04\x15"),
    "small tied keys": array(b"\x15\x05\x05"),
    "blessings": nested(b"\x11\0", b"\x05"),
    "blessed references": nested(b"\x04\x11\x01A", b"\x05"),
    "blessed scalars": array(b"\x12\0\x05", b"\x11\0\x05"),
    "objects of a class with a long name": after(
        lambda name: b"\x11\x80" + u32(len(name)) + name + b"\x05", b"\x12\0\x05"
    ),
    "nested objects of a class with a long name": lambda size: (
        NETWORK + b"\x11\x80" + u32(size // 2) + b"A" * (size // 2) + b"\x04\x12\0" * (size // 6)
        + b"\x05"
    ),
    "many classes": lambda size: (
        NETWORK + BIG.array(*(b"\x11\x04" + u32(n) + b"\x05" for n in range(size // 7)))
    ),
    "version strings": nested(b"\x1d\0", b"\x05"),
    "patterns": array(b"\x20\0\0\0"),
    "code": array(b"\x1a\x0a\0"),
    "quads": doubles(b"\xff" * 14 + b"\xff\x43"),
    "tiny quads": doubles(b"\xff" * 14 + b"\xd0\x3b"),
    "a long string": lambda size: NETWORK + b"\x01" + u32(size) + b"\xff" * size,
    "major 1: references": lambda size: (
        b"\x03" + b"\x04" * (size // 2) + b"\x05" + b"X" * (size // 2 + 1)
    ),
    "major 1: arrays": lambda size: b"\x03" + b"\x02\0\0\0\x01" * (size // 5),
    "major 1: undefs": array(b"\x05X", head=b"\x03", tail=b"X"),
    "major 1: notes": lambda size: b"\x03\x05" + b"b\0" * (size // 2) + b"X",
    "major 1: a long class name": lambda size: (
        b"\x03" + b"\x04" * (size // 4) + b"\x05" + b"X" * (size // 4)
        + b"B" + u32(size // 2) + b"A" * (size // 2) + b"X"
    ),
    "major 0: references": oldest(b"\x04"),
    "major 0: arrays": oldest(b"\x02\0\0\0\x01i"),
    "major 0: holes": lambda size: b"\x01\0\0\0\0\x02" + u32(size) + b"I" * size + b"X",
}  # fmt: skip
WITH_CALLBACK = (
    "equal key records",
    "one tag many times",
    "hooks in hooks",
    "complete hooks in hooks",
    "hooks behind references",
    "a hook behind many references",
    "hooks of a class with a long name",
    "blessed references",
    "blessed scalars",
    "objects of a class with a long name",
    "nested objects of a class with a long name",
    "many classes",
    "major 1: notes",
    "major 1: a long class name",
)


def keep(_name: str, value: Any) -> Any:
    return value


#: The images and the options with which they are read, by name.
ALL: dict[str, tuple[Image, dict[str, Any]]] = {
    **{name: (CASES[name], {}) for name in CASES},
    **{f"{name} (callback)": (CASES[name], {"blessed": keep}) for name in WITH_CALLBACK},
}


def measure() -> Iterator[tuple[str, str, float, float]]:
    """Yield name, outcome, seconds of processor time, and the megabytes of all cases so far."""
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, (make, options) in ALL.items():
        image = make(MEGABYTE)
        gc.collect()
        begin = time.process_time()
        outcome = try_thaw(image, options)
        seconds = time.process_time() - begin
        megabytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) / 1024
        yield name, outcome, seconds, megabytes


def try_thaw(image: bytes, options: dict[str, Any]) -> str:
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
            print(f"{name:56} {seconds:5.2f} s {megabytes:6.0f} MB  {outcome}")

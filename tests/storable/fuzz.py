"""Feeds the reader mutated images and checks that only values and StorableError come out.

    python -m tests.storable.fuzz [number of images] [seed]

A million images take some minutes. Each failure is printed with the image in hexadecimal.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path
from typing import Any

from pyramid_kvs.storable import StorableError, thaw
from tests.storable.images import BIG, LITTLE, NETWORK, byte, native, ref, same, text

CORPUS = Path(__file__).parent / "corpus"
LONGEST = 1500
TYPES = frozenset({type(None), bool, int, float, str, bytes, list, dict})
OPTIONS: list[dict[str, Any]] = [
    {},
    {},
    {"encoding": None},
    {"encoding": "latin-1"},
    {"blessed": lambda _name, value: value},
    {"blessed": lambda name, value: [name, value]},
]


def seeds() -> list[bytes]:
    """Return the short images of the corpus, and images that current perls do not write."""
    images = [path.read_bytes() for path in sorted(CORPUS.glob("*.storable"))]
    old = BIG.array(ref(BIG.array(byte(1) + b"X") + b"X") + b"X", ref(same(2)) + b"X") + b"b\x01AX"
    oldest = b"\0\0\0\x01\x02\0\0\0\x02i\0\0\0\x02\x08\x81b\x01AXi\0\0\0\x01\x00X"
    rare = BIG.array(
        b"\x15" + ref(BIG.hash(a=byte(1))) + text(b"k"),
        b"\x16" + ref(BIG.array()) + BIG.u32(1),
        b"\x21\x02" + BIG.u64(1) + byte(1),
        b"\x21\x13\x42" + ref(same(0)) + b"\x82\x01A" + BIG.u64(1) + b"h\x01\0\0\0\x00",
        b"\x13\x43\x04" + byte(1) + b"\x83\x01A\x01t\x01\0\0\0\x02" + byte(1),
        BIG.flag_hash(byte(1) + b"\x08" + ref(text(b"k")), b"\x0e\x11" + BIG.key(b"gone")),
        b"\x1a" + text(b"{}"),
        b"\x1e" + BIG.u32(2) + b"v1" + text(b"\x01"),
    )
    doubles = LITTLE.array(b"\x07" + b"\x80" * 16, b"\x06" + b"\xff" * 8)
    images += [NETWORK + rare, b"\x03" + old, b"\x01" + oldest, b"perl-store\x01" + oldest]
    images += [native(nv_size=16) + doubles, native(b"4321", 16) + BIG.array(b"\x06\0\0\0\1")]
    return [image for image in images if len(image) <= LONGEST]


def mutate(image: bytes, pool: list[bytes], dice: random.Random) -> bytes:
    data = bytearray(image)
    for _ in range(dice.choice((1, 1, 1, 2, 3, 6))):
        place = dice.randrange(len(data) + 1)
        way = dice.randrange(7)
        if way == 0:
            data[place : place + 1] = bytes([dice.randrange(256)])
        elif way == 1:
            data[place : place + 1] = bytes([dice.randrange(37)])
        elif way == 2:
            data[place : place + 4] = dice.choice((0, 1, 2, 3, 255, 2**31, 2**32 - 1)).to_bytes(
                4, "big"
            )
        elif way == 3:
            del data[place : place + dice.randrange(1, 9)]
        elif way == 4:
            data[place:place] = data[dice.randrange(len(data) + 1) :][: dice.randrange(1, 30)]
        elif way == 5:
            other = dice.choice(pool)
            data[place:] = other[dice.randrange(len(other)) :]
        elif data:
            data[place % len(data)] ^= 1 << dice.randrange(8)
    return bytes(data)


def check_types(value: Any) -> None:
    seen = set()
    todo = [value]
    while todo:
        part = todo.pop()
        assert type(part) in TYPES, type(part)
        if isinstance(part, (list, dict)) and id(part) not in seen:
            seen.add(id(part))
            todo.extend(part if isinstance(part, list) else [*part, *part.values()])


def run(number: int, seed: int) -> dict[str, int]:
    """Try mutated images; return how many were values, errors and failures."""
    dice = random.Random(seed)
    pool = seeds()
    counts = {"values": 0, "errors": 0, "failures": 0}
    for _ in range(number):
        image = mutate(dice.choice(pool), pool, dice)
        try:
            check_types(thaw(image, **dice.choice(OPTIONS)))
            counts["values"] += 1
        except StorableError:
            counts["errors"] += 1
        except Exception as error:
            counts["failures"] += 1
            print(f"{error!r}: {image.hex()}", flush=True)
    return counts


def main() -> int:
    number, seed = (
        int(argument) for argument in [*sys.argv[1:], *("1000000", "1")[len(sys.argv) - 1 :]]
    )
    start = time.monotonic()
    counts = run(number, seed)
    print(f"{number} images, seed {seed}: {counts}, {time.monotonic() - start:.0f} s")
    return 1 if counts["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())

"""A perl process that the whole test run uses."""

from __future__ import annotations

import json
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers import need
from tests.storable.tagged_json import decode

HERE = Path(__file__).parent


class Oracle:
    """Asks ``oracle.pl`` how real perl reads an image."""

    def __init__(self, perl: str) -> None:
        self.process = subprocess.Popen(
            [perl, str(HERE / "oracle.pl")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def ask(self, order: bytes, image: bytes) -> bytes:
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(struct.pack(">I", len(image) + 1) + order + image)
        stdin.flush()
        (length,) = struct.unpack(">I", stdout.read(4))
        reply = stdout.read(length)
        assert reply[:1] == b"+", f"perl refuses: {reply[1:]!r:.300}"
        return reply[1:]

    def describe(self, image: bytes) -> Any:
        """Return the value that perl reads, by the conversion rules of the reader."""
        return decode(json.loads(self.ask(b"d", image)))

    def freeze_again(self, image: bytes, order: bytes) -> bytes:
        """Let perl thaw an image and freeze it: ``b"f"`` for native order, ``b"n"`` for network."""
        return self.ask(order, image)

    def stop(self) -> None:
        self.process.communicate(timeout=30)


@pytest.fixture(scope="session")
def oracle() -> Iterator[Oracle]:
    oracle = Oracle(need("perl"))
    yield oracle
    oracle.stop()

"""Any bytes are read as a value or raise StorableError, in limited time and memory."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pyramid_kvs.storable import StorableError, thaw
from tests.storable import fuzz, hostile

ROOT = Path(__file__).parents[2]


def test_megabytes() -> None:
    """1 MB takes at most about a second and 150 MB; the bounds leave room for a busy machine."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.storable.hostile", "json"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    table = json.loads(run.stdout)
    assert len(table) == len(hostile.ALL)
    assert [row for row in table if row[2] > 5] == []
    assert table[-1][3] < 200


def test_mutated_images() -> None:
    counts = fuzz.run(25_000, seed=4)
    assert counts["failures"] == 0
    assert counts["values"] > 2_500
    assert counts["errors"] > 10_000


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    for head in (b"", b"\x05\x0b", b"\x03", b"\x01", b"\x04\x0b\x0812345678\x04\x08\x08\x08"):
        with contextlib.suppress(StorableError):
            fuzz.check_types(thaw(head + data))

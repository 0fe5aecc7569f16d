"""The reader against images of real perl, made by ``make_corpus.pl``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pyramid_kvs.storable import StorableError, retrieve, thaw
from tests.storable.compare import differ
from tests.storable.conftest import Oracle
from tests.storable.tagged_json import decode

IMAGES = sorted((Path(__file__).parent / "corpus").glob("*.storable"))
each_image = pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.stem)


def expected(path: Path) -> Any:
    return decode(json.loads(path.with_suffix(".json").read_bytes()))


def test_corpus_is_there() -> None:
    assert len(IMAGES) > 100


@each_image
def test_values(path: Path) -> None:
    assert differ(expected(path), thaw(path.read_bytes())) is None


@each_image
def test_values_with_callback(path: Path) -> None:
    """A callback that changes nothing takes the other branches to the same value."""
    assert differ(expected(path), retrieve(path, blessed=lambda _name, value: value)) is None


@each_image
def test_bytes_behind_the_root_are_ignored(path: Path) -> None:
    assert differ(expected(path), thaw(path.read_bytes() + b"\xff" * 9)) is None


@each_image
def test_perl_agrees(path: Path, oracle: Oracle) -> None:
    """The JSON contains what the perl of this machine reads."""
    assert differ(expected(path), oracle.describe(path.read_bytes())) is None


def test_every_prefix_is_refused() -> None:
    """Of long images a part of the prefixes, and always the last ones."""
    for path in IMAGES:
        data = path.read_bytes()
        step = max(1, len(data) // 150)
        for end in {*range(0, len(data), step), *range(max(0, len(data) - 40), len(data))}:
            with pytest.raises(StorableError):
                thaw(data[:end])

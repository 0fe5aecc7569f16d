"""Images of real perl, which ``make_corpus.pl`` wrote."""

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


def test_the_corpus_exists() -> None:
    assert len(IMAGES) > 100


@each_image
def test_values(path: Path) -> None:
    assert differ(expected(path), thaw(path.read_bytes())) is None


@each_image
def test_values_with_callback(path: Path) -> None:
    """With a callback that changes nothing, the value is the same."""
    assert differ(expected(path), retrieve(path, blessed=lambda _name, value: value)) is None


@each_image
def test_bytes_after_the_root_are_ignored(path: Path) -> None:
    assert differ(expected(path), thaw(path.read_bytes() + b"\xff" * 9)) is None


@each_image
def test_perl_agrees(path: Path, oracle: Oracle) -> None:
    """The JSON contains what the perl of this machine reads."""
    assert differ(expected(path), oracle.describe(path.read_bytes())) is None


def test_every_prefix_is_refused() -> None:
    """Long images are only tried with some prefixes, and with the longest ones."""
    for path in IMAGES:
        data = path.read_bytes()
        step = max(1, len(data) // 150)
        for end in {*range(0, len(data), step), *range(max(0, len(data) - 40), len(data))}:
            with pytest.raises(StorableError):
                thaw(data[:end])

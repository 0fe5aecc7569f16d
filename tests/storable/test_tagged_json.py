"""Tagged JSON: what it writes, and that the decoder of the tests restores the value."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyramid_kvs.storable.tagged_json import dumps, encode
from tests.storable.compare import differ
from tests.storable.tagged_json import decode

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
KEYS = st.text() | st.binary() | st.sampled_from(["$id", "$bytes", "$ref", "$dict", "$"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner),
        st.dictionaries(KEYS, inner),
        inner.map(lambda value: [value, value, {"again": value}]),
    ),
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text('ab"é\n'), inner),
)


@given(VALUES)
def test_round_trip(value: Any) -> None:
    assert differ(value, decode(encode(value))) is None
    assert differ(value, decode(json.loads(dumps(value)))) is None
    assert differ(value, decode(json.loads(dumps(value, indent=1, ensure_ascii=False)))) is None


@given(PLAIN, st.sampled_from([None, 0, 1, 4]), st.booleans())
def test_plain_values_are_plain_json(value: Any, indent: int | None, ensure_ascii: bool) -> None:
    """The result is exactly that of ``json.dumps``; nothing is shared in these values."""
    value = json.loads(json.dumps(value))
    want = json.dumps(value, indent=indent, ensure_ascii=ensure_ascii)
    assert dumps(value, indent=indent, ensure_ascii=ensure_ascii) == want


def test_tags() -> None:
    shared: list[Any] = [1]
    value = [b"\xc3\xff", -math.inf, {"$a": 1, b"k": shared}, shared]
    assert encode(value) == [
        {"$bytes": "c3ff"},
        {"$float": "-inf"},
        {"$dict": [["$a", 1], [{"$bytes": "6b"}, {"$id": 1, "$value": [1]}]]},
        {"$ref": 1},
    ]


def test_an_id_comes_before_its_references() -> None:
    """This is also true if the second place is nearer to the root."""
    shared: dict[str, Any] = {}
    assert dumps([[[shared]], shared]) == '[[[{"$id": 1, "$value": {}}]], {"$ref": 1}]'


def test_cycle() -> None:
    value: dict[Any, Any] = {b"\xff": []}
    value[b"\xff"] += [value, value[b"\xff"]]
    assert differ(value, decode(json.loads(dumps(value)))) is None


def test_depth() -> None:
    value: Any = "bottom"
    for level in range(20_000):
        value = [value] if level % 2 else {b"k" if level % 4 else "k": value}
    assert differ(value, decode(encode(value))) is None
    assert dumps(value).count("[") == 20_000


def test_other_types_are_refused() -> None:
    with pytest.raises(TypeError, match="cannot represent a value of type set"):
        dumps([{1}])


@pytest.mark.parametrize(
    "encoded", [{"$float": "1e5"}, {"$ref": 1}, {"$bytes": "xx"}, {"$other": 1}, [{"$id": 1}]]
)
def test_the_decoder_refuses_bad_tags(encoded: Any) -> None:
    with pytest.raises(ValueError, match=r"followed by something else|hexadecimal"):
        decode(encoded)

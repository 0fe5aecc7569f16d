"""The merge of the changes of two requests, without a store."""

from __future__ import annotations

import copy
import datetime
import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyramid_kvs.session.merge import (
    REMOVED,
    Changes,
    difference,
    identical,
    is_changed,
    merge,
    snapshot,
)

dumps = json.dumps

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.0, 1.0, "", "a", "é"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner),
    max_leaves=6,
)
RECORDS = st.dictionaries(st.sampled_from("abcd"), VALUES)


@given(VALUES, VALUES)
def test_changed_if_the_data_differ(one: Any, other: Any) -> None:
    changed = is_changed(other, snapshot(one, dumps), dumps)
    assert changed == (dumps(one) != dumps(other))
    assert identical(one, other, dumps) == (not changed)


@given(VALUES)
def test_copy_is_not_a_change(value: Any) -> None:
    before = snapshot(value, dumps)
    held = [value, copy.deepcopy(value)]  # references change the newer formats of marshal
    assert not is_changed(value, before, dumps)
    assert not is_changed(held[1], before, dumps)


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="a trap of CPython's marshal")
def test_second_reference_is_not_a_change() -> None:
    value = json.loads('{"a": [[1], {"b": "c"}]}')
    before = snapshot(value, dumps)
    held = [value["a"], value["a"][0], value["a"][1]]
    assert snapshot(value, dumps) != before
    assert not is_changed(value, before, dumps)
    held[0].append(1)
    assert is_changed(value, before, dumps)


def test_objects_are_compared_as_the_codec_writes_them() -> None:
    import pickle

    value = [datetime.date(2020, 1, 2)]
    before = snapshot(value, pickle.dumps)
    assert not is_changed(value, before, pickle.dumps)
    value.append(datetime.date(2020, 1, 3))
    assert is_changed(value, before, pickle.dumps)


def test_value_that_cannot_be_written_is_a_change() -> None:
    value: list[Any] = [1]
    before = snapshot(value, dumps)
    value.append(object())
    assert is_changed(value, before, dumps)


@given(RECORDS, RECORDS)
def test_difference_makes_the_new_record(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert dumps(merge(old, difference(old, new, dumps), old, dumps), sort_keys=True) == dumps(
        new, sort_keys=True
    )


@given(RECORDS, RECORDS, RECORDS)
def test_untouched_keys_are_theirs(
    base: dict[str, Any], mine: dict[str, Any], theirs: dict[str, Any]
) -> None:
    changes = difference(base, mine, dumps)
    merged = merge(base, changes, theirs, dumps)
    for key in "abcd":
        expected = changes.values.get(key, theirs.get(key, REMOVED))
        assert identical(merged.get(key, REMOVED), expected, dumps)


@pytest.mark.parametrize(
    ("base", "mine", "theirs", "popped", "merged"),
    [
        (["x"], ["x", "m"], ["x", "t"], False, ["x", "t", "m"]),
        (["x"], REMOVED, ["x", "t"], True, ["t"]),
        (["x"], ["m"], ["x", "t"], True, ["t", "m"]),
        (["x"], ["x"], [], True, ["x"]),
        (["x"], ["x", "m"], [], False, ["m"]),
        (["x"], REMOVED, [], True, REMOVED),
        (["x", "x"], ["x"], ["x", "x", "x"], False, ["x", "x"]),
        ([1], REMOVED, [True, 1], True, [True]),
        ([], ["m"], "not a list", False, ["m"]),
        ([{"a": 1}], REMOVED, [{"a": 1}, {"a": 2}], True, [{"a": 2}]),
    ],
)
def test_flash_queues(base: Any, mine: Any, theirs: Any, popped: bool, merged: Any) -> None:
    changes = Changes({"_f_": mine}, {"_f_"} if popped else ())
    result = merge({"_f_": base}, changes, {"_f_": theirs}, dumps)
    assert repr(result.get("_f_", REMOVED)) == repr(merged)


def test_time_of_creation_never_changes() -> None:
    changes = Changes({"__kvs_created": 4.0})
    assert merge({}, changes, {"__kvs_created": 5.0}, dumps) == {"__kvs_created": 5.0}
    assert merge({}, changes, {}, dumps) == {"__kvs_created": 4.0}

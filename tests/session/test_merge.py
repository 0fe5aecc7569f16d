"""The merge of the changes of two requests, without a store."""

from __future__ import annotations

import collections
import copy
import datetime
import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyramid_kvs.exceptions import SessionConflict
from pyramid_kvs.serializer import Codec, JSONCodec, PickleCodec
from pyramid_kvs.session.merge import (
    REMOVED,
    Changes,
    difference,
    merge,
)
from pyramid_kvs.session.merge.values import identical, is_changed, snapshot

JSON, PICKLE = JSONCodec(), PickleCodec()
dumps = JSON.dumps

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
    merged = merge(old, difference(old, new, dumps), old, JSON)
    assert json.dumps(merged, sort_keys=True) == json.dumps(new, sort_keys=True)


@given(RECORDS, RECORDS, RECORDS)
def test_untouched_keys_are_theirs(
    base: dict[str, Any], mine: dict[str, Any], theirs: dict[str, Any]
) -> None:
    changes = difference(base, mine, dumps)
    merged = merge(base, changes, theirs, JSON)
    for key in set("abcd") - changes.values.keys():
        assert identical(merged.get(key, REMOVED), theirs.get(key, REMOVED), dumps)


# -- objects and lists, at any depth ---------------------------------------------------------


def merged_value(
    base: Any, ours: Any, theirs: Any, codec: Codec = JSON, refuse_conflicts: bool = False
) -> Any:
    """Merge two changes of one key."""
    old, other = ({} if value is REMOVED else {"k": value} for value in (base, theirs))
    return merge(old, Changes({"k": ours}), other, codec, refuse_conflicts).get("k", REMOVED)


NESTED: list[tuple[str, Any, Any, Any, Any]] = [
    ("both add a key", {}, {"o": 1}, {"t": 1}, {"t": 1, "o": 1}),
    ("both add to an object in an object",
     {"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 1, "o": 1}}}, {"a": {"b": {"c": 1, "t": 1}}},
     {"a": {"b": {"c": 1, "t": 1, "o": 1}}}),
    ("each changes another key", {"a": 1, "b": 1}, {"a": 2, "b": 1}, {"a": 1, "b": 2},
     {"a": 2, "b": 2}),
    ("ours deletes a key that theirs left alone", {"a": 1, "b": 1}, {"b": 1}, {"a": 1, "b": 2},
     {"b": 2}),
    ("theirs deletes a key that ours left alone", {"a": 1, "b": 1}, {"a": 1, "b": 2}, {"b": 1},
     {"b": 2}),
    ("both append", ["x"], ["x", "o"], ["x", "t"], ["x", "t", "o"]),
    ("both append equal items", ["x"], ["x", "e"], ["x", "e"], ["x", "e", "e"]),
    ("both append in an object", {"a": [1]}, {"a": [1, 2]}, {"a": [1, 3]}, {"a": [1, 3, 2]}),
    ("both append objects", [], [{"o": [1]}], [{"t": [1]}], [{"t": [1]}, {"o": [1]}]),
    ("both create an object", REMOVED, {"o": 1}, {"t": 1}, {"t": 1, "o": 1}),
    ("both create a list", REMOVED, ["o"], ["t"], ["t", "o"]),
    ("both create containers in an object", {}, {"l": [1], "d": {"o": 1}},
     {"l": [2], "d": {"t": 1}}, {"l": [2, 1], "d": {"t": 1, "o": 1}}),
    ("ours appends to a list that theirs left alone, beside another change",
     {"l": [1], "n": 1}, {"l": [1, 2], "n": 1}, {"l": [1], "n": 2}, {"l": [1, 2], "n": 2}),
    ("ours sorts a list that theirs left alone, beside another change",
     {"l": [2, 1], "n": 1}, {"l": [1, 2], "n": 1}, {"l": [2, 1], "n": 2}, {"l": [1, 2], "n": 2}),
    ("theirs sorts a list that ours left alone, beside another change",
     {"l": [2, 1], "n": 1}, {"l": [2, 1], "n": 2}, {"l": [1, 2], "n": 1}, {"l": [1, 2], "n": 2}),
    ("both make the same change", {"a": 1, "b": 1}, {"a": 2, "b": 2}, {"a": 2, "b": 1},
     {"a": 2, "b": 2}),
    ("a tuple is a list in JSON", ["x"], ("x", "o"), ["x", "t"], ["x", "t", "o"]),
    ("a number is a string as a key in JSON", {"1": {"a": 1}}, {1: {"a": 1, "o": 1}},
     {"1": {"a": 1, "t": 1}}, {"1": {"a": 1, "t": 1, "o": 1}}),
]  # fmt: skip
CLASHES: list[tuple[str, Any, Any, Any, Any]] = [
    ("numbers are never added", {"n": 1}, {"n": 2}, {"n": 3}, {"n": 2}),
    ("numbers that are the whole value", 1, 2, 3, 2),
    ("both create different numbers", {}, {"n": 1}, {"n": 2}, {"n": 1}),
    ("1 and True differ", {"n": 0}, {"n": 1}, {"n": True}, {"n": 1}),
    ("1 and 1.0 differ", {"n": 0}, {"n": 1.0}, {"n": 1}, {"n": 1.0}),
    ("a list that theirs sorted", [2, 1], [2, 1, 3], [1, 2], [2, 1, 3]),
    ("a list that ours shortened", [1, 2], [1], [1, 2, 3], [1]),
    ("a list whose first item got another type", [1], [True, 2], [1, 3], [True, 2]),
    ("a list in a list", [[1]], [[1, 2]], [[1, 3]], [[1, 2]]),
    ("an object in a list", [{"a": 1}], [{"a": 1, "o": 1}], [{"a": 1, "t": 1}],
     [{"a": 1, "o": 1}]),
    ("ours deletes, theirs changes", {"a": 1}, {}, {"a": 2}, {}),
    ("ours changes, theirs deletes", {"a": 1}, {"a": 2}, {}, {"a": 2}),
    ("ours deletes an object to which theirs added", {"a": {}}, {}, {"a": {"t": 1}}, {}),
    ("ours deletes the whole value, theirs changes it", {"a": 1}, REMOVED, {"a": 2}, REMOVED),
    ("different types", {"a": {}}, {"a": {"o": 1}}, {"a": ["t"]}, {"a": {"o": 1}}),
    ("an object in the place of null", {"a": None}, {"a": {"o": 1}}, {"a": {"t": 1}},
     {"a": {"o": 1}}),
    ("the one clash among other changes", {"a": {"n": 1, "l": []}}, {"a": {"n": 2, "l": [1]}},
     {"a": {"n": 3, "l": [2]}}, {"a": {"n": 2, "l": [2, 1]}}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "expected"),
    [case[1:] for case in NESTED],
    ids=[case[0] for case in NESTED],
)
def test_changes_that_are_both_kept(base: Any, ours: Any, theirs: Any, expected: Any) -> None:
    for refuse_conflicts in (False, True):
        merged = merged_value(base, ours, theirs, JSON, refuse_conflicts)
        assert repr(merged) == repr(expected)


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "expected"),
    [case[1:] for case in CLASHES],
    ids=[case[0] for case in CLASHES],
)
def test_later_save_wins_for_other_changes(
    base: Any, ours: Any, theirs: Any, expected: Any
) -> None:
    assert repr(merged_value(base, ours, theirs)) == repr(expected)
    with pytest.raises(SessionConflict, match="'k'"):
        merged_value(base, ours, theirs, refuse_conflicts=True)


OBJECTS = st.dictionaries(st.sampled_from("abcd"), VALUES)


@given(OBJECTS, OBJECTS)
def test_merge_is_the_identity_if_one_side_changed_nothing(
    base: dict[str, Any], changed: dict[str, Any]
) -> None:
    """The order of the keys is kept too, so that the stored bytes are the same."""
    same = copy.deepcopy(base)
    assert dumps(merged_value(base, changed, same)) == dumps(changed)
    assert dumps(merged_value(base, same, changed)) == dumps(changed)


EDITS = st.lists(
    st.tuples(st.lists(st.sampled_from("ab"), max_size=2), st.sampled_from("lm")), max_size=4
)


@given(st.lists(EDITS, min_size=3, max_size=3), st.permutations([0, 1, 2]), st.booleans())
def test_three_requests_lose_no_append_and_no_nested_key_in_any_order(
    requests: list[list[tuple[list[str], str]]], order: list[int], was_there: bool
) -> None:
    base: dict[str, Any] = {"k": {"l": ["first"], "a": {}}} if was_there else {}
    stored = copy.deepcopy(base)
    for number in order:
        ours = copy.deepcopy(base)
        edit(ours, requests[number], number)
        stored = merge(base, difference(base, ours, dumps), stored, JSON)
    for number in range(3):
        for count, (path, name) in enumerate(requests[number]):
            inner = stored["k"]
            for step in path:
                inner = inner[step]
            assert inner[name].count([number, count]) == 1
            assert inner[f"{number}.{count}"] == 1
    if was_there:
        assert stored["k"]["l"][0] == "first"


def edit(record: dict[str, Any], edits: list[tuple[list[str], str]], number: int) -> None:
    for count, (path, name) in enumerate(edits):
        inner = record.setdefault("k", {})
        for step in path:
            inner = inner.setdefault(step, {})
        inner.setdefault(name, []).append([number, count])
        inner[f"{number}.{count}"] = 1


def nested(depth: int, innermost: dict[str, Any]) -> dict[str, Any]:
    for _ in range(depth):
        innermost = {"a": innermost}
    return innermost


def test_depth_is_no_error() -> None:
    """Values are nested more deeply than Python's stack allows, and than the codec can write."""
    depth = sys.getrecursionlimit() * 20
    values = [nested(depth, {"b": 1}), nested(depth, {"b": 1, "o": 1}), nested(depth, {"t": 1})]
    merged = merged_value(*values)
    for _ in range(depth):
        merged = merged["a"]
    assert merged == {"t": 1, "o": 1}


def test_deep_list_is_no_error() -> None:
    lists: list[Any] = [[], [], []]
    for number, value in enumerate(lists):
        for _ in range(sys.getrecursionlimit() * 20):
            value = [value, number]
        lists[number] = value
    assert merged_value(*lists) is lists[1]


def test_work_grows_with_the_size_and_not_with_the_depth_of_an_object() -> None:
    written = 0

    class Counting(JSONCodec):
        def dumps(self, value: Any) -> str:
            nonlocal written
            data = super().dumps(value)
            written += len(data)
            return data

    depth = sys.getrecursionlimit() // 4
    values = [nested(depth, {"text": "x" * 10_000, "n": n}) for n in range(3)]
    merged_value(*values, Counting())
    assert written < 200_000


@pytest.mark.parametrize(
    ("base", "ours", "theirs"),
    [
        ((1,), (1, 2), (1, 3)),
        ({1}, {1, 2}, {1, 3}),
        (datetime.date(2020, 1, 1), datetime.date(2020, 1, 2), datetime.date(2020, 1, 3)),
        (collections.Counter(a=1), collections.Counter(a=2), collections.Counter(a=1, b=1)),
    ],
    ids=["tuple", "set", "date", "Counter"],
)
def test_other_types_of_a_pickle_are_plain_values(base: Any, ours: Any, theirs: Any) -> None:
    assert merged_value(base, ours, theirs, PICKLE) == ours
    assert merged_value({"in": base}, {"in": ours}, {"in": theirs}, PICKLE) == {"in": ours}
    assert merged_value({"in": base}, {"in": base}, {"in": theirs}, PICKLE) == {"in": theirs}


def test_dates_in_lists_and_objects_of_a_pickle() -> None:
    first, second, third = (datetime.date(2020, 1, day) for day in (1, 2, 3))
    merged = merged_value([first], [first, second], [first, third], PICKLE)
    assert merged == [first, third, second]
    merged = merged_value({first: [first]}, {first: [first], 1: second}, {1.5: third}, PICKLE)
    assert merged == {1.5: third, 1: second}


def test_equal_strings_of_a_pickle_are_one_or_two_objects() -> None:
    """A pickle refers to an object that it has already written, so that its bytes differ."""
    one, other = "same text", b"same text".decode()
    assert PICKLE.dumps([one, one]) != PICKLE.dumps([one, other])
    merged = merged_value([one, one], [one, other, 2], [one, one, 3], PICKLE)
    assert merged == [one, one, 3, 2]


def test_object_of_a_pickle_that_contains_itself() -> None:
    def loop(**values: int) -> dict[str, Any]:
        value: dict[str, Any] = dict(values)
        value["self"] = value
        return value

    merged = merged_value(loop(), loop(o=1), loop(t=1), PICKLE)
    assert merged["t"] == merged["o"] == 1


def test_object_of_a_pickle_that_occurs_many_times() -> None:
    def doubled(**values: int) -> dict[str, Any]:
        value: dict[str, Any] = dict(values)
        for _ in range(60):
            value = {"left": value, "right": value}
        return value

    merged = merged_value(doubled(), doubled(o=1), doubled(t=1), PICKLE)
    while "left" in merged:
        merged = merged["left"]
    assert merged == {"t": 1, "o": 1}


# -- flash messages and metadata -------------------------------------------------------------


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
    result = merge({"_f_": base}, changes, {"_f_": theirs}, JSON)
    assert repr(result.get("_f_", REMOVED)) == repr(merged)


def test_time_of_creation_never_changes() -> None:
    changes = Changes({"__kvs_created": 4.0})
    assert merge({}, changes, {"__kvs_created": 5.0}, JSON) == {"__kvs_created": 5.0}
    assert merge({}, changes, {}, JSON) == {"__kvs_created": 4.0}

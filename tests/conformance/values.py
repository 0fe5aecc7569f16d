"""Values: stored, read and removed, one at a time and several at once."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyramid_kvs.exceptions import CodecError
from pyramid_kvs.kvs import KVS
from tests.conformance.base import Base, Make

MODEL_KEYS = ["a", "b", "ключ"]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


class Values(Base):
    def test_is_a_kvs(self, kvs: KVS) -> None:
        assert isinstance(kvs, KVS)
        assert isinstance(kvs.key_prefix, bytes)
        assert kvs.ttl == 300

    def test_a_missing_key_gives_the_default(self, kvs: KVS) -> None:
        default = object()
        assert kvs.get("missing") is None
        assert kvs.get("missing", default) is default
        assert kvs.get(None, default) is default

    @pytest.mark.parametrize("value", [None, False, 0, "", [], {}, {"a": [1, 2.5, "é", None]}])
    def test_falsy_values_are_not_missing(self, kvs: KVS, value: Any) -> None:
        kvs.set("key", value)
        assert kvs.get("key", "default") == value
        assert type(kvs.get("key", "default")) is type(value)

    def test_set_replaces_a_value(self, kvs: KVS) -> None:
        kvs.set("key", "old" * 100)
        kvs.set("key", "new")
        assert kvs.get("key") == "new"

    def test_json_refuses_bytes(self, kvs: KVS) -> None:
        with pytest.raises(TypeError):
            kvs.set("key", b"bytes")
        with pytest.raises(TypeError):
            kvs.set_many({"good": 1, "bad": {"in": b"bytes"}})
        assert kvs.get("key") is None
        assert kvs.get("good") is None

    def test_stored_data_is_what_json_dumps(self, kvs: KVS) -> None:
        value = {"é": [1, 2.5, None, True], "b": "☺"}
        kvs.set("key", value, 60)
        data = kvs.raw_get("key")
        text = data if isinstance(data, str) else data.decode()
        assert text == json.dumps(value)

    def test_delete_returns_the_old_value(self, kvs: KVS) -> None:
        kvs.set("key", [1])
        assert kvs.delete("key") == [1]
        assert kvs.delete("key") is None
        assert kvs.get("key") is None

    def test_set_with_a_ttl_of_zero_removes(self, kvs: KVS) -> None:
        for ttl in (0, -1):
            kvs.set("key", 1)
            kvs.set("key", 2, ttl)
            assert kvs.get("key") is None
            kvs.set_many({"key": 1})
            kvs.set_many({"key": 2}, ttl)
            assert kvs.get("key") is None

    def test_keys_are_strings(self, kvs: KVS) -> None:
        with pytest.raises(TypeError):
            kvs.get(b"bytes")  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            kvs.set(7, 1)  # type: ignore[arg-type]

    def test_pickle_codec(self, new: Make) -> None:
        kvs = new(codec="pickle")
        kvs.set("key", {1: (b"\0\xff", {2})})
        assert kvs.get("key") == {1: (b"\0\xff", {2})}
        assert kvs.get_many(["key"]) == {"key": {1: (b"\0\xff", {2})}}
        assert kvs.delete("key") == {1: (b"\0\xff", {2})}

    def test_a_value_of_100_kilobytes(self, kvs: KVS) -> None:
        value = "Ω" * 15_000
        kvs.set("key", value)
        assert kvs.get("key") == value

    def test_many(self, kvs: KVS) -> None:
        mapping = {f"key{n}": {"n": n} for n in range(150)}
        kvs.set_many(mapping, 100)
        assert kvs.get_many([*mapping, "missing"]) == mapping
        assert 90 < kvs.ttl_of("key7") <= 100
        kvs.delete_many([f"key{n}" for n in range(149)] + ["missing"])
        assert kvs.get_many(mapping) == {"key149": {"n": 149}}

    def test_many_with_no_keys(self, kvs: KVS) -> None:
        assert kvs.get_many([]) == {}
        kvs.set_many({})
        kvs.delete_many([])

    def test_many_takes_iterables(self, kvs: KVS) -> None:
        kvs.set_many({"a": 1, "b": 2})
        assert kvs.get_many(key for key in ("a", "b", "a")) == {"a": 1, "b": 2}
        kvs.delete_many(key for key in ("a", "b"))
        assert kvs.get_many(["a", "b"]) == {}

    def test_undecodable_data(self, kvs: KVS) -> None:
        kvs.raw_set("bad", "{not json", 60)
        with pytest.raises(CodecError):
            kvs.get("bad")
        with pytest.raises(CodecError):
            kvs.get_many(["bad"])
        with pytest.raises(CodecError):
            kvs.update("bad", lambda old: 1)
        assert kvs.delete("bad") is None
        assert kvs.get("bad") is None

    def test_ping(self, kvs: KVS) -> None:
        assert kvs.ping() is True

    def test_schema_is_idempotent(self, kvs: KVS) -> None:
        kvs.set("key", 1)
        kvs.initialize_schema()
        kvs.initialize_schema(dry_run=True)
        assert kvs.get("key") == 1

    def test_a_closed_driver_opens_again(self, kvs: KVS) -> None:
        kvs.set("key", 1)
        kvs.close()
        kvs.close()
        assert kvs.get("key") == 1

    def test_behaves_like_a_dict(self, kvs: KVS) -> None:
        @settings(max_examples=25, deadline=None)
        @given(st.data())
        def agrees(data: st.DataObject) -> None:
            kvs.delete_many(MODEL_KEYS)
            model: dict[str, Any] = {}
            for _ in range(data.draw(st.integers(1, 12))):
                _draw_a_step(data, kvs, model)
                assert kvs.get_many(MODEL_KEYS) == model

        agrees()


def _draw_a_step(data: st.DataObject, kvs: KVS, model: dict[str, Any]) -> None:
    """Do one operation on a store and on a dictionary, and compare what they return."""
    operation = data.draw(st.sampled_from(["set", "add", "delete", "update", "many"]))
    key = data.draw(st.sampled_from(MODEL_KEYS))
    value = data.draw(json_values)
    if operation == "set":
        kvs.set(key, value)
        model[key] = value
    elif operation == "add":
        assert kvs.add(key, value) is (key not in model)
        model.setdefault(key, value)
    elif operation == "delete":
        assert kvs.delete(key) == model.pop(key, None)
    elif operation == "update":
        kvs.update(key, lambda old: [old, value])
        model[key] = [model.get(key), value]
    else:
        kvs.set_many(dict.fromkeys(MODEL_KEYS, value))
        model.update(dict.fromkeys(MODEL_KEYS, value))
    assert kvs.get(key, "missing") == model.get(key, "missing")

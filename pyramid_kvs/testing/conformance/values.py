"""Values: stored, read and removed, one at a time and several at once."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ...exceptions import CodecError
from ...kvs import KVS
from .base import Base, Make


class Values(Base):
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
        kvs.delete_many([f"key{n}" for n in range(149)] + ["missing"])
        assert kvs.get_many(mapping) == {"key149": {"n": 149}}

    def test_many_have_a_ttl(self, kvs: KVS) -> None:
        kvs.set_many({f"key{n}": n for n in range(150)}, 100)
        assert 90 < kvs.ttl_of("key7") <= 100

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
        kvs.check()
        assert kvs.ping() is True
        assert set(kvs.check_nodes().values()) <= {None}

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

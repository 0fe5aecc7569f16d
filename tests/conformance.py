"""The suite of ``pyramid_kvs.testing.conformance`` for the drivers here, and a property.

A class defines the fixture ``store``, which gives a driver's name and its ``kvs_kwargs``::

    class TestRedis(SharedConformance):
        @pytest.fixture
        def store(self, redis_server):
            return "redis", {"port": redis_server.port}
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyramid_kvs.kvs import KVS
from pyramid_kvs.testing.conformance import DriverConformance

MODEL_KEYS = ["a", "b", "ключ"]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


class SharedConformance(DriverConformance):
    """For stores that several processes see."""

    @pytest.fixture(autouse=True)
    def _use(self, store: tuple[str, dict[str, Any]]) -> None:
        self.store_under_test = store

    def make(self, key_prefix: str, **options: Any) -> KVS:
        name, kvs_kwargs = self.store_under_test
        return KVS(name, kvs_kwargs, key_prefix, **options)

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


class Conformance(SharedConformance):
    """For stores that belong to one process."""

    shared = False


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

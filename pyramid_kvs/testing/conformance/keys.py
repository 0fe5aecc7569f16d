"""Keys: any string is a key, prefixes separate drivers, and patterns list keys."""

from __future__ import annotations

import time

import pytest

from ...kvs import KVS
from .base import Base, Make

HOSTILE_KEYS = [
    "",
    " ",
    "two words",
    "line\r\nflush_all\r\nset x 0 0 1\r\n1",
    "nul\0byte",
    "tab\tand \x7f delete",
    "k" * 250,
    "k" * 251,
    "k" * 10_240,
    "Ключ-鍵-🔑",
    "é" * 200,
    "lone\ud800surrogate",
    "*?[a-z]\\{}^$",
    "%_\\%",
    "'; DROP TABLE kvs; --",
    "__kvs_x",
]

#: Keys that a store must not take for each other.
SIMILAR_KEYS = ["a", "A", " a", "a ", "a\0", "a\n", "\ta", "a%20", "a+", "é", "e\u0301", "É", "%61"]


class Keys(Base):
    @pytest.mark.parametrize("key", HOSTILE_KEYS, ids=lambda key: ascii(key[:12]))
    def test_any_string_is_a_key(self, kvs: KVS, key: str) -> None:
        kvs.set("canary", "alive")
        kvs.set(key, "value")
        assert kvs.get(key) == "value"
        assert kvs.get_many([key, "canary"]) == {key: "value", "canary": "alive"}
        assert kvs.update(key, lambda old: old + "!") == "value!"
        assert kvs.expire(key, 100)
        assert kvs.delete(key) == "value!"
        assert kvs.incr(key) == 1
        assert kvs.delete(key) == 1
        assert kvs.get("canary") == "alive"

    @pytest.mark.parametrize("key", HOSTILE_KEYS, ids=lambda key: ascii(key[:12]))
    def test_any_key_has_a_ttl(self, kvs: KVS, key: str) -> None:
        kvs.set(key, 1, 60)
        assert 50 < kvs.ttl_of(key) <= 60

    @pytest.mark.parametrize("key", HOSTILE_KEYS, ids=lambda key: ascii(key[:12]))
    def test_any_key_is_listed(self, kvs: KVS, key: str) -> None:
        kvs.set_many({key: 1, "canary": 1})
        assert sorted(kvs.get_keys()) == sorted([key, "canary"])

    def test_similar_keys_are_different(self, kvs: KVS) -> None:
        values = {key: number for number, key in enumerate(SIMILAR_KEYS + HOSTILE_KEYS)}
        kvs.set_many(values)
        assert kvs.get_many(values) == values
        assert {key: kvs.get(key) for key in values} == values

    def test_long_keys_do_not_collide(self, kvs: KVS) -> None:
        keys = ["x" * 300 + str(n) for n in range(20)] + ["y z" + str(n) for n in range(20)]
        kvs.set_many({key: key for key in keys})
        assert kvs.get_many(keys) == {key: key for key in keys}

    def test_drivers_with_one_prefix_have_one_store(self, new: Make) -> None:
        if not self.shared:
            pytest.skip("a driver for one process may have its own store (shared = False)")
        new().set("key", 1)
        assert new().get("key") == 1
        assert new().places() == new().places()

    def test_prefixes_separate_drivers(self, new: Make) -> None:
        one, other = new(prefix="one::"), new(prefix="other::")
        one.set("key", 1)
        other.set("key", 2)
        assert (one.get("key"), other.get("key")) == (1, 2)
        one.delete("key")
        assert (one.get("key"), other.get("key")) == (None, 2)

    def test_get_keys(self, new: Make, kvs: KVS) -> None:
        keys = ["a", "ab", "abc", "b", "[a]", "a*", "a%b", "a_b", "a\\b", "line\nbreak", "é"]
        kvs.set_many(dict.fromkeys(keys, 1))
        for pattern, expected in {
            "*": keys,
            "a?": ["ab", "a*"],
            "a*": ["a", "ab", "abc", "a*", "a%b", "a_b", "a\\b"],
            "?": ["a", "b", "é"],
            "[a]": ["[a]"],
            "a%b": ["a%b"],
            "a_b": ["a_b"],
            "a\\b": ["a\\b"],
            "a\\*": ["a\\b"],
            "line?break": ["line\nbreak"],
            "abc": ["abc"],
            "A": [],
            "": [],
        }.items():
            assert sorted(kvs.get_keys(pattern)) == sorted(expected), pattern

    def test_a_prefix_is_never_a_pattern(self, new: Make) -> None:
        odd, other = new(prefix="p*[a]?%_\\::"), new(prefix="pxa???\\::")
        odd.set("mine", 1)
        other.set("other", 1)
        assert odd.get_keys() == ["mine"]
        odd.flush()
        assert odd.get("mine") is None
        assert other.get("other") == 1

    def test_get_keys_omits_expired_keys(self, kvs: KVS) -> None:
        kvs.set("key", 1, 0.1)
        kvs.set("other", 1)
        time.sleep(0.15)
        assert kvs.get_keys() == ["other"]

    def test_flush_removes_the_keys_of_its_prefix_only(self, new: Make) -> None:
        one, other = new(prefix="flush::"), new(prefix="flushed::")
        one.set_many({f"key{n}": n for n in range(300)})
        other.set("key", 1)
        one.flush()
        assert one.get_keys() == []
        assert other.get("key") == 1

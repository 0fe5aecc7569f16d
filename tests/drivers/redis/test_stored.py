"""What the driver stores: bytes, expiry and keys."""

from __future__ import annotations

import json

import pytest

from pyramid_kvs.exceptions import KVSError
from pyramid_kvs.kvs import KVS, Stored
from tests.drivers.redis.support import driver_of
from tests.servers import wait_until


def test_stores_the_codecs_bytes(driver, server):
    value = {"é": [1, 2.5, None], "a": "b"}
    driver.set("key", value)
    assert server.command("GET", "key") == json.dumps(value).encode()


def test_stores_under_prefix_and_key(server):
    driver_of(server, "pré::").set("kéy", 1)
    assert server.command("KEYS", "*") == ["pré::kéy".encode()]


@pytest.mark.parametrize(
    ("ttl", "left"),
    [(None, 300_000), (7, 7000), (1.5, 1500), (12.3456, 12_346), (40 * 86400, 40 * 86_400_000)],
)
def test_ttl_in_milliseconds(driver, server, ttl, left):
    driver.set("key", 1, ttl)
    assert left - 5000 < server.command("PTTL", "key") <= left


def test_tiny_ttl_is_a_millisecond(driver, server):
    driver.set("key", 1, 1e-9)
    assert server.command("PTTL", "key") <= 1
    wait_until(lambda: driver.get("key") is None, "expiry")


@pytest.mark.parametrize("ttl", [10**12, 1e300, float("inf")])
def test_huge_ttl(driver, ttl):
    """A ttl beyond the clock of redis becomes the longest one that it takes."""
    driver.set("key", 1, ttl)
    driver.add("added", 1, ttl)
    driver.incr("count", ttl=ttl)
    driver.raw_swap("swapped", None, "1", ttl)
    driver.set("old", 1, 5)
    driver.raw_load("old", renew=ttl)
    driver.set("expiring", 1, 5)
    driver.expire("expiring", ttl)
    for key in ("key", "added", "count", "swapped", "old", "expiring"):
        assert driver.ttl_of(key) > 10**11


def test_no_ttl(server):
    driver = KVS("redis", {"port": server.port}, ttl=None)
    driver.set("key", 1)
    driver.incr("count")
    driver.set_many({"many": 1})
    for key in ("key", "count", "many"):
        assert server.command("PTTL", key) == -1


def test_counters_beyond_lua_numbers(driver):
    """A Lua number would round these."""
    assert driver.incr("count", 2**53 + 1) == 2**53 + 1
    assert driver.incr("count") == 2**53 + 2
    assert driver.decr("low", 2**53 + 1) == -(2**53) - 1


def test_counter_overflow(driver):
    driver.incr("count", 2**63 - 1)
    with pytest.raises(KVSError):
        driver.incr("count")
    assert driver.get("count") == 2**63 - 1


def test_data_of_any_codec(driver):
    for data in (b"", b"\0\xff\r\n$5\r\n", b"x" * 3_000_000, "é\ud800"):
        driver.raw_set("key", data, 10)
        expected = data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass")
        assert driver.raw_get("key") == expected


def test_swap_compares_bytes(driver):
    driver.raw_set("key", b"", 10)
    assert driver.raw_swap("key", None, b"new", 10) == (False, Stored(b""))
    assert driver.raw_swap("key", Stored("\0"), b"new", 10) == (False, Stored(b""))
    assert driver.raw_swap("key", Stored(""), b"new", 10).done
    assert driver.raw_swap("key", Stored(b"new"), b"", None).done
    assert driver.raw_get("key") == b""
    assert driver.ttl_of("key") < 0


def test_swap_of_absent(driver):
    assert driver.raw_swap("key", Stored(b"1"), b"2", 10) == (False, None)
    assert driver.raw_swap("key", None, None, 10).done
    assert driver.raw_get("key") is None


def test_prefix_is_literal(server):
    for prefix in (r"a[bc]\d*?^-", "*", "[", "\\"):
        driver = driver_of(server, prefix)
        server.clear()
        server.command("MSET", "ab", 1, "a[bc]", 1, "xyz", 1, "a[bc]\\dXX^-1", 1)
        before = server.command("DBSIZE")
        driver.set_many({"one": 1, "two": 2})
        assert sorted(driver.get_keys()) == ["one", "two"]
        driver.flush()
        assert server.command("DBSIZE") == before


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("?", ["a", "鍵", "^"]),
        ("[a]", ["[a]"]),
        ("\\*", ["\\a"]),
        ("^*", ["^"]),
        ("*]", ["[a]"]),
        ("**?**?**", ["[a]", "\\a", "a\nb"]),
        ("a?b", ["a\nb"]),
        ("nothing", []),
    ],
)
def test_pattern(driver, pattern, found):
    driver.set_many(dict.fromkeys(["a", "鍵", "[a]", "\\a", "^", "a\nb"], 1))
    assert sorted(driver.get_keys(pattern)) == sorted(found)


def test_keys_that_are_not_utf_8(server):
    """Keys of other programs under the prefix are not listed, but flush removes them."""
    driver = driver_of(server, "p:")
    server.command("SET", b"p:\xff", 1)
    assert driver.get_keys() == []
    driver.flush()
    assert server.command("DBSIZE") == 0

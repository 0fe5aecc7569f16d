"""Hash tags that put keys into the slot of another key, whatever braces it has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from redis.crc import key_slot

from pyramid_kvs.drivers.redis.slots import companion, companion_in, same_slot
from pyramid_kvs.kvs import KVS, Script, encode_key
from tests.servers import RedisCluster, RedisServer

#: Keys with many braces, and bytes that are not UTF-8.
PIECES = [b"{", b"}", b"{}", b"a", b"session::", b"7", b"\xff", b"\xc3", "é".encode(), b"\n", b" "]
FULL_KEYS = st.lists(st.sampled_from(PIECES), max_size=8).map(b"".join) | st.binary(max_size=30)
KEYS = st.text("{}ab7:é\ud800", max_size=8) | st.text(max_size=20)
PREFIXES = st.sampled_from([b"", b"session::", b"{app}s::", b"s{", b"s}", b"{}s", b"\xff"])
SUFFIX = "::ratelimit"


@given(FULL_KEYS)
@example(b"")
@example(b"}{")
@example(b"{}{a}")
@example(b"{a")
def test_a_tag_has_the_slot_of_its_key(full_key: bytes) -> None:
    assert key_slot(b"{%b}" % same_slot(full_key)) == key_slot(full_key)


@given(FULL_KEYS, FULL_KEYS)
def test_what_surrounds_a_tag_has_no_influence(full_key: bytes, after: bytes) -> None:
    assert key_slot(b"{%b}%b" % (same_slot(full_key), after)) == key_slot(full_key)


def test_the_tag_of_a_key_is_readable_where_it_can_be() -> None:
    assert same_slot(b"session::abc") == b"session::abc"
    assert same_slot(b"user:{42}:x") == b"42"
    assert same_slot(b"user:{42").isdigit()
    assert same_slot(b"{}").isdigit()


@given(PREFIXES, KEYS, st.booleans())
def test_a_companion_is_in_the_slot_of_its_home(prefix: bytes, home: str, is_hashed: bool) -> None:
    key = ("sha256:0" if is_hashed else home) + SUFFIX
    found = companion(prefix, home, key)
    assert found == key
    assert key_slot(found.full_key) == key_slot(prefix + encode_key(home))


@given(PREFIXES.filter(lambda prefix: prefix[:1] not in (b"", b"{")), KEYS, st.booleans())
def test_a_companion_is_found_by_its_full_key(prefix: bytes, home: str, is_hashed: bool) -> None:
    key = ("sha256:0" if is_hashed else home) + SUFFIX
    assert companion_in(prefix, companion(prefix, home, key).full_key) == encode_key(key)
    assert companion_in(prefix, prefix + encode_key(key)) is None


OF_SESSIONS = KEYS.filter(lambda key: not key.startswith("{"))


@given(PREFIXES, OF_SESSIONS, OF_SESSIONS)
def test_no_two_homes_have_the_same_companion(prefix: bytes, one: str, two: str) -> None:
    found = [companion(prefix, home, home + SUFFIX).full_key for home in (one, two)]
    assert (found[0] == found[1]) == (one == two)
    assert found[0] != prefix + encode_key(two)


def test_keys_of_other_applications_are_not_companions() -> None:
    for full_key in (b"{other::abc}::ratelimit", b"{x}session::abc", b"other", b"{", b"{7}", b""):
        assert companion_in(b"session::", full_key) is None


@pytest.fixture
def node(own_redis: Callable[..., RedisServer]) -> RedisServer:
    return own_redis("--cluster-enabled", "yes")


def test_a_node_has_the_same_slots(node: RedisServer) -> None:
    keys = [b"", b"abc", b"a{b}c", b"{}", b"a{}b}", b"}{", b"{{a}}", b"\xff{\xfe}", b"user:{42"]
    for full_key in keys:
        slot = node.command("CLUSTER", "KEYSLOT", full_key)
        assert slot == key_slot(full_key)
        assert node.command("CLUSTER", "KEYSLOT", b"{%b}x" % same_slot(full_key)) == slot
        counter = companion(full_key, "", SUFFIX).full_key
        assert node.command("CLUSTER", "KEYSLOT", counter) == slot


# -- the driver --------------------------------------------------------------------------------


def driver_of(cluster: RedisCluster, prefix: str | bytes) -> Any:
    return KVS("redis", {"url": cluster.url}, key_prefix=prefix)


@pytest.mark.parametrize("prefix", ["cache::", "", "s{", "{s}", "s}", b"\xff"])
@pytest.mark.parametrize("key", ["abc", "", "user:{42}:x", "{", "}{", "{}a"])
def test_keys_with_braces_can_be_claimed(
    redis_cluster: RedisCluster, prefix: str | bytes, key: str
) -> None:
    driver = driver_of(redis_cluster, prefix)
    for stale in (0.0, 60.0):
        driver.raw_delete(key)
        claim = driver.raw_claim(key, stale, 30)
        assert claim.owner is not None
        assert driver.raw_claim(key, stale, 30).owner is None
        driver.raw_set_claimed(key, "new", 300, claim.owner)
        assert driver.raw_claim(key, stale, 30).data == b"new"
        assert driver.raw_claim(key, stale, 30).is_fresh
    claim = driver.raw_claim(key, 600, 30)
    driver.raw_release(key, claim.owner, pause=60)
    assert driver.raw_claim(key, 600, 30).owner is None
    if prefix != b"\xff":
        driver.raw_end_pause(key)
        assert driver.raw_claim(key, 600, 30).owner is not None
    driver.flush()
    assert redis_cluster.everywhere("DBSIZE") == [0, 0, 0]


def test_companions_are_listed_read_and_removed(redis_cluster: RedisCluster) -> None:
    driver, other = driver_of(redis_cluster, "s::"), driver_of(redis_cluster, "other::")
    keys = {home: driver.companion(home, home + SUFFIX) for home in ("abc", "a{b}", "é", "")}
    for home, key in keys.items():
        driver.set(home, "home")
        driver.set(key, home)
        other.set(key, "not mine")
    listed = driver.get_keys("*" + SUFFIX)
    assert sorted(listed) == sorted(keys.values())
    assert {driver.get(key) for key in listed} == set(keys)
    assert driver.get_many(listed) == {key: home for home, key in keys.items()}
    assert sorted(driver.get_keys("a*")) == sorted(["abc", "a{b}", keys["abc"], keys["a{b}"]])
    assert driver.get_keys("abc?") == []
    driver.flush()
    assert driver.get_keys() == []
    assert len(other.get_keys()) == 4


def test_a_script_reaches_a_companion(redis_cluster: RedisCluster) -> None:
    driver = driver_of(redis_cluster, "s::")
    script = Script("return redis.call('INCR', KEYS[1]) + redis.call('INCR', KEYS[2])")
    for home in ("abc", "a{b}", "{}", "é}"):
        key = driver.companion(home, "sha256:1234" + SUFFIX)
        assert driver.slot_of(key) == driver.slot_of(home)
        assert driver.run_script(script, [driver._get_key(home), driver._get_key(key)], []) == 2

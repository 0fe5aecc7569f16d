"""Compare-and-set, whose numbers begin again when a server starts again."""

from __future__ import annotations

import pytest

from pyramid_kvs.drivers.memcache.items import Token
from pyramid_kvs.kvs import KVS, Stored, SwapRequest
from tests.servers import MemcachedServer, free_port

from .helpers import Start, connect, counting


def number_at(kvs: KVS, key: str) -> int:
    found = kvs.raw_load(key)
    assert found
    token: Token = found.token
    return token.cas


def store_with_number(kvs: KVS, key: str, number: int) -> None:
    """Store other data until they have a number that other data had before."""
    kvs.set(key, "other")
    while number_at(kvs, key) < number:
        kvs.set(key, "other")
    assert number_at(kvs, key) == number


def load(kvs: KVS, key: str) -> Stored:
    """Store data and load them; their number is the next one but a few."""
    for _ in range(3):
        kvs.set(key, "loaded")
    found = kvs.raw_load(key)
    assert found
    return found


def test_a_number_of_an_earlier_start(own_memcached: Start) -> None:
    """After a restart the server gives the same number to other data."""
    server = own_memcached()
    kvs = connect(server)
    loaded = load(kvs, "key")
    server.restart()
    store_with_number(kvs, "key", loaded.token.cas)
    assert not kvs.raw_swap("key", loaded, '"lost"', 60).done
    assert not kvs.raw_swap("key", loaded, None, 60).done
    assert not kvs.raw_swap_many([SwapRequest("key", loaded, '"lost"', 60)])[0].done
    assert kvs.get("key") == "other"
    swap = kvs.raw_swap("key", loaded, '"lost"', 60)
    assert kvs.raw_swap("key", swap.current, '"changed"', 60).done
    assert kvs.get("key") == "changed"


def test_an_update_begins_again_after_a_restart(own_memcached: Start) -> None:
    server = own_memcached()
    kvs = connect(server)
    loaded = load(kvs, "key")
    seen = []

    def change(value: str) -> str:
        seen.append(value)
        if len(seen) == 1:
            server.restart()
            store_with_number(kvs, "key", loaded.token.cas)
        return value + " and changed"

    assert kvs.update("key", change) == "other and changed"
    assert seen == ["loaded", "other"]


def test_a_number_of_another_server(own_memcached: Start) -> None:
    """With ``rehash``, the key may be on another server when its change is saved."""
    servers = [own_memcached() for _ in range(2)]
    kvs = connect(*servers, rehash=True, dead_retry=60)
    alone = [connect(server) for server in servers]
    key = next(key for key in map(str, range(99)) if alone_has(kvs, alone[0], key))
    loaded = load(kvs, key)
    store_with_number(alone[1], key, loaded.token.cas)
    servers[0].kill()
    assert kvs.get(key) == "other"
    assert not kvs.raw_swap_many([SwapRequest(key, loaded, '"lost"', 60)])[0].done
    assert not kvs.raw_swap(key, loaded, '"lost"', 60).done
    assert kvs.get(key) == "other"


def alone_has(kvs: KVS, alone: KVS, key: str) -> bool:
    kvs.set(key, 1)
    return bool(alone.get(key) == 1)


def test_some_swaps_of_many_are_of_an_earlier_start(own_memcached: Start) -> None:
    server = own_memcached()
    kvs = connect(server)
    old = load(kvs, "old")
    server.restart()
    store_with_number(kvs, "old", old.token.cas)
    new = load(kvs, "new")
    requests = [
        SwapRequest("old", old, "1", 60),
        SwapRequest("new", new, "2", 60),
        SwapRequest("added", None, "3", 60),
    ]
    assert [swap.done for swap in kvs.raw_swap_many(requests)] == [False, True, True]
    assert kvs.get_many(["old", "new", "added"]) == {"old": "other", "new": 2, "added": 3}


def test_a_token_is_good_on_every_connection(memcached_server: MemcachedServer, kvs: KVS) -> None:
    loaded = load(kvs, "key")
    kvs.close()
    assert kvs.raw_swap("key", loaded, "1", 60).done
    loaded = load(kvs, "key")
    assert connect(memcached_server).raw_swap("key", loaded, "2", 60).done


def test_the_server_is_asked_for_its_start_once(memcached_server: MemcachedServer) -> None:
    """The first load of a connection asks, in the same round trip."""
    with counting(memcached_server) as (url, sent):
        kvs = connect(url)
        for _ in range(3):
            kvs.raw_load("key")
        assert sent == [sent[1] + len(b"stats\r\n"), sent[1], sent[1]]
        kvs.close()


@pytest.mark.parametrize("servers", [1, 3])
def test_check_asks_each_server(own_memcached: Start, servers: int) -> None:
    """One server that is down is enough to fail."""
    started = [own_memcached() for _ in range(servers)]
    connect(*started).check()
    assert all(int(server.stats()["cmd_set"]) >= 2 for server in started)
    assert not connect(*started, f"127.0.0.1:{free_port()}").ping()

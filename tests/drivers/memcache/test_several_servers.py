"""Several servers, of which some fail."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import memcache
import pytest

from pyramid_kvs.exceptions import KVSNotSupported, KVSUnavailable
from pyramid_kvs.kvs import KVS, Breakers
from tests.servers import MemcachedServer, wait_until

from .helpers import KEYS, Start, connect, unavailable


@pytest.mark.parametrize("weights", [(1, 1, 1), (1, 5, 2)])
def test_the_peer_finds_the_same_keys(
    three: list[MemcachedServer], weights: tuple[int, ...]
) -> None:
    weighted = [[server.url, weight] for server, weight in zip(three, weights, strict=True)]
    kvs = KVS("memcache", {"servers": weighted}, "p::")
    peer = memcache.Client([tuple(pair) for pair in weighted])
    for key in KEYS:
        peer.set(f"p::{key}", json.dumps(key))
    assert kvs.get_many(KEYS) == {key: key for key in KEYS}
    kvs.delete_many(KEYS)
    kvs.set_many({key: key for key in KEYS})
    assert all(peer.get(f"p::{key}") == json.dumps(key) for key in KEYS)
    assert all(int(server.stats()["curr_items"]) > 5 for server in three)


def test_a_dead_server_takes_only_its_own_keys(three: list[MemcachedServer]) -> None:
    kvs = connect(*three)
    kvs.set_many({key: key for key in KEYS})
    three[1].kill()
    lost = set(filter(lambda key: unavailable(kvs, key), KEYS))
    assert 10 < len(lost) < len(KEYS) - 10
    assert kvs.get_many(set(KEYS) - lost) == {key: key for key in set(KEYS) - lost}
    for call in (
        lambda: kvs.get_many(KEYS),
        lambda: kvs.set_many(dict.fromkeys(KEYS, 1)),
        lambda: kvs.delete_many(lost),
    ):
        with pytest.raises(KVSUnavailable, match=str(three[1].port)):
            call()
    assert kvs.ping() is False
    three[1].start()
    assert kvs.ping() is True
    assert all(kvs.get(key) is None for key in lost)


@pytest.mark.parametrize("rehash", [False, True])
def test_check_nodes(three: list[MemcachedServer], rehash: bool) -> None:
    """Each server is named, also if others have the keys of the dead one."""
    kvs = KVS("memcache", {"servers": [server.url for server in three], "rehash": rehash})
    assert kvs.check_nodes() == {server.url: None for server in three}
    three[1].kill()
    for _ in range(2):
        found = kvs.check_nodes()
        assert found.pop(three[1].url)
        assert found == {three[0].url: None, three[2].url: None}


def test_check_nodes_of_one_server(memcached_server: MemcachedServer) -> None:
    assert connect(memcached_server).check_nodes() == {}


@pytest.mark.parametrize("fail", [MemcachedServer.kill, MemcachedServer.pause])
def test_rehash_moves_the_keys(three: list[MemcachedServer], fail: Any) -> None:
    kvs = connect(*three, rehash=True, dead_retry=60, socket_timeout=0.3)
    kvs.set_many({key: key for key in KEYS})
    fail(three[1])
    with contextlib.suppress(KVSUnavailable):
        kvs.incr("counter")
    found = kvs.get_many(KEYS)
    assert 10 < len(found) < len(KEYS) - 10
    kvs.set_many(dict.fromkeys(KEYS, 2))
    assert kvs.get_many(KEYS) == dict.fromkeys(KEYS, 2)
    for key in KEYS:
        kvs.set(key, 3)
        assert kvs.incr(key) == 4


def test_rehash_with_nobody_left(own_memcached: Start) -> None:
    servers = [own_memcached() for _ in range(2)]
    kvs = connect(*servers, rehash=True)
    kvs.set("key", 1)
    for server in servers:
        server.kill()
    for call in (lambda: kvs.get("key"), lambda: kvs.incr("key"), lambda: kvs.get_many(["key"])):
        with pytest.raises(KVSUnavailable):
            call()


def test_rehash_moves_as_the_peer_does(own_memcached: Start) -> None:
    servers = [own_memcached() for _ in range(3)]
    kvs = connect(*servers, rehash=True, dead_retry=60)
    servers[1].kill()
    peer = memcache.Client([server.url for server in servers], dead_retry=60)
    for key in KEYS:
        kvs.set(key, key)
    assert all(peer.get(f"p::{key}") == json.dumps(key) for key in KEYS)


def test_flush_is_for_drivers_without_prefix(own_memcached: Start) -> None:
    servers = [own_memcached() for _ in range(2)]
    kvs, everything = connect(*servers), connect(*servers, prefix="")
    kvs.set_many({key: key for key in KEYS})
    with pytest.raises(KVSNotSupported, match="prefix"):
        kvs.flush()
    assert len(kvs.get_many(KEYS)) == len(KEYS)
    everything.flush()
    assert kvs.get_many(KEYS) == {}


def keys_by_server(kvs: KVS, servers: list[MemcachedServer]) -> list[list[str]]:
    """Return for each server the keys that it has."""
    alone = [connect(server) for server in servers]
    kvs.set_many({key: key for key in KEYS})
    return [list(each.get_many(KEYS)) for each in alone]


def test_only_the_server_that_hangs_is_left_alone(three: list[MemcachedServer]) -> None:
    kvs = connect(*three, socket_timeout=0.6)
    keys = keys_by_server(kvs, three)
    three[1].pause()
    assert unavailable(kvs, keys[1][0])
    began = time.monotonic()
    for key in keys[1]:
        with pytest.raises(KVSUnavailable, match="a moment ago; it is left alone for up to 1 s"):
            kvs.get(key)
    assert kvs.get_many(keys[0] + keys[2]) == {key: key for key in keys[0] + keys[2]}
    assert all(kvs.get(key) == key for key in keys[0] + keys[2])
    assert time.monotonic() - began < 0.6
    three[1].resume()
    wait_until(lambda: not unavailable(kvs, keys[1][0]), "the next probe", 1.5)


def test_several_servers_share_one_deadline() -> None:
    """The deadline is that of the call, not of each server. Here each takes 0.6 s."""
    with contextlib.ExitStack() as stack:
        urls = [stack.enter_context(trickling()) for _ in range(3)]
        kvs = connect(*urls, socket_timeout=0.4)
        assert 0.7 < seconds(lambda: kvs.get_many(KEYS)) < 1.1
        kvs.close()


def seconds(call: Callable[[], Any]) -> float:
    began = time.monotonic()
    with pytest.raises(KVSUnavailable):
        call()
    return time.monotonic() - began


@contextlib.contextmanager
def trickling() -> Iterator[str]:
    """Answer one command for a key after the other, each after 0.015 s."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            connection = listener.accept()[0]
            for _ in range(connection.recv(65536).count(b"mg ")):
                time.sleep(0.015)
                connection.sendall(b"EN\r\n")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def test_settings_of_an_application_share_what_they_know(three: list[MemcachedServer]) -> None:
    """After one driver had to wait, another one does not ask the server that hangs."""
    first, second = connect(three[0]), connect(*three)
    breakers = Breakers()
    for driver in (first, second):
        driver.share_breakers(breakers)
    keys = keys_by_server(second, three)
    three[0].pause()
    assert unavailable(first, "key")
    began = time.monotonic()
    assert unavailable(second, keys[0][0])
    assert time.monotonic() - began < 0.5  # the timeout


def test_dead_retry_is_for_each_failure(own_memcached: Start) -> None:
    """``breaker`` is for timeouts only: a refused connection costs nothing."""
    server = own_memcached()
    patient, eager = connect(server, dead_retry=60), connect(server)
    server.kill()
    assert unavailable(patient, "key")
    assert unavailable(eager, "key")
    server.start()
    assert unavailable(patient, "key")
    assert not unavailable(eager, "key")

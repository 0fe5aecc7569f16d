"""What a server refuses, and replies that memcached should never send."""

from __future__ import annotations

import pytest

from pyramid_kvs.exceptions import KVSError, KVSNotSupported, KVSUnavailable, ValueTooLarge
from pyramid_kvs.kvs import KVS
from tests.servers import MemcachedServer

from .helpers import Start, answering, connect


def connections(server: MemcachedServer) -> int:
    return int(server.stats()["total_connections"])


@pytest.mark.parametrize("size", [1 << 20, 5 << 20])
def test_too_large(memcached_server: MemcachedServer, kvs: KVS, size: int) -> None:
    kvs.set("small", 1)
    before = connections(memcached_server)
    value = "x" * size
    for write in (
        lambda: kvs.set("key", value),
        lambda: kvs.add("key", value),
        lambda: kvs.update("key", lambda old: value),
        lambda: kvs.set_many({"one": 1, "key": value, "two": 2}),
    ):
        with pytest.raises(ValueTooLarge, match="-I"):
            write()
        assert kvs.get("key") is None
        assert kvs.get("small") == 1
    assert kvs.get_many(["one", "two"]) == {"one": 1, "two": 2}
    assert connections(memcached_server) == before + 1  # the one that counts


def test_a_limit_of_the_driver_leaves_the_old_value(memcached_server: MemcachedServer) -> None:
    kvs = connect(memcached_server, server_max_value_length=1000)
    kvs.set("key", "old")
    with pytest.raises(ValueTooLarge, match="1000"):
        kvs.set("key", "x" * 1000)
    assert kvs.get("key") == "old"


def test_a_larger_limit_of_the_server(own_memcached: Start) -> None:
    kvs = connect(own_memcached("-I", "4m"))
    kvs.set("key", "x" * (3 << 20))
    assert len(kvs.get("key")) == 3 << 20


def test_a_server_without_compare_and_set(own_memcached: Start) -> None:
    kvs = connect(own_memcached("-C"))
    kvs.set("key", 1)
    assert kvs.get("key") == 1
    for call in (lambda: kvs.update("key", lambda old: 2), lambda: kvs.delete("key")):
        with pytest.raises(KVSNotSupported, match="-C"):
            call()


def test_out_of_memory(own_memcached: Start) -> None:
    kvs = connect(own_memcached("-M", "-m", "2"))
    with pytest.raises(KVSUnavailable, match="out of memory"):
        kvs.set_many({f"key{number}": "x" * 500_000 for number in range(50)})
    assert len(kvs.get("key0")) == 500_000


@pytest.mark.parametrize(
    ("reply", "error", "message"),
    [
        (b"ERROR\r\n", KVSError, "1.6 or newer"),
        (b"CLIENT_ERROR unauthenticated\r\n", KVSUnavailable, "unauthenticated"),
        (b"ERROR Too many open connections\r\n", KVSUnavailable, "Too many"),
        (b"SERVER_ERROR out of memory storing object\r\n", KVSUnavailable, "out of memory"),
        (b"SERVER_ERROR something else\r\n", KVSUnavailable, "something else"),
        # What memcached's own proxy, mcrouter and twemproxy say if their backend is down.
        (b"SERVER_ERROR backend failure\r\n", KVSUnavailable, "backend failure"),
        (b"SERVER_ERROR 307 busy\r\n", KVSUnavailable, "busy"),
        (b"SERVER_ERROR unavailable\r\n", KVSUnavailable, "unavailable"),
        (b"SERVER_ERROR Connection refused\r\n", KVSUnavailable, "refused"),
        (b"SERVER_ERROR Host is down\r\n", KVSUnavailable, "down"),
        (b"SERVER_ERROR\r\n", KVSUnavailable, "SERVER_ERROR"),
        (b"SERVER_ERROR object too large for cache\r\n", ValueTooLarge, "-I"),
        (b"CLIENT_ERROR bad command line format\r\n", KVSError, "bad command line"),
        (b"VA x f0\r\n\r\n", KVSError, "size"),
        (b"VA\r\n", KVSError, "size"),
        (b"VA -9 f0\r\n\r\n", KVSError, "size"),
        (b"VA 99999999999999 f0\r\n\r\n", KVSError, "larger"),
        (b"VA 1 f0\r\nabcdefg\r\n", KVSError, "more data"),
        (b"VA 1 f0 c1\r\n1\r\nVA 1 f0 c1\r\n1\r\n", KVSError, "more replies"),
        (b"x" * 100_000, KVSError, "end of line"),
        (b"VA 1\r\n1\r\n", KVSError, "lacks"),
        (b"VA 1 fx c1\r\n1\r\n", KVSError, "lacks"),
    ],
)
def test_odd_replies_are_errors(reply: bytes, error: type[Exception], message: str) -> None:
    with answering(reply) as url:
        kvs = connect(url)
        with pytest.raises(error, match=message) as caught:
            kvs.get("key")
        assert type(caught.value) is error
        kvs.close()

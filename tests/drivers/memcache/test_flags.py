"""Flags, and values that python-memcached stored, which 1.0 used."""

from __future__ import annotations

import json
import pickle
import zlib
from typing import Any

import pytest

from pyramid_kvs.exceptions import CodecError, KVSError
from pyramid_kvs.kvs import KVS
from tests.servers import MemcachedServer

from .helpers import connect, store, stored


class Evil:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return confess, ()


confessions: list[str] = []


def confess() -> None:
    confessions.append("unpickled")


def test_text_has_flag_16(memcached_server: MemcachedServer, kvs: KVS, peer: Any) -> None:
    kvs.set("key", {"é": 1})
    assert stored(memcached_server, b"p::key") == (16, json.dumps({"é": 1}).encode())
    assert peer.get("p::key") == json.dumps({"é": 1})


def test_bytes_have_no_flag(memcached_server: MemcachedServer, peer: Any) -> None:
    connect(memcached_server, codec="pickle").set("key", {"é"})
    assert stored(memcached_server, b"p::key") == (0, pickle.dumps({"é"}))
    assert peer.get("p::key") == pickle.dumps({"é"})


def test_every_way_to_write_sets_the_flag(memcached_server: MemcachedServer, kvs: KVS) -> None:
    kvs.add("added", "x")
    kvs.set_many({"many": "x"})
    kvs.update("updated", lambda old: "x")
    kvs.update("updated", lambda old: "x")
    for key in (b"p::added", b"p::many", b"p::updated"):
        assert stored(memcached_server, key) == (16, b'"x"')


def test_reads_what_the_peer_wrote(kvs: KVS, peer: Any) -> None:
    peer.set("p::text", '{"a": "é"}')
    peer.set("p::pickle", pickle.dumps({"a"}))
    peer.set("p::integer", 42)
    peer.set("p::long", 2**70)
    assert kvs.get_many(["text", "integer", "long"]) == {
        "text": {"a": "é"},
        "integer": 42,
        "long": 2**70,
    }
    assert kvs.get("text") == {"a": "é"}
    with pytest.raises(CodecError):
        kvs.get("pickle")


def test_reads_a_pickle_of_the_peer_with_the_pickle_codec(
    memcached_server: MemcachedServer, peer: Any
) -> None:
    peer.set("p::pickle", pickle.dumps({"a"}))
    assert connect(memcached_server, codec="pickle").get("pickle") == {"a"}


def test_reads_what_the_peer_compressed(
    memcached_server: MemcachedServer, kvs: KVS, peer: Any
) -> None:
    text = json.dumps(["long"] * 1000)
    peer.set("p::key", text, min_compress_len=100)
    assert stored(memcached_server, b"p::key")[0] == 24
    assert kvs.get("key") == ["long"] * 1000
    assert kvs.get_many(["key"]) == {"key": ["long"] * 1000}
    assert kvs.update("key", lambda old: old[1:]) == ["long"] * 999
    assert stored(memcached_server, b"p::key") == (16, json.dumps(["long"] * 999).encode())
    peer.set("p::key", text, min_compress_len=100)
    assert kvs.delete("key") == ["long"] * 1000


@pytest.mark.parametrize(
    "data", [b"not zlib", zlib.compress(bytes(65 << 20)), zlib.compress(b"[1]")[:-3]]
)
def test_compressed_data_that_do_not_inflate(
    memcached_server: MemcachedServer, kvs: KVS, data: bytes
) -> None:
    store(memcached_server, b"p::key", data, 8)
    with pytest.raises(CodecError):
        kvs.get("key")
    with pytest.raises(CodecError):
        kvs.get_many(["key"])
    assert kvs.delete("key") is None
    assert kvs.raw_load("key") is None


@pytest.mark.parametrize("codec", ["json", "storable"])
@pytest.mark.parametrize("flags", [0, 1, 16, 17, 9, 2**32 - 1])
def test_nothing_read_runs_code(
    memcached_server: MemcachedServer, peer: Any, codec: str, flags: int
) -> None:
    """python-memcached unpickles data with flag 1; the driver gives the bytes to the codec."""
    evil = pickle.dumps(Evil(), 2)
    data = zlib.compress(evil) if flags == 9 else evil
    kvs = connect(memcached_server, codec=codec)
    for key in (b"p::a", b"p::b"):
        store(memcached_server, key, data, flags)
    for read in (
        lambda: kvs.get("a"),
        lambda: kvs.get_many(["a", "b"]),
        lambda: kvs.update("a", lambda old: old),
        lambda: kvs.incr("a"),
    ):
        with pytest.raises(KVSError):
            read()
    assert kvs.raw_load("a").data == evil
    assert kvs.expire("a", 50.5)
    assert kvs.delete("a") is None
    assert confessions == []
    if flags in (1, 9):
        peer.get("p::b")
        assert confessions.pop() == "unpickled"  # as python-memcached does


@pytest.mark.parametrize("flags", [0, 1, 2, 3, 7, 8, 16, 2**32 - 1])
def test_load_and_swap_keep_flags_and_bytes(
    memcached_server: MemcachedServer, kvs: KVS, flags: int
) -> None:
    store(memcached_server, b"p::key", b"\4\x0b\0\xff\r\n", flags)
    found = kvs.raw_load("key")
    assert (found.data, found.flags) == (b"\4\x0b\0\xff\r\n", flags)
    assert kvs.raw_load_many(["key"]) == {"key": found}
    assert kvs.raw_swap("key", found, b"\5\n\r\n\0", 60, flags=flags).done
    assert stored(memcached_server, b"p::key") == (flags, b"\5\n\r\n\0")
    assert kvs.expire("key", 10.5)
    assert kvs.raw_load("key")[::2] == (b"\5\n\r\n\0", flags)

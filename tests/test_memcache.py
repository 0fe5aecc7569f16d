"""The memcache driver on real servers, with python-memcached as the peer that 1.0 used."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import multiprocessing
import pickle
import signal
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import memcache
import pytest

from pyramid_kvs.exceptions import (
    CodecError,
    KVSError,
    KVSNotSupported,
    KVSUnavailable,
    ValueTooLarge,
)
from pyramid_kvs.kvs import KVS, Stored, SwapRequest
from tests.servers import MemcachedServer, wait_until

DAY = 86400
Start = Callable[..., MemcachedServer]


def connect(*servers: MemcachedServer | str, prefix: str = "p::", **options: Any) -> KVS:
    """Build a driver; ``codec`` and ``ttl`` are its own, other options go to ``kvs_kwargs``."""
    own = {name: options.pop(name) for name in ("codec", "ttl") if name in options}
    urls = [server if isinstance(server, str) else server.url for server in servers]
    return KVS("memcache", {"servers": urls, **options}, prefix, **own)


@pytest.fixture
def kvs(memcached_server: MemcachedServer) -> Iterator[KVS]:
    driver = connect(memcached_server)
    yield driver
    driver.close()


@pytest.fixture
def peer(memcached_server: MemcachedServer) -> Iterator[memcache.Client]:
    client = memcache.Client([memcached_server.url])
    yield client
    client.disconnect_all()


def store(server: MemcachedServer, full_key: bytes, data: bytes, flags: int = 0) -> None:
    command = b"ms %b %d T100 F%d\r\n%b\r\n" % (full_key, len(data), flags, data)
    assert server.talk(command) == b"HD\r\n"


def stored(server: MemcachedServer, full_key: bytes) -> tuple[int, bytes]:
    """Return flags and data as they stand in memcached."""
    header, data = server.talk(b"mg %b f v\r\n" % full_key).split(b"\r\n", 1)
    return int(header.split(b" ")[2][1:]), data[:-2]


def seconds_left(server: MemcachedServer, full_key: bytes) -> int:
    return int(server.talk(b"mg %b t\r\n" % full_key).split(b"t")[1])


class Evil:
    """Runs code of its own when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return confess, ()


confessions: list[str] = []


def confess() -> None:
    confessions.append("unpickled")


# -- flags, and the peer of 1.0 ----------------------------------------------------------------


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
    """python-memcached unpickles what has flag 1; the driver gives its bytes to the codec."""
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
        assert confessions.pop() == "unpickled"  # it would have


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


# -- keys --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key", ["0123456789abcdef" * 2 + "01234567", "a:b/c?d=é#{}", "鍵" * 82, "~" * 247]
)
def test_keys_that_1_0_could_store_stay_as_they_are(
    memcached_server: MemcachedServer, kvs: KVS, peer: Any, key: str
) -> None:
    kvs.set(key, 1)
    assert peer.get(f"p::{key}") == "1"
    assert stored(memcached_server, f"p::{key}".encode()) == (16, b"1")


@pytest.mark.parametrize(
    "key", ["a b\r\nflush_all\r\n", "a\nflush_all\n", "end\n", "\0", "🔑 " * 3000, "\ud800 x"]
)
def test_no_key_is_a_command(memcached_server: MemcachedServer, kvs: KVS, key: str) -> None:
    flushes = memcached_server.stats()["cmd_flush"]
    kvs.set(key, 1)
    kvs.add(key, 1)
    kvs.incr(key)
    kvs.update(key, lambda old: old)
    kvs.raw_load(key, renew=50)
    assert kvs.expire(key, 9)
    assert kvs.expire(key, 9.5)
    kvs.get_many([key, key + " "])
    kvs.set_many({key: 1})
    kvs.delete_many([key])
    kvs.delete(key)
    assert memcached_server.stats()["cmd_flush"] == flushes
    assert kvs.raw_load_many([key, key + " "]) == {}
    assert kvs.ping()


def test_no_real_key_is_a_mapped_one(kvs: KVS) -> None:
    """The text that a long key is mapped to is a key of its own."""
    long_key = "x" * 300
    mapped = "kvs:sha256:" + hashlib.sha256(long_key.encode()).hexdigest()
    without_prefix = KVS("memcache", {"servers": [str(kvs._client.servers[0])[5:]]}, "")
    without_prefix.set(long_key, "long")
    assert without_prefix.get(mapped) is None
    without_prefix.set(mapped, "short")
    assert without_prefix.get(long_key) == "long"
    assert without_prefix.get(mapped) == "short"


def test_key_encoder(memcached_server: MemcachedServer) -> None:
    kvs = connect(memcached_server, key_encoder=lambda key: key.replace(b"::", b"/"))
    kvs.set("key", 1)
    assert stored(memcached_server, b"p/key") == (16, b"1")


# -- life time ---------------------------------------------------------------------------------


def test_a_whole_ttl_stores_the_codecs_bytes(memcached_server: MemcachedServer, kvs: KVS) -> None:
    for ttl in (5, 5.0, 40 * DAY, 1e300):
        kvs.set("key", "x", ttl)
        assert stored(memcached_server, b"p::key") == (16, b'"x"')


def test_a_fraction_is_a_deadline_in_the_data(
    memcached_server: MemcachedServer, kvs: KVS, peer: Any
) -> None:
    kvs.set("key", "x", 5.5)
    flags, data = stored(memcached_server, b"p::key")
    assert data.startswith(b"\x01kvs-until:")
    assert data.endswith(b':"x"')
    assert peer.get("p::key") == data.decode()
    assert flags == 16
    assert 5 < kvs.ttl_of("key") <= 5.5
    assert seconds_left(memcached_server, b"p::key") >= 6


def test_a_short_life_outlasts_the_servers_tick(
    memcached_server: MemcachedServer, kvs: KVS
) -> None:
    """With exptime 1 an item may be gone at the server's next tick, microseconds later."""
    longest = 0
    for _ in range(5):  # the tick may come between these two
        kvs.set("key", "x", 0.3)
        longest = max(longest, seconds_left(memcached_server, b"p::key"))
    assert longest == 2


@pytest.mark.parametrize("ttl", [None, 50, 50.5])
@pytest.mark.parametrize(
    "data", [b"\x01kvs-until:1.000000:x", b"\x01kvs-until::x", b"\x01kvs-until:", "\x01kvs-until:9"]
)
def test_data_that_look_like_a_deadline(kvs: KVS, data: Any, ttl: float | None) -> None:
    expected = data.encode() if isinstance(data, str) else data
    kvs.raw_set("key", data, ttl)
    assert kvs.raw_get("key") == expected
    assert kvs.raw_load("key", renew=20).data == expected
    assert kvs.raw_get_many(["key"]) == {"key": expected}
    assert kvs.expire("key", 9.5)
    assert kvs.raw_delete("key") == expected


@pytest.mark.parametrize("ttl", [30 * DAY, 30 * DAY + 1, 20 * 366 * DAY, 200 * 366 * DAY, 1e300])
def test_a_long_life_is_not_read_as_a_date(kvs: KVS, ttl: float) -> None:
    """From 2038 on memcached 1.6 expires everything at once, so that no date is later."""
    longest = 2**31 - 1 - time.time()
    for write in (
        lambda: kvs.set("key", 1, ttl),
        lambda: kvs.incr("key", 1, ttl),
        lambda: (kvs.set("key", 1, 5), kvs.expire("key", ttl)),
        lambda: (kvs.set("key", 1, 5), kvs.raw_load("key", renew=ttl)),
    ):
        kvs.delete("key")
        write()
        assert kvs.get("key") == 1
        assert abs(kvs.ttl_of("key") - min(ttl, longest)) < 5


def test_infinity_is_the_longest_life(kvs: KVS) -> None:
    kvs.set("key", 1, math.inf)
    assert kvs.get("key") == 1


def test_expire_between_whole_and_fraction(memcached_server: MemcachedServer, kvs: KVS) -> None:
    kvs.set("key", "x", 50.5)
    assert kvs.expire("key", 100)
    assert stored(memcached_server, b"p::key") == (16, b'"x"')
    assert kvs.raw_expire("key", None)
    assert kvs.ttl_of("key") < 0
    assert kvs.raw_load("key", renew=20.5).data == b'"x"'
    assert 19 < kvs.ttl_of("key") <= 20.5
    assert kvs.raw_load("key", renew=60).data == b'"x"'
    assert 58 < kvs.ttl_of("key") <= 60


def test_what_is_over_is_absent(memcached_server: MemcachedServer, kvs: KVS) -> None:
    """Memcached still has such an item, which no operation may find."""
    over = b"\x01kvs-until:%d.000000:7" % (time.time() - 1)
    actions: dict[Callable[[], Any], Any] = {
        lambda: kvs.get("key", "default"): "default",
        lambda: kvs.get_many(["key"]): {},
        lambda: kvs.ttl_of("key") < 0: True,
        lambda: kvs.delete("key"): None,
        lambda: kvs.expire("key", 5): False,
        lambda: kvs.expire("key", 5.5): False,
        lambda: kvs.raw_load("key"): None,
        lambda: kvs.raw_load("key", renew=9): None,
        lambda: kvs.raw_load("key", renew=9.5): None,
        lambda: kvs.raw_load_many(["key"]): {},
        lambda: kvs.add("key", 1): True,
        lambda: kvs.incr("key", 2): 2,
        lambda: kvs.decr("key", 2): -2,
        lambda: kvs.incr("key", 2, 0.5): 2,
        lambda: kvs.raw_swap("key", None, "1", 5).done: True,
        lambda: kvs.raw_swap("key", None, None, 5).done: True,
        lambda: kvs.raw_swap("key", Stored(b"7", 1), "1", 5): (False, None),
    }
    for action, expected in actions.items():
        store(memcached_server, b"p::key", over, 16)
        assert action() == expected


# -- counters ----------------------------------------------------------------------------------


def test_the_peer_counts_on(memcached_server: MemcachedServer, kvs: KVS, peer: Any) -> None:
    assert kvs.incr("counter", 9) == 9
    assert stored(memcached_server, b"p::counter") == (0, b"9")
    assert peer.incr("p::counter", 2) == 11
    assert kvs.incr("counter") == 12


@pytest.mark.parametrize("codec", ["json", "pickle", "storable"])
def test_a_counter_that_the_peer_padded(
    memcached_server: MemcachedServer, peer: Any, codec: str
) -> None:
    """The peer's ``decr`` of 10 leaves a 9 and a space."""
    kvs = connect(memcached_server, codec=codec)
    kvs.incr("counter", 10)
    peer.decr("p::counter")
    assert stored(memcached_server, b"p::counter")[1] == b"9 "
    assert kvs.get("counter") == 9
    assert kvs.get_many(["counter"]) == {"counter": 9}
    assert kvs.decr("counter", 10) == -1


def test_going_below_zero_keeps_the_clock(memcached_server: MemcachedServer, kvs: KVS) -> None:
    kvs.incr("counter", 1, 100)
    for expected in range(0, -50, -1):
        assert kvs.decr("counter", 1, 500) == expected
    assert 97 < kvs.ttl_of("counter") <= 100
    assert kvs.incr("counter", 60, 500) == 11
    assert 97 < kvs.ttl_of("counter") <= 100
    assert kvs.get("counter") == 11


def test_counting_down_keeps_plain_digits(memcached_server: MemcachedServer, kvs: KVS) -> None:
    kvs.incr("counter", 5, 100)
    kvs.decr("counter", 2, 500)
    assert stored(memcached_server, b"p::counter")[1] == b"3"
    assert 97 < kvs.ttl_of("counter") <= 100


def test_a_negative_counter_without_expiry_gets_its_ttl(
    memcached_server: MemcachedServer, kvs: KVS
) -> None:
    connect(memcached_server, ttl=None).decr("counter")
    assert kvs.ttl_of("counter") < 0
    assert kvs.decr("counter", 1, 100) == -2
    assert 97 < kvs.ttl_of("counter") <= 100


def test_counting_down_gives_a_counter_without_expiry_its_ttl(
    memcached_server: MemcachedServer, kvs: KVS
) -> None:
    connect(memcached_server, ttl=None).incr("counter", 5)
    assert kvs.decr("counter", 1, 100) == 4
    assert 97 < kvs.ttl_of("counter") <= 100


@pytest.mark.parametrize("start", [2**64 - 1, 2**63, 10**30, -(10**30)])
def test_counts_beyond_64_bits(kvs: KVS, start: int) -> None:
    kvs.raw_set("counter", str(start), 100)
    assert kvs.incr("counter", 2) == start + 2
    assert kvs.incr("counter", 2**65) == start + 2 + 2**65
    assert kvs.decr("counter", 2**66) == start + 2 - 2**65
    assert kvs.get("counter") == start + 2 - 2**65
    assert 90 < kvs.ttl_of("counter") <= 100


def _count_up_and_down(url: str, ttl: float) -> None:
    kvs = connect(url)
    for _ in range(50):
        kvs.incr("counter", 3, ttl)
        kvs.decr("counter", 4, ttl)


@pytest.mark.parametrize("ttl", [100, 100.5])
def test_eight_processes_count_exactly(
    memcached_server: MemcachedServer, kvs: KVS, ttl: float
) -> None:
    context = multiprocessing.get_context("fork")
    arguments = (memcached_server.url, ttl)
    processes = [context.Process(target=_count_up_and_down, args=arguments) for _ in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(100)
    assert [process.exitcode for process in processes] == [0] * 8
    assert kvs.get("counter") == -400
    assert 50 < kvs.ttl_of("counter") <= ttl


# -- what the server refuses -------------------------------------------------------------------


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
    assert connections(memcached_server) == before + 1  # that of the counting itself


def test_a_limit_of_ones_own_leaves_the_old_value(memcached_server: MemcachedServer) -> None:
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


# -- many keys ---------------------------------------------------------------------------------


def test_many_megabytes_at_once(kvs: KVS) -> None:
    mapping = {f"key{n}": str(n) * 20_000 for n in range(400)}
    kvs.set_many(mapping)
    assert kvs.get_many(mapping) == mapping


def test_many_thousand_keys_at_once(kvs: KVS) -> None:
    mapping = {f"key{n}" + "x" * 200: n for n in range(5000)}
    kvs.set_many(mapping)
    assert kvs.get_many(mapping) == mapping
    kvs.delete_many(list(mapping)[1:])
    assert len(kvs.get_many(mapping)) == 1


def test_large_reads_do_not_block_each_other(own_memcached: Start) -> None:
    """A server that cannot get rid of its replies stops reading what is asked."""
    kvs = connect(own_memcached(unix=True))
    mapping = {f"{n:0245}": "x" * 2000 for n in range(1000)}
    kvs.set_many(mapping)
    assert kvs.get_many(mapping) == mapping


@contextlib.contextmanager
def counting(server: MemcachedServer) -> Iterator[tuple[str, list[int]]]:
    """Stand between a driver and a server, and count what the driver sends in one piece."""
    sent: list[int] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, target: socket.socket, sizes: list[int]) -> None:
        with contextlib.suppress(OSError):  # the other direction ended first, and closed it
            while chunk := source.recv(1 << 20):
                sizes.append(len(chunk))
                target.sendall(chunk)
        target.close()

    def serve() -> None:
        try:
            near = listener.accept()[0]
        except OSError:  # nobody came
            return
        far = socket.create_connection((server.host, server.port))
        threading.Thread(target=pump, args=(near, far, sent), daemon=True).start()
        pump(far, near, [])

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}", sent


def test_round_trips(memcached_server: MemcachedServer) -> None:
    with counting(memcached_server) as (url, sent):
        kvs = connect(url)
        kvs.set("key", 1)
        found = kvs.raw_load("key")
        for action, expected in {
            lambda: kvs.raw_load("key", renew=100): 1,
            lambda: kvs.raw_swap("key", found, '{"a": 2}', 100): 1,
            lambda: kvs.set("key", {"a": 1}): 1,
            lambda: kvs.get("key"): 1,
            lambda: kvs.add("new", 1): 1,
            lambda: kvs.incr("counter", 1, 60): 1,
            lambda: kvs.incr("counter", 1, 100): 1,
            lambda: kvs.expire("key", 60): 1,
            lambda: kvs.delete("key"): 2,
            lambda: kvs.get_many([f"key{n}" for n in range(100)]): 1,
            lambda: kvs.raw_load_many([f"key{n}" for n in range(100)]): 1,
            lambda: kvs.set_many({f"key{n}": "x" * 50 for n in range(100)}): 1,
            lambda: kvs.delete_many([f"key{n}" for n in range(100)]): 1,
        }.items():
            sent.clear()
            action()
            assert len(sent) == expected
        kvs.close()


# -- several servers ---------------------------------------------------------------------------


@pytest.fixture
def three(own_memcached: Start) -> list[MemcachedServer]:
    return [own_memcached() for _ in range(3)]


KEYS = [f"key{n}" for n in range(120)] + ["é" * 9, "a/b"]


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


def unavailable(kvs: KVS, key: str) -> bool:
    try:
        kvs.get(key)
    except KVSUnavailable:
        return True
    return False


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


# -- a server that is away ---------------------------------------------------------------------

CALLS: list[Callable[[KVS], Any]] = [
    lambda kvs: kvs.get("key"),
    lambda kvs: kvs.set("key", 1),
    lambda kvs: kvs.add("key", 1),
    lambda kvs: kvs.delete("key"),
    lambda kvs: kvs.incr("key"),
    lambda kvs: kvs.decr("key"),
    lambda kvs: kvs.get_many(["key", "other"]),
    lambda kvs: kvs.set_many({"key": 1}),
    lambda kvs: kvs.delete_many(["key"]),
    lambda kvs: kvs.update("key", lambda old: 1),
    lambda kvs: kvs.ttl_of("key"),
    lambda kvs: kvs.expire("key", 5),
    lambda kvs: kvs.expire("key", 5.5),
    lambda kvs: kvs.raw_load("key", renew=5),
]


def fails_in_time(kvs: KVS, call: Callable[[KVS], Any]) -> None:
    started = time.monotonic()
    with pytest.raises(KVSUnavailable) as caught:
        call(kvs)
    assert time.monotonic() - started < 1
    assert isinstance(caught.value.__cause__, OSError)
    assert not isinstance(caught.value.__cause__, KVSError)


def test_a_dead_server_is_an_error(own_memcached: Start) -> None:
    server = own_memcached()
    kvs = connect(server)
    kvs.set("key", 1)
    server.kill()
    for call in CALLS:
        fails_in_time(kvs, call)
    assert kvs.ping() is False
    server.start()
    for call in CALLS:
        call(kvs)
    assert kvs.ping() is True


def test_a_hung_server_is_an_error(own_memcached: Start) -> None:
    server = own_memcached()
    kvs = connect(server, socket_timeout=0.4)
    kvs.set("key", 1)
    server.pause()
    for call in CALLS[:2] + CALLS[4:5] + CALLS[6:7]:
        fails_in_time(kvs, call)
    assert kvs.ping() is False
    server.resume()
    kvs.set("key", 2)
    assert kvs.get("key") == 2


def test_a_default_time_out(own_memcached: Start) -> None:
    server = own_memcached()
    kvs = connect(server)
    kvs.set("key", 1)
    server.pause()
    fails_in_time(kvs, CALLS[0])
    fails_in_time(kvs, CALLS[4])


def test_no_connection_before_the_first_call() -> None:
    kvs = connect("127.0.0.1:1")
    with pytest.raises(KVSUnavailable, match=r"127\.0\.0\.1:1 takes no connection"):
        kvs.get("key")


@pytest.mark.parametrize("call", CALLS)
def test_a_restart_between_two_calls_goes_unnoticed(own_memcached: Start, call: Any) -> None:
    """A connection that died while idle is not the caller's business; a count runs once."""
    server = own_memcached()
    kvs = connect(server)
    kvs.set("other", 1)
    server.restart()
    call(kvs)


@contextlib.contextmanager
def dying() -> Iterator[tuple[str, list[bytes]]]:
    """Answer the first command of each connection as stored, and close it upon the second."""
    received: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = listener.accept()[0]
                received.append(connection.recv(65536))
                connection.sendall(b"HD\r\n")
                received.append(connection.recv(65536))
                connection.close()

    threading.Thread(target=serve, daemon=True).start()
    with listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}", received


def test_only_what_may_run_twice_is_repeated() -> None:
    """The server may have done what it was asked before it died."""
    for call, sent in {
        lambda kvs: kvs.set("key", 1): 3,
        lambda kvs: kvs.set_many({"key": 1}): 3,
        lambda kvs: kvs.add("key", 1): 2,
        lambda kvs: kvs.incr("key"): 2,
        lambda kvs: kvs.raw_swap("key", Stored(b"", 1), "1", 5): 2,
        lambda kvs: kvs.raw_swap_many([SwapRequest("key", Stored(b"", 1), "1", 5)]): 2,
        lambda kvs: kvs.raw_swap("key", Stored(b"", 1), None, 5): 2,
    }.items():
        with dying() as (url, received):
            kvs = connect(url)
            kvs.set("key", 0)
            with contextlib.nullcontext() if sent == 3 else pytest.raises(KVSUnavailable):
                call(kvs)
            assert len(received) == sent
            kvs.close()


class BrokenOff(BaseException):
    """As ``gevent.Timeout`` and a worker's time-out are, no ``Exception``."""


def break_off(*_: object) -> None:
    raise BrokenOff


@pytest.fixture
def alarm() -> Iterator[Callable[[float], None]]:
    before = signal.signal(signal.SIGALRM, break_off)
    yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_a_call_broken_off_leaves_no_reply(own_memcached: Start, alarm: Any) -> None:
    server = own_memcached()
    kvs = connect(server, socket_timeout=20)
    kvs.set_many({"first": "first's", "second": "second's"})
    for call in (
        lambda: kvs.get("first"),
        lambda: kvs.get_many(["first", "second"]),
        lambda: kvs.raw_load("first", renew=60),
        lambda: kvs.incr("counter"),
    ):
        server.pause()
        alarm(0.1)
        with pytest.raises(BrokenOff):
            call()
        server.resume()
        assert kvs.get("second") == "second's"
        assert kvs.get_many(["second"]) == {"second": "second's"}
        assert kvs.get("missing") is None


def test_a_time_out_leaves_no_reply(own_memcached: Start) -> None:
    server = own_memcached()
    kvs = connect(server, socket_timeout=0.1)
    kvs.set_many({"first": "first's", "second": "second's"})
    server.pause()
    with pytest.raises(KVSUnavailable, match=r"within 0\.1 s"):
        kvs.get("first")
    server.resume()
    wait_until(kvs.ping, "the server's return", 5)
    assert kvs.get("second") == "second's"
    assert kvs.get("missing") is None


def test_threads_never_get_each_others_values(kvs: KVS) -> None:
    keys = [f"key{n}" for n in range(8)]
    kvs.set_many({key: key for key in keys})
    wrong: list[Any] = []

    def read(key: str) -> None:
        for _ in range(200):
            wrong.extend(value for value in [kvs.get(key)] if value != key)

    threads = [threading.Thread(target=read, args=(key,)) for key in keys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_all_connections_in_use(own_memcached: Start) -> None:
    server = own_memcached()
    kvs = connect(server, max_connections=1, socket_timeout=2)
    kvs.set("key", 1)
    server.pause()
    errors: list[str] = []

    def read() -> None:
        try:
            kvs.get("key")
        except KVSUnavailable as error:
            errors.append(str(error))

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(errors) == 2, "two refusals", 2)
    server.resume()
    for thread in threads:
        thread.join()
    assert errors == ["all 1 connections are in use; none came free in 0.5 s"] * 2
    assert kvs.get("key") == 1


# -- replies that no memcached should send -----------------------------------------------------


@contextlib.contextmanager
def answering(*replies: bytes) -> Iterator[str]:
    """Listen, and answer each thing received with the next of the replies."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            for reply in replies:
                connection = listener.accept()[0]
                connection.recv(65536)
                connection.sendall(reply)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    thread.join(10)


@pytest.mark.parametrize(
    ("reply", "error", "message"),
    [
        (b"ERROR\r\n", KVSError, "1.6 or newer"),
        (b"CLIENT_ERROR unauthenticated\r\n", KVSUnavailable, "unauthenticated"),
        (b"ERROR Too many open connections\r\n", KVSUnavailable, "Too many"),
        (b"SERVER_ERROR out of memory storing object\r\n", KVSUnavailable, "out of memory"),
        (b"SERVER_ERROR something else\r\n", KVSError, "something else"),
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


# -- kvs_kwargs --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "servers",
    [[], "127.0.0.1:11211", None, [["127.0.0.1:11211"]], [7], [["127.0.0.1:11211", 0]], {"a": 1}],
)
def test_servers_of_another_form(servers: Any) -> None:
    with pytest.raises(ValueError, match=r'servers: .*"127\.0\.0\.1:11211"'):
        KVS("memcache", {"servers": servers})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("socket_timeout", 0),
        ("socket_timeout", None),
        ("socket_timeout", "1"),
        ("socket_connect_timeout", -1),
        ("dead_retry", -1),
        ("max_connections", 0),
        ("rehash", "no"),
        ("server_max_value_length", "1000"),
        ("server_max_value_length", -1),
        ("key_encoder", "utf-8"),
    ],
)
def test_options_out_of_range(option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=option):
        connect("127.0.0.1:11211", **{option: value})


def test_unknown_options_are_refused() -> None:
    with pytest.raises(TypeError, match="sever"):
        connect("127.0.0.1:11211", sever=1)
    with pytest.raises(ValueError, match="servers: expected"):
        KVS("memcache", {})
    with pytest.raises(ValueError, match="parse"):
        connect("http://127.0.0.1:11211/")
    with pytest.raises(ValueError, match="found port 99999 of 127"):
        connect("127.0.0.1:99999")


def test_a_unix_socket(own_memcached: Start) -> None:
    kvs = connect(own_memcached(unix=True))
    kvs.set("key", 1)
    assert kvs.get("key") == 1


def test_ipv6(own_memcached: Start) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    server = own_memcached("-l", "::1")
    kvs = connect(f"inet6:[::1]:{server.port}")
    kvs.set("key", 1)
    assert kvs.get("key") == 1


def test_dead_retry_spares_a_server_that_failed(own_memcached: Start) -> None:
    server = own_memcached()
    kvs = connect(server, dead_retry=60)
    server.kill()
    with pytest.raises(KVSUnavailable, match="refused"):
        kvs.get("key")
    server.start()
    with pytest.raises(KVSUnavailable, match="a moment ago"):
        kvs.get("key")

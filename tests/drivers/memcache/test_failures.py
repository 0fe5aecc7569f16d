"""A server that is unavailable."""

from __future__ import annotations

import contextlib
import socketserver
import threading
from typing import Any, ClassVar

import pytest

from pyramid_kvs.drivers.memcache.items import Token
from pyramid_kvs.exceptions import KVSUnavailable
from pyramid_kvs.kvs import KVS, Stored, SwapRequest
from tests.servers import wait_until

from .helpers import CALLS, Interrupted, Start, connect, dying, fails_in_time


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
    kvs = connect(server, socket_timeout=0.4, breaker=0)
    kvs.set("key", 1)
    server.pause()
    for call in CALLS[:2] + CALLS[4:5] + CALLS[6:7]:
        fails_in_time(kvs, call)
    assert kvs.ping() is False
    server.resume()
    kvs.set("later", 2)  # the server still runs the commands for the key
    assert kvs.get("later") == 2


def test_the_default_timeout(own_memcached: Start) -> None:
    server = own_memcached()
    kvs = connect(server, breaker=0)
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
    """No call fails because its connection died while idle, and a count runs once."""
    server = own_memcached()
    kvs = connect(server)
    kvs.set("other", 1)
    server.restart()
    call(kvs)


def test_only_repeatable_commands_are_repeated() -> None:
    """The server may have run the command before it died."""
    for call, sent in {
        lambda kvs: kvs.set("key", 1): 3,
        lambda kvs: kvs.set_many({"key": 1}): 3,
        lambda kvs: kvs.add("key", 1): 2,
        lambda kvs: kvs.incr("key"): 2,
        lambda kvs: kvs.raw_swap("key", Stored(b"", Token(b"", 1)), "1", 5): 2,
        lambda kvs: kvs.raw_swap_many([SwapRequest("key", Stored(b"", Token(b"", 1)), "1", 5)]): 2,
        lambda kvs: kvs.raw_swap("key", Stored(b"", Token(b"", 1)), None, 5): 2,
    }.items():
        with dying() as (url, received):
            kvs = connect(url)
            kvs.set("key", 0)
            with contextlib.nullcontext() if sent == 3 else pytest.raises(KVSUnavailable):
                call(kvs)
            assert len(received) == sent
            kvs.close()


def test_little_time_after_a_sign_of_life() -> None:
    """A timeout then says nothing about the server, which has just answered."""

    class Forgotten(socketserver.BaseRequestHandler):
        """Answers whether it lives, and the first command of all."""

        replies: ClassVar = [b"EN\r\n"]

        def handle(self) -> None:
            while command := self.request.recv(4096):
                if command == b"mn\r\n":
                    self.request.sendall(b"MN\r\n")
                elif self.replies:
                    self.request.sendall(self.replies.pop())

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Forgotten) as listener:
        threading.Thread(target=listener.serve_forever, args=(0.01,)).start()
        place = f"127.0.0.1:{listener.server_address[1]}"
        kvs = connect(place, socket_connect_timeout=0.1, socket_timeout=0.4)
        assert kvs.get("key") is None
        (server,) = kvs._servers  # type: ignore[attr-defined]
        pool = server.pool
        connection = pool.take()
        pool.give(connection)
        connection.used_at -= 2
        with pytest.raises(KVSUnavailable, match="did not answer"):
            kvs.get("key")
        assert not server._breaker.is_open
        kvs.close()
        listener.shutdown()


def test_an_interrupted_call_leaves_no_reply(own_memcached: Start, alarm: Any) -> None:
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
        with pytest.raises(Interrupted):
            call()
        server.resume()
        assert kvs.get("second") == "second's"
        assert kvs.get_many(["second"]) == {"second": "second's"}
        assert kvs.get("missing") is None


def test_a_timeout_leaves_no_reply(own_memcached: Start) -> None:
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

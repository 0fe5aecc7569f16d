"""Each call ends in time, however slowly the server, the network or the resolver answers."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from pyramid_kvs.exceptions import KVSUnavailable
from pyramid_kvs.kvs import KVS
from tests.outages.proxies import Proxy, dead_port, mute_port
from tests.outages.stores import CALLS, SLACK, Store, at_once, outcome, seconds
from tests.servers import LOOPBACK, RedisServer, free_port

#: What consists of several calls: ``update`` runs a function between them, and ``ping`` asks for
#: all that the features need.
STEPS = {"update": 2, "ping": 6}

NAME = "store.test"
getaddrinfo = socket.getaddrinfo


def late_calls(drivers: list[KVS], deadline: float) -> dict[str, float]:
    """Return the calls that do not end in time, and their seconds.

    :param drivers: one for each call, so that none waits for another's connection.
    """

    def run(number: int) -> float:
        call = list(CALLS.values())[number]
        return seconds(lambda: call(drivers[number]))

    took = dict(zip(CALLS, at_once(len(CALLS), run), strict=True))
    return {
        name: wait for name, wait in took.items() if wait > deadline * STEPS.get(name, 1) + SLACK
    }


def drivers_of(make: Callable[[], KVS], *, connected: bool = False) -> list[KVS]:
    """Return a driver for each call."""
    drivers = [make() for _ in CALLS]
    if connected:
        at_once(len(drivers), lambda number: drivers[number].get("key"))
    return drivers


def slow_down(proxy: Proxy, **attributes: float) -> None:
    for name, value in attributes.items():
        setattr(proxy, name, value)


# -- servers that answer slowly --------------------------------------------------------------


def test_a_server_that_trickles(frail: Store, proxy: Proxy) -> None:
    """Each byte comes in time, but all of them together do not."""
    drivers = drivers_of(lambda: frail.driver(proxy.port), connected=True)
    for driver in drivers:
        driver.set("key", "x" * 200)
    slow_down(proxy, trickle=0.1)
    assert late_calls(drivers, frail.deadline) == {}
    assert isinstance(outcome(lambda: drivers[0].get("key")), KVSUnavailable)


def test_a_reply_that_trickles_in_time_is_read(frail: Store, proxy: Proxy) -> None:
    driver = frail.driver(proxy.port)
    driver.set("key", "x" * 20)
    slow_down(proxy, trickle=0.003)
    assert driver.get("key") == "x" * 20


def test_every_step_is_slow(frail: Store, proxy: Proxy) -> None:
    """Each step is quicker than its timeout; a call may need several, and a new connection too."""
    slow_down(proxy, delay=frail.deadline * 0.4)
    drivers = drivers_of(lambda: frail.driver(proxy.port))
    assert late_calls(drivers, frail.deadline) == {}


def test_every_step_is_slow_on_open_connections(frail: Store, proxy: Proxy) -> None:
    drivers = drivers_of(lambda: frail.driver(proxy.port), connected=True)
    slow_down(proxy, delay=frail.deadline * 0.4)
    assert late_calls(drivers, frail.deadline) == {}


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_slow_handshake_of_redis(protocol: int, own_redis: Callable[..., RedisServer]) -> None:
    """With password, name, database and protocol it has several steps."""
    server = own_redis(requirepass="s3cret")
    with Proxy(server.port) as proxy:
        kwargs = {
            "url": f"redis://:s3cret@{LOOPBACK}:{proxy.port}/3",
            "client_name": "slow",
            "protocol": protocol,
        }
        assert KVS("redis", kwargs, "slow::").ping()
        slow_down(proxy, delay=0.4)
        assert late_calls(drivers_of(lambda: KVS("redis", kwargs, "slow::")), 1) == {}


def test_timeouts_of_the_setting(own_redis: Callable[..., RedisServer]) -> None:
    """The deadline is the sum of the two timeouts."""
    server = own_redis()
    with Proxy(server.port) as proxy:
        kwargs = {"host": LOOPBACK, "port": proxy.port, "breaker": 0}
        short = {**kwargs, "socket_timeout": 0.1, "socket_connect_timeout": 0.1}
        long = {**kwargs, "socket_timeout": 1.5, "socket_connect_timeout": 1.5}
        slow_down(proxy, delay=0.6)
        assert seconds(lambda: KVS("redis", short, "slow::").get("key")) < 0.2 + SLACK
        assert KVS("redis", long, "slow::").get("key") is None


# -- servers that do not answer --------------------------------------------------------------


@pytest.mark.parametrize("port", [mute_port, dead_port])
def test_a_black_hole(port: Callable[[], Any], frail: Store) -> None:
    """The server accepts and never answers, or not even the kernel does."""
    with port() as number:
        assert late_calls(drivers_of(lambda: frail.driver(number)), frail.deadline) == {}


def test_a_server_that_falls_silent(frail: Store) -> None:
    drivers = drivers_of(frail.driver, connected=True)
    frail.server.pause()
    assert late_calls(drivers, frail.deadline) == {}


# -- names -----------------------------------------------------------------------------------


def name_means(addresses: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a name have these addresses, all on the loopback interface."""

    def resolve(host: Any, port: Any, *args: Any, **kwargs: Any) -> list[Any]:
        if host not in (NAME, NAME.encode()):
            return getaddrinfo(host, port, *args, **kwargs)
        found = [getaddrinfo(address, port, type=socket.SOCK_STREAM) for address in addresses]
        return [entry for entries in found for entry in entries]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


def test_four_dead_addresses(frail: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    number = free_port()
    addresses = [f"127.0.0.{last}" for last in range(2, 6)]
    name_means(addresses, monkeypatch)
    with ExitStack() as stack:
        for address in addresses:
            stack.enter_context(dead_port(address, number))
        drivers = drivers_of(lambda: frail.driver(number, NAME))
        assert late_calls(drivers, frail.deadline) == {}


def test_a_living_address_after_those_that_refuse(
    frail: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    name_means(["127.0.0.2", "127.0.0.3", LOOPBACK], monkeypatch)
    driver = frail.driver(host=NAME)
    driver.set("key", "value")
    assert driver.get("key") == "value"


class Resolver:
    """A resolver that hangs until the test is over."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.waiting = 0
        self.most = 0

    def __call__(self, host: Any, port: Any, *args: Any, **kwargs: Any) -> list[Any]:
        if host in (NAME, NAME.encode()):
            self.waiting += 1
            self.most = max(self.most, self.waiting)
            self.released.wait(30)
            self.waiting -= 1
            host = LOOPBACK
        return getaddrinfo(host, port, *args, **kwargs)


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    resolver = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    yield resolver
    resolver.released.set()


def test_a_resolver_that_hangs_delays_one_caller(frail: Store, resolver: Resolver) -> None:
    driver = frail.driver(host=NAME)
    waits: list[float] = []
    threads = [
        threading.Thread(target=lambda: waits.append(seconds(lambda: driver.get("key"))))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    end = time.monotonic() + frail.deadline + SLACK
    for thread in threads:
        thread.join(max(0, end - time.monotonic()))
    assert sum(thread.is_alive() for thread in threads) <= 1
    assert resolver.most == 1
    # Those who come later do not wait for the resolver either.
    assert seconds(lambda: driver.get("key")) < frail.deadline + SLACK
    resolver.released.set()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize("kvs", ["redis", "memcache"])
def test_nobody_waits_for_a_resolver_longer_than_to_connect(kvs: str, resolver: Resolver) -> None:
    place = {"host": NAME} if kvs == "redis" else {"servers": [f"{NAME}:11211"]}
    timeouts = {"socket_connect_timeout": 0.05, "socket_timeout": 0.05}
    driver = KVS(kvs, {**place, **timeouts, "breaker": 0})
    first = threading.Thread(target=lambda: outcome(lambda: driver.get("key")))
    first.start()
    while not resolver.waiting:
        time.sleep(0.001)
    assert min(seconds(lambda: driver.get("key")) for _ in range(3)) < 0.2
    resolver.released.set()
    first.join()

"""A server that hangs: its connections stay open, and nobody answers."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pyramid.exceptions import ConfigurationError

from pyramid_kvs.cache import ApplicationCache
from pyramid_kvs.exceptions import KVSUnavailable
from pyramid_kvs.kvs import KVS
from tests.outages.apps import build
from tests.outages.stores import SLACK, Store, at_once, outcome, seconds, served, until
from tests.servers import MemcachedServer, RedisServer


@pytest.mark.parametrize("idle", [None, 1.2])
def test_a_page_waits_once(idle: float | None, frail: Store) -> None:
    """With three look-ups, on a new and on an idle connection."""
    app = build(cache=frail.options())
    if idle is not None:
        assert app.get("/").text == "0 1 2"
        time.sleep(idle)
    frail.server.pause()
    first = seconds(lambda: app.get("/"))
    assert first < frail.silence + SLACK
    end = time.monotonic() + 1.5
    later = []
    while time.monotonic() < end:
        later.append(seconds(lambda: app.get("/")))
        time.sleep(0.02)
    assert statistics.median(later) < 0.1 * first
    # Nobody waits but the visitors who probe.
    assert sum(page > 0.15 for page in later) <= 2
    assert max(later) < frail.silence + SLACK


def test_all_features_wait_once(frail: Store) -> None:
    """The settings of an application share what one of them found out about a server."""
    options = frail.options()
    app = build(cache=options, session=options, ratelimit={**options, "limit": 1000, "window": 60})
    app.get("/")
    app.get("/visited")
    frail.server.pause()
    took = seconds(lambda: app.get("/"))  # the limit and the cache
    took += seconds(lambda: app.get("/visited", status=503))  # the limit and the session
    assert took < frail.silence + SLACK


def test_another_database_of_the_same_server(own_redis: Callable[..., RedisServer]) -> None:
    """A URL, a host and a port, and two databases: it is one server that hangs."""
    server = own_redis()
    address = {"host": server.host, "port": server.port}
    app = build(
        cache={"kvs": "redis", "kvs_kwargs": {"url": f"redis://{server.host}:{server.port}/1"}},
        session={"kvs": "redis", "kvs_kwargs": address},
    )
    app.get("/")
    app.get("/visited")
    server.pause()
    assert seconds(lambda: app.get("/")) > 0.3
    assert seconds(lambda: app.get("/visited", status=503)) < 0.3


def test_two_applications_share_nothing(own_redis: Callable[..., RedisServer]) -> None:
    server = own_redis()
    options = {"kvs": "redis", "kvs_kwargs": {"host": server.host, "port": server.port}}
    first, second = build(cache=options), build(cache=options)
    server.pause()
    first.get("/")
    server.resume()
    assert server.command("PING")
    second.get("/")
    assert server.command("DBSIZE") == 3


def test_threads_wait_one_timeout_each(frail: Store) -> None:
    driver = frail.driver()
    at_once(8, lambda _: driver.get("key"))
    frail.server.pause()

    def ask(_: int) -> float:
        return sum(seconds(lambda: driver.get("key")) for _ in range(5))

    assert max(at_once(8, ask)) < frail.silence + SLACK


def test_calls_work_soon_after_the_return(frail: Store) -> None:
    driver = frail.driver()
    driver.set("key", "value")
    frail.server.pause()
    end = time.monotonic() + (2 if frail.deadline < 2 else 4)
    while time.monotonic() < end:
        assert isinstance(outcome(lambda: driver.get("key")), KVSUnavailable)
        time.sleep(0.02)
    frail.server.resume()
    assert until(lambda: served(driver), 5) < 1.5 + SLACK
    assert driver.get("key") == "value"


@pytest.fixture
def memcached_servers(
    own_memcached: Callable[..., MemcachedServer],
) -> Iterator[list[MemcachedServer]]:
    servers = [own_memcached() for _ in range(3)]
    yield servers
    for server in servers:
        server.resume()


def test_only_the_hung_one_of_several_memcached_servers(
    memcached_servers: list[MemcachedServer],
) -> None:
    driver = KVS("memcache", {"servers": [server.url for server in memcached_servers]}, "many::")
    keys = [f"key{number}" for number in range(60)]
    for key in keys:
        driver.set(key, key)
    hung = memcached_servers[0]
    hung.pause()
    first = [key for key in keys if isinstance(outcome(lambda key=key: driver.get(key)), str)]
    assert 20 < len(first) < 60
    began = time.monotonic()
    assert [driver.get(key) for key in first] == first
    assert driver.get_many(first) == {key: key for key in first}
    assert time.monotonic() - began < 0.5  # the timeout
    hung.resume()
    everything = {key: key for key in keys}
    assert until(lambda: outcome(lambda: driver.get_many(keys)) == everything, 5) < 1.5 + SLACK


def test_nothing_is_written_that_could_not_be_read(frail: Store) -> None:
    """The value is computed from what may be old by now: the next caller stores a new one."""
    driver = frail.driver(breaker=0)
    driver.get("key")
    cache = ApplicationCache(driver)
    frail.server.pause()

    def create() -> str:
        frail.server.resume()
        assert until(lambda: served(driver), 5) < 5
        return "value"

    assert cache.get_or_create("key", create) == "value"
    assert driver.get("key") is None


def test_a_breaker_of_zero_asks_each_time(frail: Store) -> None:
    driver = frail.driver(breaker=0)
    driver.get("key")
    frail.server.pause()
    waits = [seconds(lambda: driver.get("key")) for _ in range(2)]
    assert min(waits) > 0.3
    assert max(waits) < frail.deadline + SLACK
    frail.server.resume()
    assert frail.server.is_ready()
    assert driver.get("key") is None


def test_the_breaker_opens_for_as_long_as_it_says(frail: Store) -> None:
    driver = frail.driver(breaker=30)
    driver.get("key")
    frail.server.pause()
    seconds(lambda: driver.get("key"))
    frail.server.resume()
    assert frail.server.is_ready()
    time.sleep(1.2)
    assert isinstance(outcome(lambda: driver.get("key")), KVSUnavailable)


@pytest.mark.parametrize("value", [-1, "1", True, None, float("nan"), 3601])
def test_a_breaker_that_is_not_a_number_of_seconds(value: Any, frail: Store) -> None:
    with pytest.raises(ConfigurationError, match=r"kvs\.cache: .*breaker.* number of seconds"):
        build(cache=frail.options(breaker=value))

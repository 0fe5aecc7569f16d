"""Idle connections that a firewall forgot: what is sent on them is lost, and nobody says so."""

from __future__ import annotations

import time
from collections.abc import Callable

from pyramid_kvs.exceptions import KVSUnavailable
from pyramid_kvs.kvs import KVS
from tests.outages.proxies import Proxy
from tests.outages.stores import SLACK, Store, at_once, outcome, seconds, served, until
from tests.servers import RedisServer

IDLE = 12

#: Options with which a call on a busy machine does not end too early.
_LONGER = {"socket_timeout": 1.5, "socket_connect_timeout": 1.5}
PATIENT: dict[str, dict[str, float]] = {
    "redis": _LONGER,
    "memcache": _LONGER,
    "postgresql": {"statement_timeout": 3},
}


def open_idle_connections(driver: KVS, proxy: Proxy) -> None:
    """Leave twelve connections that have been idle for longer than a second."""
    proxy.delay = 0.15
    at_once(IDLE, lambda number: driver.set(f"key{number}", number))
    proxy.delay = 0
    assert proxy.connections >= IDLE
    time.sleep(1.2)


def failures(call: Callable[[], object]) -> int:
    """Return how many of as many calls as there were idle connections failed, and then some."""
    results = [outcome(call) for _ in range(IDLE + 8)]
    assert all(isinstance(r, KVSUnavailable) or not isinstance(r, Exception) for r in results)
    return sum(isinstance(result, KVSUnavailable) for result in results)


def test_at_most_one_read_fails(frail: Store, proxy: Proxy) -> None:
    """That call keeps its deadline. The breaker stays closed, and nobody else waits."""
    driver = frail.driver(proxy.port)
    open_idle_connections(driver, proxy)
    proxy.forget()
    assert seconds(lambda: driver.get("key1")) < frail.deadline + SLACK
    assert failures(lambda: driver.get("key1")) == 0
    assert all(seconds(lambda: driver.get("key1")) < 0.5 for _ in range(5))
    assert driver.get("key1") == 1


def test_at_most_one_count_fails(frail: Store, proxy: Proxy) -> None:
    """A counter is never sent again."""
    driver = frail.driver(proxy.port)
    open_idle_connections(driver, proxy)
    proxy.forget()
    failed = failures(lambda: driver.incr("count"))
    assert failed <= 1
    assert driver.incr("count") == IDLE + 8 - failed + 1


def test_a_connection_in_use_is_not_as_old(frail: Store, proxy: Proxy) -> None:
    """Connections that were used a moment ago stay open, also on a busy machine."""
    driver = frail.driver(proxy.port, **PATIENT[frail.kvs])
    driver.set("key", 1)
    time.sleep(1.2)
    proxy.forget()
    assert until(lambda: served(driver), 20) < 20
    opened = proxy.connections
    assert [driver.get("key") for _ in range(5)] == [1] * 5
    assert proxy.connections == opened


def test_none_fails_with_a_health_check(own_redis: Callable[..., RedisServer]) -> None:
    server = own_redis()
    with Proxy(server.port) as proxy:
        kwargs = {"host": server.host, "port": proxy.port, "health_check_interval": 1}
        driver = KVS("redis", kwargs, "healthy::")
        for call in (lambda: driver.get("key1"), lambda: driver.incr("count")):
            open_idle_connections(driver, proxy)
            proxy.forget()
            assert failures(call) == 0

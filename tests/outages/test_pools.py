"""More calls than connections: they wait for each other, and only our exceptions leave a pool."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import redis

from pyramid_kvs.exceptions import KVSUnavailable
from pyramid_kvs.kvs import KVS
from tests.outages.proxies import Proxy
from tests.outages.stores import SLACK, Store, at_once
from tests.servers import PATIENCE, RedisServer


@contextmanager
def a_busy_connection(driver: KVS, proxy: Proxy, delay: float) -> Iterator[None]:
    """Keep the only connection of a driver busy with a call that takes as long as ``delay``."""
    driver.set("busy", 1)
    proxy.delay = delay
    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(driver.get, "busy")
        assert proxy.has_delayed.wait(PATIENCE)
        proxy.delay = 0
        yield
        assert busy.result() == 1


def patient(frail: Store) -> dict[str, float]:
    """Return the option that lets a driver wait longer for an answer than for a connection."""
    return {"statement_timeout" if frail.kvs == "postgresql" else "socket_timeout": 2}


def test_a_call_waits_for_a_connection(frail: Store, proxy: Proxy) -> None:
    driver = frail.pooled(1, proxy.port)
    with a_busy_connection(driver, proxy, 0.35):
        assert driver.get("busy") == 1
    assert proxy.connections == 1


def test_a_call_waits_for_as_long_as_the_setting_says(frail: Store, proxy: Proxy) -> None:
    driver = frail.pooled(1, proxy.port, pool_timeout=0.1, **patient(frail))
    with a_busy_connection(driver, proxy, 0.8):
        began = time.monotonic()
        with pytest.raises(KVSUnavailable):
            driver.get("busy")
        assert 0.08 < time.monotonic() - began < 0.45
    # The server did answer: the pool was too small, and nobody is refused for it.
    assert driver.get("busy") == 1


def test_half_a_second_is_the_default(frail: Store, proxy: Proxy) -> None:
    driver = frail.pooled(1, proxy.port, **patient(frail))
    with a_busy_connection(driver, proxy, 1.3):
        began = time.monotonic()
        with pytest.raises(KVSUnavailable):
            driver.get("busy")
        assert 0.45 < time.monotonic() - began < 0.5 + SLACK


def test_many_callers_of_few_connections(frail: Store, proxy: Proxy) -> None:
    """Forty callers of two connections, each of which waits for its turn."""
    driver = frail.pooled(2, proxy.port, pool_timeout=10)
    assert sorted(at_once(40, lambda _: driver.incr("count"))) == list(range(1, 41))
    assert proxy.connections <= 2


def test_the_pool_of_redis_py_keeps_its_own_timeout(redis_server: RedisServer) -> None:
    with Proxy(redis_server.port) as proxy:
        connections = redis.BlockingConnectionPool(
            host=redis_server.host, port=proxy.port, max_connections=1, timeout=0.1,
            socket_timeout=2, socket_connect_timeout=2,
        )  # fmt: skip
        driver = KVS("redis", {"connection_pool": connections}, "blocking::")
        with a_busy_connection(driver, proxy, 0.8):
            began = time.monotonic()
            with pytest.raises(KVSUnavailable):
                driver.get("busy")
            assert time.monotonic() - began < 0.45


@pytest.mark.parametrize("size", [1, 3])
def test_no_other_exception_leaves_a_pool(size: int, frail: Store) -> None:
    """Callers, interrupted connections and closed pools at the same time."""
    driver = frail.pooled(size, pool_timeout=0.05)
    stop = threading.Event()
    errors: list[BaseException] = []

    def call(action: Callable[[], object]) -> None:
        while not stop.is_set():
            try:
                action()
            except KVSUnavailable:
                pass
            except BaseException as error:
                errors.append(error)

    actions = [lambda: driver.incr("count")] * 6 + [lambda: driver.get("count")] * 6
    threads = [threading.Thread(target=call, args=(action,)) for action in [*actions, driver.close]]
    for thread in threads:
        thread.start()
    time.sleep(0.4)
    stop.set()
    for thread in threads:
        thread.join(20)
    assert errors == []
    assert driver.incr("count") > 1

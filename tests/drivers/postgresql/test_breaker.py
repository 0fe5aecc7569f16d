"""The circuit breaker of a PostgreSQL server, and connections that a firewall forgot."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from pyramid_kvs.exceptions import KVSUnavailable
from pyramid_kvs.kvs import Breakers
from tests.drivers.postgresql.helpers import Make, PostgresqlKVS, locked
from tests.servers import LOOPBACK, PostgresServer, wait_until

#: A connection that was idle for so long may be one that a firewall forgot.
LONG = 1.1


def seconds(call: Callable[[], Any]) -> float:
    """Return how long a call takes that raises KVSUnavailable."""
    started = time.monotonic()
    with pytest.raises(KVSUnavailable):
        call()
    return time.monotonic() - started


def test_a_hung_server_is_left_alone(
    make: Make, frail: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Drivers that name the same server share what they know of it."""
    breakers = Breakers()
    driver, other = make(frail), make(frail, "other::", table="kvs", pool_size=1)
    for each in (driver, other):
        each.share_breakers(breakers)
        each.set("key", 1)
    frail.pause()
    assert seconds(lambda: driver.get("key")) < 3
    assert seconds(lambda: [driver.get("key") for _ in range(50)]) < 1
    with pytest.raises(KVSUnavailable, match=f"^PostgreSQL at {LOOPBACK}:{frail.port} did not"):
        other.get("key")
    assert [breaker.server for breaker in breakers.all()] == [
        f"PostgreSQL at {LOOPBACK}:{frail.port}"
    ]
    frail.resume()
    wait_until(other.ping, "the end of the breaker", 1.5)
    assert driver.get("key") == 1
    assert caplog.text.count(" is back; it was unavailable for ") == 1


def test_a_server_that_hangs_on_an_idle_connection(make: Make, frail: PostgresServer) -> None:
    """A new connection shows that it hangs. The call keeps its deadline."""
    driver = make(frail, statement_timeout=0.3)
    driver.set("key", 1)
    time.sleep(LONG)
    frail.pause()
    assert seconds(lambda: driver.get("key")) < 1
    assert seconds(lambda: driver.get("key")) < 0.3  # the timeout
    frail.resume()
    wait_until(driver.ping, "the end of the breaker", 1.5)


def test_without_a_breaker_each_call_asks_the_server(make: Make, frail: PostgresServer) -> None:
    driver = make(frail, statement_timeout=0.3, breaker=0)
    driver.set("key", 1)
    frail.pause()
    assert seconds(lambda: driver.get("key")) > 0.4
    assert seconds(lambda: driver.get("key")) > 0.4
    frail.resume()
    assert driver.get("key") == 1


@pytest.mark.parametrize("setting", ["statement_timeout", "lock_timeout"])
def test_a_lock_does_not_open_the_breaker(
    setting: str, store: PostgresqlKVS, make: Make, postgres_server: PostgresServer
) -> None:
    """The server answers, and other keys are not locked."""
    url = f"{postgres_server.url}?options=-c%20{setting}%3D100"
    driver = make(postgres_server, url=url)
    driver.set("key", 1)
    with locked(postgres_server):
        assert seconds(lambda: driver.set("key", 2)) < 1
        assert driver.get("key") == 1


def test_the_name_of_the_server(make: Make, postgres_server: PostgresServer) -> None:
    """All hosts of a URL are one server, and nothing else of the URL counts."""
    urls = {
        "postgresql://user:s3cret@a,b:1234/db?sslmode=require": "a:5432,b:1234",
        "postgresql://a:5432,b:1234/other": "a:5432,b:1234",
        "postgresql:///db?host=/run/postgresql": "/run/postgresql:5432",
        "postgresql://[::1]:5433/db": "::1:5433",
    }
    for url, server in urls.items():
        breakers = Breakers()
        make(postgres_server, url=url).share_breakers(breakers)
        assert [breaker.server for breaker in breakers.all()] == [f"PostgreSQL at {server}"]

"""A service that sentinels watch: who is asked for the primary, and when."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis

from pyramid_kvs.drivers.redis.sentinel.service import Sentinel
from pyramid_kvs.drivers.redis.sentinel.transport import PrimaryTransport
from pyramid_kvs.exceptions import KVSError, KVSNotSupported, KVSUnavailable
from pyramid_kvs.kvs import KVS
from tests.drivers.redis.support import SentinelServer, pool_of, works
from tests.outages.proxies import mute_port
from tests.servers import RedisSentinel, certificate, free_port, wait_until

#: How long the slowest promise takes: a call is over after a second, and a machine may be busy.
SOON = 2.0


@pytest.fixture(scope="module")
def shared() -> Iterator[RedisSentinel]:
    with RedisSentinel() as group:
        yield group


@pytest.fixture
def group(shared: RedisSentinel) -> RedisSentinel:
    """The module's servers, empty. A test may change who is the primary."""
    for server in (*shared.servers, *shared.sentinels):
        server.resume()
    wait_until(shared.is_settled, "agreement of the sentinels")
    shared.primary().clear()
    return shared


def driver_of(group: RedisSentinel, prefix: str = "", **kwargs: Any) -> KVS:
    return KVS("redis", {"url": group.url, **kwargs}, prefix)


def url_of(*places: str) -> str:
    return f"redis+sentinel://{','.join(places)}/main"


def places_of(group: RedisSentinel) -> list[str]:
    return group.places.split(",")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sentinels that were asked for the primary, in this order."""
    found: list[str] = []
    ask = Sentinel.primary_of

    def noted(sentinel: Sentinel, *args: Any) -> Any:
        found.append(sentinel.place)
        return ask(sentinel, *args)

    monkeypatch.setattr(Sentinel, "primary_of", noted)
    return found


# -- asking ----------------------------------------------------------------------------------


def test_all_operations(group: RedisSentinel) -> None:
    assert works(driver_of(group))


@pytest.mark.parametrize("options", [{}, {"protocol": 3}, {"client_name": "web"}])
def test_the_database(group: RedisSentinel, options: dict[str, Any]) -> None:
    driver = KVS("redis", {"url": f"{group.url[:-1]}3", **options})
    driver.set("key", 1)
    assert group.primary().command("INFO", "keyspace")["db3"]["keys"] == 1
    assert KVS("redis", {"url": group.url.removesuffix("/0"), "db": 3}).get("key") == 1


def test_each_new_connection_asks_one_sentinel(group: RedisSentinel, asked: list[str]) -> None:
    driver = driver_of(group)
    driver.get("key")
    assert len(asked) == 1
    group.primary().reset_calls()
    for _ in range(5):
        driver.get("key")
    assert len(asked) == 1
    assert group.primary().calls()["get"] == 5
    driver.close()
    driver.get("key")
    assert len(asked) == 2


def test_many_callers_share_an_answer(group: RedisSentinel, asked: list[str]) -> None:
    """The sentinels are not asked by each thread of a process that lost its connections."""
    driver = driver_of(group, socket_timeout=5)
    lock = driver._transport._service._locks.setdefault(os.getpid(), threading.Lock())
    with ThreadPoolExecutor(8) as threads:
        with lock:
            calls = [threads.submit(driver.get, "key") for _ in range(8)]
            wait_until(lambda: pool_of(driver).counts().in_use == 8, "eight callers")
            time.sleep(0.1)
        assert [call.result() for call in calls] == [None] * 8
    assert 1 <= len(asked) <= 2  # one thread may have come after the first answer


def test_dead_sentinels(group: RedisSentinel) -> None:
    dead = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    driver = KVS("redis", {"url": url_of(*dead, places_of(group)[0])})
    driver.set("key", 1)
    assert driver.get("key") == 1


def test_no_sentinel_at_the_start() -> None:
    """It does not wait for one, and says who was asked."""
    port = free_port()
    driver = KVS("redis", {"url": url_of(f"127.0.0.1:{port}")})
    with pytest.raises(KVSUnavailable, match="no sentinel answers: sentinel at") as raised:
        driver.get("key")
    assert f"127.0.0.1:{port}" in str(raised.value)
    assert driver._transport.breaker.is_troubled
    assert not driver.ping()


def test_the_primary_is_remembered(own_redis_sentinel: Callable[..., RedisSentinel]) -> None:
    """While no sentinel answers, new connections go where the last ones went."""
    group = own_redis_sentinel(sentinels=1)
    driver = driver_of(group)
    driver.set("key", 1)
    group.sentinels[0].kill()
    driver.close()
    assert driver.get("key") == 1


@pytest.mark.parametrize("number", [1, 2])
def test_sentinels_that_hang(group: RedisSentinel, number: int) -> None:
    """The others are asked in time, and the silent ones are left alone."""
    hung = group.sentinels[:number]
    driver = driver_of(group, socket_timeout=2)
    for sentinel in hung:
        sentinel.pause()
    started = time.monotonic()
    driver.set("key", 1)
    assert time.monotonic() - started < 2.5
    breakers = {s.place: s._breaker for s in driver._transport._service._sentinels}
    for sentinel in hung:
        assert breakers[f"{sentinel.host}:{sentinel.port}"].is_troubled


def test_all_sentinels_hang(group: RedisSentinel) -> None:
    driver = driver_of(group)
    for sentinel in group.sentinels:
        sentinel.pause()
    started = time.monotonic()
    with pytest.raises(KVSUnavailable):
        driver.get("key")
    assert time.monotonic() - started < SOON


def test_nobody_waits_while_no_sentinel_answers(group: RedisSentinel) -> None:
    """One caller asks them, and the others fail at once. They do not wait for that caller."""
    driver = driver_of(group, breaker=0)
    for sentinel in group.sentinels:
        sentinel.pause()
    with pytest.raises(KVSUnavailable, match="no sentinel answers"):
        driver.get("key")
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(lambda: driver.get("key"))
        (lock,) = driver._transport._service._locks.values()
        wait_until(lock.locked, "the caller that asks")
        with pytest.raises(KVSUnavailable, match="no sentinel answers"):
            driver.get("key")
        assert not asking.done()
    with pytest.raises(KVSUnavailable):
        asking.result()
    for sentinel in group.sentinels:
        sentinel.resume()
    wait_until(driver.ping, "an answer")
    assert not driver._transport._service._failure


def test_an_old_failure_makes_nobody_fail(group: RedisSentinel) -> None:
    """Two callers come a while after an outage: one asks the sentinels, and the other waits."""
    driver = driver_of(group, breaker=0)
    service = driver._transport._service
    for sentinel in group.sentinels:
        sentinel.pause()
    with pytest.raises(KVSUnavailable, match="no sentinel answers"):
        driver.get("key")
    service._failed_at = time.monotonic() - 60
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(lambda: driver.get("key"))]
        (lock,) = service._locks.values()
        wait_until(lock.locked, "the caller that asks")
        calls.append(pool.submit(lambda: driver.get("key")))
        time.sleep(0.05)
        for sentinel in group.sentinels:
            sentinel.resume()
        assert [call.result() for call in calls] == [None, None]


def test_a_refusal_ends_the_time_without_answers(group: RedisSentinel) -> None:
    driver = KVS("redis", {"url": f"redis+sentinel://{group.places}/mian", "breaker": 0})
    for sentinel in group.sentinels:
        sentinel.pause()
    with pytest.raises(KVSUnavailable, match="no sentinel answers"):
        driver.get("key")
    for sentinel in group.sentinels:
        sentinel.resume()
    with pytest.raises(KVSError, match="unknown service 'mian'"):
        driver.get("key")
    assert not driver._transport._service._failure


def test_all_servers_hang(group: RedisSentinel) -> None:
    """A call that the circuit breaker refuses does not wait for the sentinels each time."""
    driver = driver_of(group)
    driver.get("key")
    for server in (*group.sentinels, *group.servers):
        server.pause()
    for _ in range(3):
        with pytest.raises(KVSUnavailable):
            driver.get("key")
    assert all(sentinel._breaker.is_open for sentinel in driver._transport._service._sentinels)
    for server in (*group.sentinels, *group.servers):
        server.resume()
    wait_until(driver.ping, "an answer")


def test_an_address_where_nobody_answers(group: RedisSentinel) -> None:
    with mute_port() as port:
        driver = KVS("redis", {"url": url_of(f"127.0.0.1:{port}", *places_of(group))})
        assert driver.get("key") is None


def test_a_sentinel_that_names_a_replica(group: RedisSentinel) -> None:
    """Its answer is old. The next one is asked, and is asked first from then on."""
    with SentinelServer(group.replicas()[0]) as stale:
        stale_place = f"{stale.host}:{stale.port}"
        driver = KVS("redis", {"url": url_of(stale_place, *places_of(group))})
        driver.set("key", 1)
        assert group.primary().command("GET", "key") == b"1"
        assert driver._transport._service._sentinels[0].place != stale_place


def test_only_a_sentinel_that_names_a_replica(group: RedisSentinel) -> None:
    with SentinelServer(group.replicas()[0]) as stale:
        driver = KVS("redis", {"url": url_of(f"{stale.host}:{stale.port}")})
        started = time.monotonic()
        with pytest.raises(KVSUnavailable, match="is a replica"):
            driver.get("key")
        assert time.monotonic() - started < SOON


def test_an_unknown_service(group: RedisSentinel) -> None:
    driver = KVS("redis", {"url": f"redis+sentinel://{group.places}/mian"})
    with pytest.raises(KVSError, match=r"unknown service 'mian' \(known: main; did you") as raised:
        driver.get("key")
    assert not isinstance(raised.value, KVSUnavailable)


def test_a_server_that_is_not_a_sentinel(group: RedisSentinel) -> None:
    primary = group.primary()
    driver = KVS("redis", {"url": url_of(f"{primary.host}:{primary.port}")})
    with pytest.raises(KVSNotSupported, match="not a sentinel, whose usual port is 26379"):
        driver.get("key")


def test_words_of_each_version(
    own_redis_sentinel: Callable[..., RedisSentinel], redis_version: str
) -> None:
    group = own_redis_sentinel(version=redis_version, sentinels=1)
    test_all_operations(group)
    test_an_unknown_service(group)
    test_a_server_that_is_not_a_sentinel(group)
    with SentinelServer(group.replicas()[0], redis_version) as stale:
        driver = KVS("redis", {"url": url_of(f"{stale.host}:{stale.port}")})
        with pytest.raises(KVSUnavailable, match="is a replica"):
            driver.get("key")


def test_settings_with_the_same_service_are_one_place(group: RedisSentinel) -> None:
    first, second, third = places_of(group)
    one, other = (
        KVS("redis", {"url": url_of(*order)})
        for order in ([first, second, third], [third, first, second])
    )
    one.get("key")
    assert one.places() == other.places()
    assert KVS("redis", {"url": group.url[:-1] + "1"}).places() != one.places()


# -- users, passwords, TLS --------------------------------------------------------------------


def test_passwords(own_redis_sentinel: Callable[..., RedisSentinel], redis_version: str) -> None:
    passwords = {"requirepass": "s3cret", "sentinel_password": "watch3r"}
    group = own_redis_sentinel(version=redis_version, **passwords)
    driver = driver_of(group, sentinel_kwargs={"password": "watch3r"})
    driver.set("key", 1)
    group.fail_over()
    assert driver.incr("count") == 1
    for kwargs in ({}, {"sentinel_kwargs": {"password": "s3cret"}}):
        with pytest.raises(KVSUnavailable, match="in 'sentinel_kwargs'") as raised:
            driver_of(group, **kwargs).get("key")
        assert "s3cret" not in str(raised.value)
    url = group.url.replace("s3cret", "wr0ng")
    driver = KVS("redis", {"url": url, "sentinel_kwargs": {"password": "watch3r"}})
    with pytest.raises(KVSUnavailable, match="invalid username-password") as raised:
        driver.get("key")
    assert not driver._transport.breaker.is_open  # it was not asked again and again
    assert "wr0ng" not in str(raised.value)


def test_users(own_redis_sentinel: Callable[..., RedisSentinel]) -> None:
    group = own_redis_sentinel()
    for server in group.servers:
        server.command("ACL", "SETUSER", "app", "on", ">s3cret", "~*", "+@all", "-@dangerous")
    for sentinel in group.sentinels:
        rules = ("on", ">watch3r", "-@all", "+hello", "+sentinel|masters")
        sentinel.command("ACL", "SETUSER", "watch", *rules, "+sentinel|get-master-addr-by-name")
    url = group.url.replace("://", "://app:s3cret@")
    kwargs = {"username": "watch", "password": "watch3r"}
    driver = KVS("redis", {"url": url, "sentinel_kwargs": kwargs}, "a::")
    driver.set("key", 1)
    assert driver.get("key") == 1
    assert "app" in {client["user"] for client in group.primary().command("CLIENT LIST")}
    used = [client["user"] for s in group.sentinels for client in s.command("CLIENT LIST")]
    assert used.count("watch") == 1


def test_servers_that_do_not_tell_their_role() -> None:
    """A replica shows what it is when it refuses a change. Then other sentinels are asked.

    On a busy machine, the last attempt of a call may begin just before its end, and get no answer.
    """
    patient = {"socket_timeout": 5, "socket_connect_timeout": 5}
    group = RedisSentinel("--rename-command", "HELLO", "")
    for server in group.servers:
        server._client = redis.Redis(unix_socket_path=server.socket_path, protocol=2)
    replica = group.servers[1]
    with group, SentinelServer(replica) as stale:
        place = f"{stale.host}:{stale.port}"
        driver = KVS("redis", {"url": url_of(place, *places_of(group)), **patient})
        assert driver.get("key") is None
        assert driver.incr("count") == 1
        assert group.primary().command("GET", "count") == b"1"
        replica.reset_calls()
        with pytest.raises(KVSUnavailable, match=r"read only replica|no answer in time"):
            KVS("redis", {"url": url_of(place)}).incr("count")
        refused = str(replica.command("INFO", "errorstats")["errorstat_READONLY"])
        assert int(re.sub(r"\D", "", refused)) > 2  # redis-py 5 does not parse it


def test_tls(own_redis_sentinel: Callable[..., RedisSentinel], tmp_path: Path) -> None:
    """``rediss+sentinel`` uses it for both, with the same certificate authority."""
    group = own_redis_sentinel(tls=certificate(tmp_path), requirepass="s3cret")
    assert group.url.startswith("rediss+sentinel://")
    driver = driver_of(group, ssl_ca_certs=str(tmp_path / "cert.pem"))
    driver.set("key", 1)
    group.fail_over()
    wait_until(group.is_settled, "agreement of the sentinels")
    assert driver.incr("count") == 1
    with pytest.raises(KVSUnavailable, match="certificate"):
        driver_of(group).get("key")
    plain = driver_of(
        group, ssl_ca_certs=str(tmp_path / "cert.pem"), sentinel_kwargs={"ssl": False}
    )
    with pytest.raises(KVSUnavailable):
        plain.get("key")


@pytest.mark.parametrize(
    ("kwargs", "why"),
    [
        ({"sentinel_kwargs": {"pasword": "x"}}, "unknown option 'pasword' .*'password'"),
        ({"sentinel_kwargs": {"db": 1}}, "unknown option 'db'"),
        ({"sentinel_kwargs": {"socket_timeout": "soon"}}, "socket_timeout"),
        ({"sentinel_kwargs": {"ssl": True, "ssl_cert_reqs": "perhaps"}}, "Invalid SSL Cert"),
        ({"sentinel_kwargs": ["password"]}, "sentinel_kwargs: expected an object"),
        ({"url": "redis://h", "sentinel_kwargs": {"password": "x"}}, "no effect without a URL"),
        ({"url": None, "sentinel_kwargs": {"password": "x"}}, "no effect without a URL"),
        ({"ssl": True}, "'ssl': for TLS, the scheme"),
        ({"hots": 1}, "unexpected keyword argument 'hots'"),
        ({"url": "redis+sentinel://h/main?hots=1"}, "unexpected keyword argument 'hots'"),
        ({"url": "redis+sentinel://h/main/1", "db": 1}, "'url' and 'db' exclude each other"),
    ],
)
def test_options_that_are_refused(kwargs: dict[str, Any], why: str) -> None:
    with pytest.raises((TypeError, ValueError), match=why):
        KVS("redis", {"url": "redis+sentinel://h/main", **kwargs})


# -- pools of redis-py ------------------------------------------------------------------------


def client_of(group: RedisSentinel, **kwargs: Any) -> redis.Redis:
    places = [(sentinel.host, sentinel.port) for sentinel in group.sentinels]
    return redis.Sentinel(places, socket_timeout=5).master_for("main", **kwargs)


def test_a_pool_of_redis_py(group: RedisSentinel) -> None:
    """It is held to the deadline too, although redis-py's own would wait for five seconds."""
    kwargs = {"socket_timeout": 0.5, "socket_connect_timeout": 0.5, "protocol": 2}
    driver = KVS("redis", {"connection_pool": client_of(group, **kwargs).connection_pool})
    assert isinstance(driver._transport, PrimaryTransport)
    assert works(driver)
    for sentinel in group.sentinels:
        sentinel.pause()
    driver = KVS("redis", {"connection_pool": client_of(group, **kwargs).connection_pool})
    started = time.monotonic()
    with pytest.raises(KVSUnavailable):
        driver.get("key")
    assert time.monotonic() - started < SOON


def test_a_pool_for_the_replicas(group: RedisSentinel) -> None:
    """It is left as it is."""
    driver_of(group).set("key", 1)
    places = [(sentinel.host, sentinel.port) for sentinel in group.sentinels]
    client = redis.Sentinel(places, socket_timeout=5).slave_for("main", protocol=2)
    driver = KVS("redis", {"connection_pool": client.connection_pool})
    assert not isinstance(driver._transport, PrimaryTransport)
    wait_until(lambda: driver.get("key") == 1, "the copy")
    with pytest.raises(KVSUnavailable, match="read only"):
        driver.set("key", 2)


def test_the_client_of_redis_py(group: RedisSentinel) -> None:
    driver = driver_of(group, decode_responses=True)
    driver.set("key", 1)
    assert driver._client.get("key") == "1"


# -- processes ---------------------------------------------------------------------------------


def test_a_fork(group: RedisSentinel) -> None:
    """A child opens its own connections, also to the sentinels."""
    driver = driver_of(group)
    driver.set("key", 1)
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            group.sentinels[0]._client = None
            assert driver.get("key") == 1
            assert driver._transport._service._sentinels[0]._home == os.getpid()
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert driver.get("key") == 1
    assert pool_of(driver).counts().idle == 1

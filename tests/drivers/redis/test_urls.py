"""What a URL says: one server, a cluster or a service of sentinels."""

from __future__ import annotations

from typing import Any

import pytest

from pyramid_kvs.drivers.redis import urls
from pyramid_kvs.drivers.redis.urls import kind_of, parse_url, place_of
from pyramid_kvs.kvs import KVS
from pyramid_kvs.kvs.names import SCHEMES

#: Passwords with characters that have a meaning in a URL, or are a short form of some that have.
UNREADABLE = [
    *("s3c/r3t", "s3c?r3t", "s3c#r3t", "1/r3t", "1?r3t", "1#r3t"),
    *("s3c[r3t", "s3c]r3t", "s3]c[r3t", "[s3cr3t]", "s3c\u2100r3t", "s3c\uff1ar3t"),
]
PREFIXES = [("redis", False), ("rediss", True), ("valkey", False), ("valkeys", True)]


def test_the_settings_know_the_same_schemes() -> None:
    assert {name for name, driver in SCHEMES.items() if driver == "redis"} == set(urls.SCHEMES)


@pytest.mark.parametrize(("prefix", "tls"), PREFIXES)
def test_one_server(prefix: str, tls: bool) -> None:
    found = parse_url(f"{prefix}://app:p%40ss@h:1/2?socket_timeout=0.2")
    assert found.kind == "single"
    assert found.hosts == [("h", 1)]
    assert (found.service, found.db, found.tls) == ("", 2, tls)
    assert found.options == {"username": "app", "password": "p@ss", "socket_timeout": 0.2}
    plain = "rediss" if tls else "redis"
    assert found.plain == f"{plain}://app:p%40ss@h:1/2?socket_timeout=0.2"


@pytest.mark.parametrize(("prefix", "tls"), PREFIXES)
def test_a_cluster(prefix: str, tls: bool) -> None:
    found = parse_url(
        f"{prefix}+cluster://:s%2C@h1:1,[::1]:2,h3,[fe80::1%25eth0]?health_check_interval=3"
    )
    assert found.kind == "cluster"
    assert found.hosts == [("h1", 1), ("::1", 2), ("h3", 6379), ("fe80::1%eth0", 6379)]
    assert (found.service, found.db, found.tls) == ("", None, tls)
    assert found.options == {"password": "s,", "health_check_interval": 3}


@pytest.mark.parametrize(("prefix", "tls"), PREFIXES)
def test_the_sentinels_of_a_service(prefix: str, tls: bool) -> None:
    found = parse_url(f"{prefix}+sentinel://u:p@h1:1,[::1],h3/my%2Dmain/3?client_name=web")
    assert found.kind == "sentinel"
    assert found.hosts == [("h1", 1), ("::1", 26379), ("h3", 26379)]
    assert (found.service, found.db, found.tls) == ("my-main", 3, tls)
    assert found.options == {"username": "u", "password": "p", "client_name": "web"}


@pytest.mark.parametrize(
    ("url", "db"),
    [
        ("redis://h", None),
        ("redis://h/", None),
        ("redis://h/0", 0),
        ("REDIS://h/1", 1),
        ("redis://h?db=2", 2),
        ("unix:///run/redis.sock?db=3", 3),
        ("unix:///run/redis.sock", None),
        ("redis+cluster://h/0", 0),
        ("redis+sentinel://h/main", None),
        ("redis+sentinel://h/main/", None),
        ("redis+sentinel://h/main?db=5", 5),
        ("redis+sentinel://h/0/6", 6),
    ],
)
def test_the_database(url: str, db: int | None) -> None:
    assert parse_url(url).db == db


def test_the_default_host() -> None:
    assert parse_url("redis://:secret@").hosts == [("localhost", 6379)]
    assert parse_url("unix:///run/redis.sock").hosts == []


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("h:6379", "expected a URL such as 'redis://localhost:6379/0'"),
        ("redis+clutser://h", r"unknown scheme 'redis\+clutser' .*did you mean 'redis.cluster'"),
        ("redis-sentinel://h", "did you mean 'redis.sentinel'"),
        ("valky://h", "did you mean 'valkey'"),
        ("unix+sentinel:///s", "unknown scheme"),
        ("http://h", "known: redis, rediss, valkey"),
        ("redis://h1,h2", r"several hosts: write redis\+cluster://.* or redis\+sentinel://"),
        ("redis://h:0", "the port is 0, expected an integer from 1 to 65535"),
        ("redis+cluster://h1:1,h2:65536", "the port is 65536"),
        ("redis+cluster://h1:1,h2:x", "cannot be read"),
        ("redis+cluster://[h1]", "cannot be read"),
        ("redis+cluster://h1,a..b", "url: expected a host name"),
        ("redis+cluster://", "a host is missing; write redis.cluster://h1:6379,h2:6379$"),
        ("redis+cluster://h1,,h2", "a host is missing"),
        ("redis+cluster://h/1", "the database is 1, but a cluster has database 0 only; write"),
        ("rediss+cluster://h?db=2", "the database is 2, but a cluster has database 0 only"),
        ("redis+sentinel://h", "the name of the service is missing; write redis.sentinel://h1"),
        ("redis+sentinel://h/", "the name of the service is missing"),
        ("redis+sentinel://h/0", "the name of the service is missing"),
        ("redis+sentinel://h//0", "the name of the service is missing"),
        ("redis+sentinel://h/main/x", "the number of the database comes after the service"),
        ("redis+sentinel://h/main/0/1", "the number of the database comes after the service"),
        ("redis+sentinel:///main/0", "a host is missing; write redis.sentinel://"),
        ("unix://", "the path of the socket is missing"),
        ("unix://run/redis.sock", "the path of the socket begins with /; write unix:///path/"),
        ("unix://u:p@run/redis.sock", "the path of the socket begins with /"),
        ("redis://h?socket_timeout=soon", "socket_timeout"),
    ],
)
def test_a_mistake(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_url(url)


def test_two_databases() -> None:
    with pytest.raises(TypeError, match="in the path and in the query"):
        parse_url("redis+sentinel://h/main/1?db=2")


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster", "redis+sentinel", "redis+clutser"])
@pytest.mark.parametrize("password", UNREADABLE)
@pytest.mark.parametrize("end", ["h:1", "h:1/main/0", "h1,h2/main"])
def test_no_piece_of_a_password_is_quoted(scheme: str, password: str, end: str) -> None:
    """A password that is not percent-encoded cuts the URL in two."""
    with pytest.raises(ValueError, match="url: ") as raised:
        parse_url(f"{scheme}://user:{password}@{end}")
    assert "s3c" not in str(raised.value)
    assert "r3t" not in str(raised.value)
    assert raised.value.__cause__ is None


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("valkeys+cluster://h/7", "cluster"),
        ("redis+sentinel://", "sentinel"),
        ("redis://h", "single"),
        ("redis+clutser://h", "single"),
        ("h", "single"),
        (None, "single"),
        (b"redis+cluster://h", "single"),
    ],
)
def test_the_kind_is_known_before_the_url_is_checked(url: Any, kind: str) -> None:
    assert kind_of(url) == kind


def test_the_place_of_an_ipv6_address() -> None:
    assert place_of("::1", 6379) == "[::1]:6379"
    assert place_of("h", "1") == "h:1"


@pytest.mark.parametrize(
    ("kwargs", "why"),
    [
        ({"url": "redis://h/0", "db": 1}, "'url' and 'db' exclude each other"),
        ({"url": "redis://h?socket_timeout=1", "socket_timeout": 2}, "'socket_timeout'"),
        ({"url": "redis://h", "ssl": True}, "'ssl': for TLS, the scheme of the URL has an 's'"),
        ({"url": "redis://h", "ssl_ca_certs": "/ca.pem"}, "'ssl_ca_certs': for TLS"),
    ],
)
def test_options_beside_a_url(kwargs: dict[str, Any], why: str) -> None:
    with pytest.raises(TypeError, match=why):
        KVS("redis", kwargs)


def test_valkey_is_an_alias(redis_server: Any) -> None:
    """Of the driver, and of the scheme."""
    driver = KVS("valkey", {"url": redis_server.url.replace("redis://", "valkey://")}, "v::")
    driver.set("key", 1)
    assert KVS("redis", {"url": redis_server.url}, "v::").get("key") == 1

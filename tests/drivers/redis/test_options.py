"""Arguments that the driver refuses at the start."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from pyramid_kvs.drivers.redis.options import _WITHOUT_EFFECT
from pyramid_kvs.kvs import KVS, named_parameters


@pytest.mark.parametrize(
    "kwargs",
    [
        {"hots": "localhost"},
        {"port": "many"},
        {"port": 0},
        {"port": 65536},
        {"port": 6379.5},
        {"host": 5},
        {"host": "a..b"},
        {"db": -1},
        {"db": "zero"},
        {"socket_timeout": "1"},
        {"socket_timeout": 0},
        {"socket_timeout": float("inf")},
        {"socket_connect_timeout": 86401},
        {"host": "user:s3cret@localhost"},
        {"socket_connect_timeout": True},
        {"retry": 3},
        {"max_connections": "10"},
        {"protocol": 4},
        {"url": "http://localhost"},
        {"url": "localhost:6379"},
        {"url": "redis://localhost:port/0"},
        {"url": "redis://localhost/zero"},
        {"url": "redis://localhost/0/1"},
        {"url": "redis://localhost/0?db=x"},
        {"url": "redis://localhost/0?colour=red"},
        {"url": "redis://localhost", "colour": "red"},
        {"url": 6379},
        {"ssl": True, "ssl_cert_reqs": "perhaps"},
    ],
)
def test_refused_at_construction(kwargs):
    with pytest.raises((TypeError, ValueError)):
        KVS("redis", kwargs)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:s3c/r3t@localhost:6379",
        "redis://:s3c#r3t@localhost",
        "redis://:s3c?r3t@h",
        ["redis://:s3cr3t@localhost"],
    ],
)
def test_refused_url_is_not_quoted(url):
    """A password that is not percent-encoded cuts the URL in two. No part of it is shown."""
    with pytest.raises((TypeError, ValueError), match="url") as raised:
        KVS("redis", {"url": url})
    assert "s3c" not in str(raised.value)
    assert "r3t" not in str(raised.value)
    assert raised.value.__cause__ is None


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("redis://localhost:6379/0", "a URL is the value of 'url'"),
        ("redis://u:s3cret@localhost", "a URL is the value of 'url'"),
        ("u:s3cret@localhost", "'username' and 'password' are options"),
        ("localhost:6379", "'port' is an option"),
        ("[::1]:6379", "'port' is an option"),
    ],
)
def test_a_host_that_is_more_than_a_host(host, why):
    with pytest.raises(ValueError, match=f"host: expected a host name.*{why}") as raised:
        KVS("redis", {"host": host})
    assert "s3cret" not in str(raised.value)
    for good in ("::1", "fe80::1%lo", "localhost"):
        KVS("redis", {"host": good})


@pytest.mark.parametrize(
    ("kwargs", "why"),
    [
        ({"single_connection_client": True}, "'single_connection_client' .*its own pool"),
        ({"url": "redis://h?single_connection_client=1"}, "its own pool"),
        ({"url": "redis://h?breaker=0"}, "url: 'breaker' is not part of it: .* beside 'url'"),
        ({"url": "redis+cluster://h?pool_timeout=1"}, "'pool_timeout' .* beside 'url'"),
        ({"cache": object(), "protocol": 3}, "'cache' .*commands of redis-py"),
        ({"cache_config": object(), "protocol": 3}, "'cache_config' .*commands of redis-py"),
        ({"event_dispatcher": object()}, "pool of redis-py"),
        ({"maint_notifications_config": object()}, "pool of redis-py"),
        ({"oss_cluster_maint_notifications_handler": object()}, "cluster"),
        ({"url": "redis://h", "host": "h"}, "'url' and 'host' exclude each other"),
        ({"url": "redis://h", "port": 6379}, "'url' and 'port'"),
        ({"url": "redis://h", "unix_socket_path": "/s"}, "'url' and 'unix_socket_path'"),
        ({"url": "redis://h/1", "db": 2}, "'url' and 'db'"),
        ({"url": "redis://:a@h", "password": "s3cret"}, "'url' and 'password'"),
        ({"unix_socket_path": "/s", "port": 6379}, "'unix_socket_path' and 'port'"),
        ({"unix_socket_path": "/s", "ssl": True}, "'unix_socket_path' and 'ssl'"),
        ({"unix_socket_path": "/s", "socket_keepalive": True}, "'socket_keepalive'"),
        ({"ssl_ca_certs": "/ca.pem"}, "'ssl_ca_certs' has no effect without 'ssl'"),
        ({"connection_pool": redis.ConnectionPool(), "host": "h"}, "'connection_pool' and 'host'"),
        ({"connection_pool": redis.ConnectionPool(), "url": "redis://h"}, "'connection_pool' and"),
    ],
)
def test_options_without_effect(kwargs, why):
    with pytest.raises(TypeError, match=why) as raised:
        KVS("redis", kwargs)
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize("name", ["ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile"])
@pytest.mark.parametrize(
    "kwargs", [{"host": "h", "ssl": True}, {"url": "rediss://h"}, {"url": "rediss+sentinel://h/s"}]
)
def test_a_file_of_tls_that_does_not_exist(tmp_path, kwargs, name):
    """OpenSSL does not say which file it did not find."""
    path = str(tmp_path / "missing.pem")
    with pytest.raises(ValueError, match=f"{name}: '{path}': No such file or directory"):
        KVS("redis", {**kwargs, name: path})


def test_a_file_of_tls_that_cannot_be_looked_at():
    """Such as one in a directory that is not readable; the user of the tests may read all."""
    with pytest.raises(ValueError, match=f"ssl_keyfile: '{'k' * 300}': File name too long"):
        KVS("redis", {"host": "h", "ssl": True, "ssl_keyfile": "k" * 300})


def test_a_pool_with_a_cache():
    cache = pytest.importorskip("redis.cache")
    pool = redis.ConnectionPool(protocol=3, cache_config=cache.CacheConfig())
    with pytest.raises(TypeError, match="has a cache"):
        KVS("redis", {"connection_pool": pool})


def test_every_option_of_redis_py_is_known():
    """A new one has to be looked at: does it have an effect, or is it refused?"""
    assert named_parameters(redis.Redis) <= EFFECTIVE | set(_WITHOUT_EFFECT)


EFFECTIVE = {
    *("host", "port", "db", "username", "password", "unix_socket_path", "connection_pool"),
    *("socket_timeout", "socket_connect_timeout", "socket_read_size", "socket_keepalive"),
    *("socket_keepalive_options", "max_connections", "health_check_interval", "protocol"),
    *("retry", "retry_on_timeout", "retry_on_error", "client_name", "lib_name", "lib_version"),
    *("driver_info", "redis_connect_func", "credential_provider"),
    # for the user name and the password
    *("encoding", "encoding_errors", "charset", "errors"),
    # for the client of redis-py
    *("decode_responses", "legacy_responses"),
    *("ssl", "ssl_keyfile", "ssl_certfile", "ssl_cert_reqs", "ssl_ca_certs", "ssl_ca_path"),
    *("ssl_ca_data", "ssl_check_hostname", "ssl_password", "ssl_validate_ocsp"),
    *("ssl_validate_ocsp_stapled", "ssl_ocsp_context", "ssl_ocsp_expected_cert"),
    *("ssl_min_version", "ssl_ciphers", "ssl_include_verify_flags", "ssl_exclude_verify_flags"),
}


@pytest.mark.parametrize("breaker", [-1, 3601, "1", None, True, float("nan")])
def test_breaker(breaker):
    with pytest.raises(ValueError, match=r"breaker: .*number of seconds"):
        KVS("redis", {"breaker": breaker})


def test_a_blocking_pool_keeps_its_timeout(fake):
    fake.answers[b"GET"] = lambda _: time.sleep(0.4) or b"$-1\r\n"
    address = {"host": "127.0.0.1", "port": fake.port, "protocol": 2}
    pool = redis.BlockingConnectionPool(max_connections=1, timeout=0.1, socket_timeout=5, **address)
    for kwargs, fails in [({}, True), ({"pool_timeout": 2}, False)]:
        driver = KVS("redis", {"connection_pool": pool, **kwargs})
        with ThreadPoolExecutor(2) as threads:
            calls = [threads.submit(driver.get, "key") for _ in range(2)]
        assert any(call.exception() for call in calls) == fails


def test_a_pool_makes_the_connections(fake):
    """What a class of the application adds to them is not lost, and the pool counts none."""

    class Pool(redis.ConnectionPool):
        made = 0

        def make_connection(self):
            Pool.made += 1
            return super().make_connection()

    pool = Pool(host="127.0.0.1", port=fake.port, protocol=2, max_connections=1)
    driver = KVS("redis", {"connection_pool": pool})
    before = Pool.made
    for _ in range(3):
        driver.raw_set("key", b"", None)
        driver.close()
    assert Pool.made == before + 3
    assert pool.make_connection()

"""Servers in a mode that the driver does not support: nodes of a cluster, and sentinels."""

from __future__ import annotations

import pytest

from pyramid_kvs.exceptions import KVSNotSupported
from pyramid_kvs.kvs import KVS
from tests.drivers.redis.support import SentinelServer, driver_of


def test_cluster(own_redis):
    """A node is refused at the first connection, even if it has all keys."""
    server = own_redis("--cluster-enabled", "yes")
    with pytest.raises(KVSNotSupported, match=r"redis\+cluster://"):
        driver_of(server).get("key")
    server.command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    for kwargs in ({}, {"protocol": 3}, {"db": 1}):
        with pytest.raises(KVSNotSupported, match=r"redis\+cluster://"):
            driver_of(server, **kwargs).incr("count")


@pytest.mark.parametrize("version", ["6.2", "8.2", "valkey-9.1"])
def test_cluster_of_other_versions(own_redis, version):
    server = own_redis("--cluster-enabled", "yes", version=version)
    with pytest.raises(KVSNotSupported, match=r"redis\+cluster://"):
        driver_of(server).get("key")


def test_check_tells_the_mode(own_redis):
    driver = driver_of(own_redis("--cluster-enabled", "yes"))
    assert driver.ping() is False
    with pytest.raises(KVSNotSupported, match="node of a cluster"):
        driver.check()


@pytest.mark.parametrize("db", [0, 1])
def test_sentinel(own_redis, redis_version, db):
    with SentinelServer(own_redis(), redis_version) as sentinel:
        driver = driver_of(sentinel, db=db)
        with pytest.raises(KVSNotSupported, match=r"redis\+sentinel://"):
            driver.get("key")


def test_asks_once(server):
    """Once in each driver and process, not on each connection."""
    driver = driver_of(server)
    for _ in range(3):
        driver.get("key")
        driver.close()
    assert server.calls()["hello"] == 1


def test_a_user_who_may_not_ask(own_redis):
    server = own_redis()
    server.command("ACL", "SETUSER", "app", "on", ">secret", "~*", "+@all", "-hello")
    driver = driver_of(server, username="app", password="secret")
    driver.set("key", 1)
    assert driver.get("key") == 1


@pytest.mark.parametrize("reply", [b"-ERR unknown command 'HELLO'\r\n", None])
def test_a_proxy_that_does_not_know_the_command(fake, reply):
    """It refuses the command, or hangs up. It is asked once."""
    fake.answers[b"HELLO"] = lambda: reply
    fake.answers[b"INCRBY"] = lambda *_: b":3\r\n"
    driver = KVS("redis", {"host": "127.0.0.1", "port": fake.port}, ttl=None)
    assert driver.incr("count") == 3
    driver.close()
    assert driver.incr("count") == 3
    assert fake.commands.count(b"HELLO") == 1

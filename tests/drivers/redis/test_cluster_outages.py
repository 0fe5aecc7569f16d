"""Nodes that hang, die or come back, and replicas that are promoted."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pyramid_kvs.drivers.redis import pack
from pyramid_kvs.drivers.redis.cluster.nodes import Node
from pyramid_kvs.exceptions import KVSUnavailable
from pyramid_kvs.kvs import KVS, Breakers
from tests.drivers.redis.support import failure
from tests.drivers.redis.test_threads_and_forks import in_child
from tests.servers import ClusterNode, RedisCluster, wait_until

#: The longest time that the calls of these tests may take, and as much for a busy machine.
LIMIT = 2.0
#: Without waiting for a timeout.
AT_ONCE = 0.3

KEYS = [f"key{number}" for number in range(60)]


@pytest.fixture
def cluster(redis_cluster: RedisCluster) -> Iterator[RedisCluster]:
    """The run's cluster, whose nodes the test may pause, but not kill."""
    yield redis_cluster
    for node in redis_cluster.nodes:
        node.resume()


@pytest.fixture
def driver(cluster: RedisCluster) -> KVS:
    return new_driver(cluster)


def new_driver(cluster: RedisCluster, **kwargs: Any) -> KVS:
    driver = KVS("redis", {"url": cluster.url, **kwargs}, ttl=None)
    driver.set_many(dict.fromkeys(KEYS, 1))
    return driver


def keys_at(cluster: RedisCluster, node: ClusterNode) -> list[str]:
    return [key for key in KEYS if cluster.primary_of(key) is node]


def seconds(operation: Callable[[], Any]) -> float:
    began = time.monotonic()
    operation()
    return time.monotonic() - began


def in_use(driver: KVS) -> int:
    return sum(node.pool.counts().in_use for node in driver._topology._nodes.values())


# -- an interruption --------------------------------------------------------------------------


def test_a_call_that_is_interrupted_frees_its_connections(cluster, driver, monkeypatch):
    """For example by a timeout of gevent, when only some nodes have been asked."""
    begin, begun = Node.begin, []

    def begin_two(*args: Any) -> Any:
        if len(begun) == 2:
            raise KeyboardInterrupt
        begun.append(begin(*args))
        return begun[-1]

    with monkeypatch.context() as patch:
        patch.setattr(Node, "begin", begin_two)
        with pytest.raises(KeyboardInterrupt):
            driver.get_many(KEYS)
    assert in_use(driver) == 0
    assert len(begun) == 2  # so that the connections still exist
    assert driver.get_many(KEYS) == dict.fromkeys(KEYS, 1)


# -- a node that hangs ------------------------------------------------------------------------


def test_only_the_node_that_hangs_is_left_alone(cluster, driver):
    hung, *others = cluster.primaries()
    key = keys_at(cluster, hung)[0]
    theirs = [keys_at(cluster, node)[0] for node in others]
    hung.pause()
    assert seconds(lambda: failure(lambda: driver.get(key))) < LIMIT
    for _ in range(3):
        assert [driver.get(other) for other in theirs] == [1, 1]
        assert [driver.get(key) for key in theirs] == [1, 1]
    assert seconds(lambda: [failure(lambda: driver.get(key)) for _ in range(50)]) < AT_ONCE
    hung.resume()
    wait_until(lambda: failure(lambda: driver.get(key)) is None, "the node is asked again", 5)


def test_settings_share_what_is_known_of_a_node(cluster, driver):
    other, breakers = new_driver(cluster), Breakers()
    driver.share_breakers(breakers)
    other.share_breakers(breakers)
    hung = cluster.primaries()[1]
    key = keys_at(cluster, hung)[0]
    hung.pause()
    assert failure(lambda: driver.get(key))
    assert seconds(lambda: failure(lambda: other.get(key))) < AT_ONCE
    assert [breaker.server for breaker in breakers.all() if breaker.is_open] == [
        f"redis at 127.0.0.1:{hung.port}"
    ]
    assert len(breakers.all()) >= 3


def test_many_keys_while_a_node_hangs(cluster, driver):
    """No connection is lost, and later calls do not read the replies of other nodes."""
    hung, *others = cluster.primaries()
    theirs = [key for node in others for key in keys_at(cluster, node)]
    hung.pause()
    for operation in (
        lambda: driver.get_many(KEYS),
        lambda: driver.set_many(dict.fromkeys(KEYS, 1)),
        lambda: driver.raw_ttl_many(KEYS),
        driver.get_keys,
        driver.check,
    ):
        assert seconds(lambda operation=operation: failure(operation)) < LIMIT
        assert isinstance(failure(operation), KVSUnavailable)
        assert in_use(driver) == 0
        assert driver.get_many(theirs) == dict.fromkeys(theirs, 1)
    hung.resume()
    wait_until(lambda: failure(lambda: driver.get_many(KEYS)) is None, "all nodes answer", 5)
    assert driver.get_many(KEYS) == dict.fromkeys(KEYS, 1)


def test_replies_of_other_nodes_are_kept(cluster, driver):
    hung, *others = cluster.primaries()
    theirs = [key for node in others for key in keys_at(cluster, node)]
    commands = [(key.encode(), pack(b"GET", key.encode())) for key in KEYS]
    hung.pause()
    replies = dict(zip(KEYS, driver._call_many(commands), strict=True))
    assert {key for key, reply in replies.items() if reply == b"1"} == set(theirs)
    assert all(isinstance(replies[key], KVSUnavailable) for key in keys_at(cluster, hung))


def test_two_nodes_that_hang(cluster, driver):
    """Both are asked at the same time, and the third one's replies have come."""
    *hung, well = cluster.primaries()
    commands = [(key.encode(), pack(b"GET", key.encode())) for key in KEYS]
    for node in hung:
        node.pause()
    began = time.monotonic()
    replies = dict(zip(KEYS, driver._call_many(commands), strict=True))
    assert time.monotonic() - began < LIMIT
    assert {key for key, reply in replies.items() if reply == b"1"} == set(keys_at(cluster, well))
    [node] = [node for node in driver._topology.primaries() if node.address[1] == well.port]
    assert not node.breaker.is_troubled


@pytest.mark.parametrize("is_known", [True, False])
def test_all_nodes_hang(cluster, is_known):
    """Nobody waits but those who probe a node, and the one who asks for the map."""
    driver = new_driver(cluster) if is_known else KVS("redis", {"url": cluster.url})
    for node in cluster.nodes:
        node.pause()
    assert seconds(lambda: failure(lambda: driver.get_many(KEYS))) < LIMIT
    waits = []

    def ask(number: int) -> None:
        for _ in range(100):
            waits.append(seconds(lambda: failure(lambda: driver.get(KEYS[number]))))
            time.sleep(0.02)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(wait > AT_ONCE for wait in waits) < len(waits) / 10
    for node in cluster.nodes:
        node.resume()
    wait_until(lambda: failure(lambda: driver.get_many(KEYS)) is None, "all nodes answer", 5)


def test_a_start_while_nodes_hang(cluster):
    """The nodes that the URL names first do not answer."""
    first, second, third = cluster.primaries()
    key = keys_at(cluster, third)[0]
    cluster.command("SET", key, 1)
    first.pause()
    second.pause()
    url = ",".join(f"127.0.0.1:{node.port}" for node in (first, second, third))
    driver = KVS("redis", {"url": f"redis+cluster://{url}"})
    for _ in range(5):
        assert seconds(lambda: failure(lambda: driver.get(key))) < LIMIT
    assert driver.get(key) == 1


def test_threads_wait_for_one_timeout(cluster, driver):
    hung = cluster.primaries()[0]
    key = keys_at(cluster, hung)[0]
    hung.pause()
    durations: list[float] = []

    def page() -> None:
        durations.append(seconds(lambda: [failure(lambda: driver.get(key)) for _ in range(3)]))

    threads = [threading.Thread(target=page) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(durations) < LIMIT


def test_connections_that_were_closed(cluster, driver):
    """An idle connection is dead. What may run twice is sent again."""
    for node in cluster.primaries():
        node.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert driver.get_many(KEYS) == dict.fromkeys(KEYS, 1)
    for node in cluster.primaries():
        node.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    time.sleep(0.15)  # idle for so long that connections are looked at first
    assert [driver.incr(f"count-{key}") for key in KEYS] == [1] * len(KEYS)


def test_callers_do_not_wait_for_each_other(cluster):
    """Each node has one connection, and each caller begins with another node."""
    driver = new_driver(cluster, max_connections=1, pool_timeout=5, socket_timeout=20)
    keys = [keys_at(cluster, node)[0] for node in cluster.primaries()]
    pools = driver.connection_pools()
    taken = [pool.take() for pool in pools]
    found: list[Any] = []

    def ask(keys: list[str]) -> None:
        found.append(driver.get_many(keys))

    threads = [threading.Thread(target=ask, args=(order,)) for order in (keys, keys[::-1])]
    for thread in threads:
        thread.start()
    wait_until(lambda: sum(pool.counts().waiting for pool in pools) == 2, "both wait")
    for pool, connection in zip(pools, taken, strict=True):
        pool.give(connection)
    for thread in threads:
        thread.join()
    assert found == [dict.fromkeys(keys, 1)] * 2


def test_fork(cluster, driver):
    """Parent and children use the driver at the same time."""
    values = {key: f"value of {key}" for key in KEYS}
    driver.set_many(values)

    def work() -> None:
        for number in range(150):
            key = KEYS[(number * 7 + os.getpid()) % len(KEYS)]
            assert driver.get(key) == values[key]
            driver.incr("count")
        assert driver.get_many(KEYS) == values

    children = [in_child(work) for _ in range(3)]
    work()
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0]
    assert driver.get("count") == 600


# -- a node that is lost ----------------------------------------------------------------------


def test_a_graceful_failover_has_no_error(own_redis_cluster):
    """Counters count each call once."""
    cluster = own_redis_cluster()
    driver = new_driver(cluster)
    counts = []
    for number in range(1, 301):
        counts.append(driver.incr("key1-count"))
        if number == 100:
            replica = cluster.replica_of("key1-count")
            replica.command("CLUSTER", "FAILOVER")
    wait_until(lambda: cluster.primary_of("key1-count") is replica, "failover")
    assert counts == list(range(1, 301))
    assert driver.incr("key1-count") == 301


def test_a_primary_that_is_killed(own_redis_cluster):
    """Each call ends in time. Calls work again soon after the promotion, without an own restart."""
    cluster = own_redis_cluster(node_timeout=1)
    driver = new_driver(cluster)
    lost, replica = cluster.primary_of("key1"), cluster.replica_of("key1")
    expected = lost.command("DBSIZE")
    wait_until(lambda: replica.command("DBSIZE") == expected, "replication")
    lost.kill()
    durations = []

    def works() -> bool:
        began = time.monotonic()
        is_well = failure(lambda: driver.get("key1")) is None
        durations.append(time.monotonic() - began)
        return is_well

    wait_until(lambda: works() or cluster.primary_of("key1") is replica, "promotion")
    promoted = time.monotonic()
    wait_until(works, "calls work again")
    assert time.monotonic() - promoted < 5
    assert max(durations) < LIMIT
    wait_until(lambda: failure(lambda: driver.get_many(KEYS)) is None, "all keys", 5)
    assert cluster.primary_of("key1") is replica
    assert len(driver.get_keys("key*")) == len(KEYS)
    cluster.ensure()  # the old primary comes back as a replica
    assert driver.get_many(KEYS) == dict.fromkeys(KEYS, 1)

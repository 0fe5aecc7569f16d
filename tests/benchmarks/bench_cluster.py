"""Compare the driver for a cluster with that for one server, and with redis-py's client.

::

    python -m tests.benchmarks.bench_cluster

All servers run at the same time, on this machine. See ``bench_kvs.py`` for how it measures.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

from redis.cluster import ClusterNode, RedisCluster

from pyramid_kvs.kvs import KVS
from tests import servers
from tests.benchmarks.bench_kvs import VALUE, Row, main
from tests.servers import RedisServer

KEYS = [f"key{number}" for number in range(100)]


def cluster_rows(stack: ExitStack) -> Iterator[Row]:
    server = stack.enter_context(RedisServer())
    cluster = stack.enter_context(servers.RedisCluster())
    single = KVS("redis", {"url": server.url})
    driver = KVS("redis", {"url": cluster.url})
    nodes = [ClusterNode(node.host, node.port) for node in cluster.nodes]
    client = RedisCluster(startup_nodes=nodes)
    for store in (single, driver):
        stack.callback(store.close)
        store.set_many(dict.fromkeys(KEYS, VALUE))

    next_key = itertools.cycle(KEYS).__next__  # of all nodes

    def client_get() -> Any:
        return json.loads(client.get(next_key()))

    def client_set() -> None:
        client.set(next_key(), json.dumps(VALUE), ex=300)

    def client_get_many() -> list[Any]:
        pipeline = client.pipeline()
        for key in KEYS:
            pipeline.get(key)
        return [json.loads(data) for data in pipeline.execute()]

    yield from both(
        "get 1 KB",
        lambda: driver.get(next_key()),
        lambda: single.get(next_key()),
        client_get,
    )
    yield from both(
        "set 1 KB",
        lambda: driver.set(next_key(), VALUE),
        lambda: single.set(next_key(), VALUE),
        client_set,
    )
    yield from both(
        "incr",
        lambda: driver.incr("count"),
        lambda: single.incr("count"),
        lambda: client.incr("plain"),
    )
    yield Row(
        "get of 100 keys",
        lambda: driver.get_many(KEYS),
        "RedisCluster's pipeline",
        client_get_many,
        0.7,
        20,
    )
    yield Row(
        "get of 100 keys",
        lambda: driver.get_many(KEYS),
        "one server (MGET)",
        lambda: single.get_many(KEYS),
        None,
        20,
    )


def both(
    name: str, ours: Callable[[], Any], single: Callable[[], Any], client: Callable[[], Any]
) -> Iterator[Row]:
    """Yield the rows of an operation against one server and against redis-py."""
    yield Row(name, ours, "one server", single, 1.3)
    yield Row(name, ours, "redis-py's RedisCluster", client, 0.7)


if __name__ == "__main__":
    main({"cluster": cluster_rows}, __doc__)

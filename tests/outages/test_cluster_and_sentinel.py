"""A plain URL that leads to a node of a cluster or to a sentinel: refused for good, with a hint."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pyramid_kvs.exceptions import KVSError, KVSUnavailable
from pyramid_kvs.kvs import KVS
from tests.outages.apps import build
from tests.outages.stores import CALLS, outcome
from tests.servers import RedisServer

SLOTS = 16384


class Sentinel(RedisServer):
    """A sentinel that watches nothing."""

    def arguments(self) -> list[str]:
        path = self.directory / "sentinel.conf"
        path.write_text(f"bind {self.host}\nport {self.port}\nunixsocket {self.socket_path}\n")
        return [str(path), "--sentinel"]


@pytest.fixture
def node(own_redis: Callable[..., RedisServer]) -> RedisServer:
    """A cluster of one node, which has all slots."""
    server = own_redis("--cluster-enabled", "yes", "--cluster-require-full-coverage", "no")
    server.command("CLUSTER", "ADDSLOTS", *range(SLOTS))
    return server


def driver_at(server: RedisServer) -> KVS:
    return KVS("redis", {"url": server.url}, "node::")


def assert_refused_for_good(driver: KVS, hint: str) -> None:
    for name, call in CALLS.items():
        error = outcome(lambda call=call: call(driver))
        if name == "ping":
            assert error is False
        else:
            assert isinstance(error, KVSError), name
            assert not isinstance(error, KVSUnavailable), name
            assert hint in str(error), name


def test_a_node_of_a_cluster(node: RedisServer) -> None:
    assert_refused_for_good(driver_at(node), "redis+cluster://")
    assert node.command("DBSIZE") == 0


def test_a_node_without_slots(own_redis: Callable[..., RedisServer]) -> None:
    """The answer does not depend on where the key would be."""
    server = own_redis("--cluster-enabled", "yes")
    assert_refused_for_good(driver_at(server), "redis+cluster://")


def test_a_sentinel() -> None:
    with Sentinel() as server:
        assert_refused_for_good(driver_at(server), "redis+sentinel://")


def test_an_application_on_a_node_of_a_cluster(
    node: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """It starts, its log says what to write, and each connection is refused, not only the first."""
    app = build(cache={"kvs": "redis", "kvs_kwargs": {"url": node.url}})
    assert "redis+cluster://" in caplog.text
    for _ in range(2):
        with pytest.raises(KVSError, match=r"redis\+cluster://"):
            app.get("/")

"""200 requests a second, while slots move and while a primary is killed.

Each key has one writer, who stores higher numbers all the time. So a number that is missing in the
end, and was acknowledged, is a change that was lost. ``pytest -s`` shows what was counted.
"""

from __future__ import annotations

import threading
import time
from typing import NamedTuple

import pytest

from pyramid_kvs.exceptions import KVSUnavailable
from pyramid_kvs.kvs import KVS
from tests.servers import RedisCluster, wait_until

RATE = 200
THREADS = 8
KEYS = 40

#: A second is the timeout of a call, and one more is for a busy machine.
LIMIT = 2.0


class Call(NamedTuple):
    began: float
    ended: float
    key: str
    number: int
    is_done: bool


class Load:
    """Threads that store, count and read, each at its own keys."""

    def __init__(self, driver: KVS) -> None:
        self.driver = driver
        self.calls: list[Call] = []
        self.errors: list[BaseException] = []
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(THREADS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, thread: int) -> None:
        keys = [f"{kind}-{thread}-{n}" for n in range(KEYS // 2) for kind in ("set", "count")]
        start = time.monotonic()
        try:
            for number in range(1, 100_000):
                if self._is_over.wait(max(0, start + number * THREADS / RATE - time.monotonic())):
                    return
                self._request(keys[number % len(keys)], number)
        except BaseException as error:
            self.errors.append(error)
            raise

    def _request(self, key: str, number: int) -> None:
        began, is_done = time.monotonic(), True
        try:
            if key.startswith("count"):
                number = self.driver.incr(key, ttl=600)
            else:
                self.driver.set(key, number)
        except KVSUnavailable:
            is_done = False
        self.calls.append(Call(began, time.monotonic(), key, number, is_done))

    def since(self, moment: float) -> dict[str, int]:
        """Return the last number of each key that was acknowledged by calls since a moment."""
        calls = [call for call in list(self.calls) if call.is_done and call.began >= moment]
        return {call.key: call.number for call in calls}

    def report(self, what: str, *more: str) -> None:
        seconds = max(call.ended for call in self.calls) - self.calls[0].began
        durations = sorted(call.ended - call.began for call in self.calls)
        failed = sum(not call.is_done for call in self.calls)
        print(
            f"\n{what}: {len(self.calls)} calls in {seconds:.1f} s, {failed} failed, longest "
            f"{durations[-1]:.3f} s, 99 % within {durations[len(durations) * 99 // 100]:.4f} s",
            *more,
            sep=", ",
        )


@pytest.mark.parametrize("version", ["", "valkey-9.1"])
def test_4096_slots_move(own_redis_cluster, version):
    """No call fails, and no change is lost."""
    # Without replicas, for which Valkey waits at each slot: it would take a minute.
    cluster: RedisCluster = own_redis_cluster(version=version, replicas=0 if version else 1)
    driver = KVS("redis", {"url": cluster.url}, ttl=600)
    with Load(driver) as load:
        wait_until(lambda: len(load.calls) > 50, "the first calls")
        source, target = cluster.primaries()[:2]
        low, _, _ = source.slots()[0]
        cluster.move_slots(range(low, low + 4096), target, together=256, pause=0.05)
        number = len(load.calls)
        wait_until(lambda: len(load.calls) > number + 50, "the last calls")
    load.report("4096 slots")
    assert load.errors == []
    assert [call for call in load.calls if not call.is_done] == []
    assert max(call.ended - call.began for call in load.calls) < LIMIT
    assert driver.get_many(list(load.since(0))) == load.since(0)
    counts = [call.number for call in load.calls if call.key == "count-0-1"]
    assert counts == list(range(1, len(counts) + 1))


@pytest.mark.parametrize("version", ["", "valkey-9.1"])
def test_a_primary_is_killed_and_its_replica_promoted(own_redis_cluster, version):
    """What the replica had is still there, and calls work again soon after the promotion."""
    cluster: RedisCluster = own_redis_cluster(version=version, node_timeout=1)
    driver = KVS("redis", {"url": cluster.url}, ttl=600)
    lost, replica = cluster.nodes[0], cluster.replica_of(0)
    with Load(driver) as load:
        wait_until(lambda: len(load.calls) > 400, "the first calls")
        theirs = {call.key for call in list(load.calls) if cluster.primary_of(call.key) is lost}
        lost.kill()
        killed = time.monotonic()
        wait_until(lambda: replica.role() != "slave", "the replica notices")
        replica.command("READONLY")
        kept = {key: int(replica.command("GET", key) or 0) for key in theirs}
        wait_until(lambda: replica.role() == "master", "promotion")
        promoted = time.monotonic()
        wait_until(lambda: theirs <= load.since(promoted).keys(), "calls work again")
    before = {call.key: call.number for call in load.calls if call.is_done and call.ended < killed}
    load.report(
        "kill -9",
        f"promotion after {promoted - killed:.1f} s",
        f"{sum(before[key] > kept[key] for key in theirs)} changes that the replica did not have",
    )
    assert load.errors == []
    assert max(call.ended - call.began for call in load.calls) < LIMIT
    assert max((call.ended for call in load.calls if not call.is_done), default=0) < promoted + 5
    found = driver.get_many(list(load.since(0)))
    assert [key for key in theirs if found[key] < kept[key]] == []
    later = load.since(promoted)
    assert [key for key in later if found[key] < later[key]] == []

"""Threads and processes that change the same key."""

from __future__ import annotations

import multiprocessing
from typing import Any

from pyramid_kvs.kvs import KVS
from tests.conformance.base import Base, Make, in_threads


class Threads(Base):
    def test_threads_count_exactly(self, kvs: KVS) -> None:
        added: list[bool] = []

        def work() -> None:
            for _ in range(25):
                kvs.incr("counter")
                kvs.update("value", lambda old: (old or 0) + 1)
            added.append(kvs.add("once", 1))

        in_threads(8, work)
        assert kvs.get("counter") == 200
        assert kvs.get("value") == 200
        assert sorted(added) == [False] * 7 + [True]

    def test_threads_delete_once(self, kvs: KVS) -> None:
        for _ in range(5):
            kvs.set("key", "value")
            deleted: list[Any] = []
            in_threads(6, lambda deleted=deleted: deleted.append(kvs.delete("key")))
            assert sorted(deleted, key=str) == [None] * 5 + ["value"]


class Processes(Base):
    """For stores that several processes see."""

    def test_twelve_processes_count_exactly(self, kvs: KVS, new: Make) -> None:
        kvs.set("warm", 1)  # a connection is open when the processes fork
        context = multiprocessing.get_context("fork")
        barrier = context.Barrier(12)
        processes = [
            context.Process(target=_count, args=(kvs, barrier, number)) for number in range(12)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(120)
        assert [process.exitcode for process in processes] == [0] * 12
        assert kvs.get("counter") == 12 * 20
        assert kvs.get("updated") == 12 * 20
        assert kvs.get("once") in range(12)
        assert kvs.get("wins") == 1


def _count(kvs: KVS, barrier: Any, number: int) -> None:
    barrier.wait(60)
    if kvs.add("once", number):
        kvs.incr("wins")
    for _ in range(20):
        kvs.incr("counter")
        kvs.update("updated", lambda old: (old or 0) + 1)

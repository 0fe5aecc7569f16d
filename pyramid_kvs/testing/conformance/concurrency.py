"""Threads and processes that change the same key."""

from __future__ import annotations

import multiprocessing
from typing import Any

import pytest

from ...kvs import KVS
from .base import Base, in_threads

#: What to do about a driver that loses changes of other processes.
ONE_STEP = "one atomic step of the store, or say is_atomic = False"


class Threads(Base):
    def test_threads_count_exactly(self, kvs: KVS) -> None:
        def work() -> bool:
            for _ in range(25):
                kvs.incr("counter")
                kvs.update("value", lambda old: (old or 0) + 1)
            return kvs.add("once", 1)

        added = in_threads(8, work)
        assert kvs.get("counter") == 200
        assert kvs.get("value") == 200
        assert sorted(added) == [False] * 7 + [True]

    def test_threads_delete_once(self, kvs: KVS) -> None:
        for _ in range(5):
            kvs.set("key", "value")
            deleted = in_threads(6, lambda: kvs.delete("key"))
            assert sorted(deleted, key=str) == [None] * 5 + ["value"]


class Processes(Base):
    """For stores that several processes see."""

    def test_twelve_processes_count_exactly(self, kvs: KVS) -> None:
        self._skip_unless_atomic()
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
        assert kvs.get("counter") == 12 * 20, f"incr: define raw_incr as {ONE_STEP}"
        assert kvs.get("updated") == 12 * 20, f"update: define raw_swap as {ONE_STEP}"
        assert kvs.get("once") in range(12)
        assert kvs.get("wins") == 1, f"add: define raw_add as {ONE_STEP}"

    def _skip_unless_atomic(self) -> None:
        if not self.shared:
            pytest.skip("the store belongs to one process (shared = False)")
        if not self.is_atomic:
            pytest.skip("processes may lose changes of each other (is_atomic = False)")
        if "fork" not in multiprocessing.get_all_start_methods():
            pytest.skip("this system cannot fork")


def _count(kvs: KVS, barrier: Any, number: int) -> None:
    barrier.wait(60)
    if kvs.add("once", number):
        kvs.incr("wins")
    for _ in range(20):
        kvs.incr("counter")
        kvs.update("updated", lambda old: (old or 0) + 1)

"""Processes with threads that use one cache, and a proxy that counts their round trips."""

from __future__ import annotations

import multiprocessing
import socket
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from pyramid_kvs.cache import ApplicationCache
from pyramid_kvs.kvs import KVS
from tests.cache.apps import Options
from tests.outages.proxies import Proxy

CONTEXT = multiprocessing.get_context("fork")
PATIENCE = 60


def shared_cache(
    options: Options, port: int | None = None, prefix: str = "cache::", ttl: float | None = 300
) -> ApplicationCache:
    """Return a cache on a store that processes share.

    :param port: of a proxy in front of the server.
    """
    kwargs = dict(options["kvs_kwargs"])
    if port is not None:
        kwargs = proxied(options["kvs"], kwargs, port)
    kvs = KVS(options["kvs"], kwargs, prefix, ttl)
    kvs.initialize_schema()
    return ApplicationCache(kvs)


def proxied(kvs: str, kwargs: dict[str, Any], port: int) -> dict[str, Any]:
    if kvs == "memcache":
        return {"servers": [f"127.0.0.1:{port}"]}
    if kvs == "postgresql":
        return {"url": f"postgresql://postgres@127.0.0.1:{port}/kvs"}
    return {"host": "127.0.0.1", "port": port}


def port_of(options: Options) -> int:
    """Return the port of the server behind the settings of a cache."""
    kwargs = options["kvs_kwargs"]
    address = str(kwargs.get("port") or kwargs.get("url") or kwargs["servers"][0])
    return int(address.rpartition(":")[2].split("/")[0])


class CountingProxy(Proxy):
    """Counts the round trips: what clients send, each time that a server has answered before."""

    def __init__(self, port: int) -> None:
        #: How many trips a new connection takes before it is used.
        self.handshake = 0
        self._trips: Counter[int] = Counter()
        self._old = 0
        self._connection = threading.local()
        super().__init__(port)

    @property
    def trips(self) -> int:
        """The trips since the last reset, without those for connecting."""
        return sum(
            max(0, count - (self.handshake if number >= self._old else 0))
            for number, count in self._trips.copy().items()
        )

    def reset(self) -> None:
        self._old = self.connections
        self._trips.clear()

    def _pass(self, number: int, source: socket.socket, to: socket.socket, is_reply: bool) -> None:
        self._connection.number = number
        super()._pass(number, source, to, is_reply)

    def _send(self, data: bytes, to: socket.socket, is_reply: bool) -> None:
        if not is_reply:
            self._trips[self._connection.number] += 1  # each connection has a thread
        super()._send(data, to, is_reply)


class Fleet:
    """Threads in several processes that all start together.

    :param work: what each thread does; gets the fleet. What it returns or raises is a result.
    """

    def __init__(self, work: Callable[[Fleet], Any], processes: int = 4, threads: int = 8) -> None:
        self.size = processes * threads
        self._work = work
        self._threads = threads
        self._barrier = CONTEXT.Barrier(self.size + 1)
        self._results = CONTEXT.Queue()
        self._calls = CONTEXT.Value("i")
        self._answered = CONTEXT.Semaphore(0)
        self._processes = [CONTEXT.Process(target=self._run) for _ in range(processes)]
        for process in self._processes:
            process.start()

    def meet(self) -> None:
        """Wait until all threads, and the test itself, have come here."""
        self._barrier.wait(PATIENCE)

    def results(self) -> list[Any]:
        """Return what the threads returned or raised, after all are done."""
        found = [self._results.get(timeout=PATIENCE) for _ in range(self.size)]
        for process in self._processes:
            process.join(PATIENCE)
        return found

    def count_call(self) -> int:
        """Count a call of a creator; return how many there were."""
        with self._calls.get_lock():
            self._calls.value += 1
            return int(self._calls.value)

    @property
    def calls(self) -> int:
        return int(self._calls.value)

    def answered(self) -> None:
        """Note that a thread has its answer."""
        self._answered.release()

    def await_answers(self, count: int) -> None:
        """Wait until this number of threads have their answer."""
        for _ in range(count):
            assert self._answered.acquire(timeout=PATIENCE)

    def _run(self) -> None:
        threads = [threading.Thread(target=self._run_thread) for _ in range(self._threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _run_thread(self) -> None:
        try:
            result = self._work(self)
        except BaseException as error:
            result = type(error).__name__
        self._results.put(result)

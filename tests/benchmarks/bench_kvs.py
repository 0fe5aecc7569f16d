"""Compare the drivers with their client libraries, in pairs.

::

    python -m tests.benchmarks.bench_kvs               all groups
    python -m tests.benchmarks.bench_kvs redis --rounds 60

It starts its own servers. In each round both sides of a row run one after the other, so that a
busy machine slows both. The table has the medians in microseconds, the median of the ratios of the
rounds with its quartiles, and the ratio that the row is designed for.

A group is a function in ``GROUPS`` that yields rows. Servers and drivers that it opens with
``stack.enter_context`` are closed after its rows.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import redis

from pyramid_kvs.kvs import KVS, Stored
from tests.servers import RedisServer

Operation = Callable[[], Any]

#: About 1 KB as JSON.
VALUE = {f"field {number}": f"value {number} " * 3 for number in range(20)}
TEXT = json.dumps(VALUE)


class Row(NamedTuple):
    """An operation of a driver and its reference; ``budget`` is the highest ratio, if any."""

    name: str
    ours: Operation
    against: str
    reference: Operation
    budget: float | None = None
    loops: int = 500


#: Yields the rows of a group, and leaves what it has opened to the stack.
Group = Callable[[ExitStack], Iterator[Row]]


class Result(NamedTuple):
    ours: float
    reference: float
    ratios: list[float]


# -- redis -----------------------------------------------------------------------------------


def redis_rows(stack: ExitStack) -> Iterator[Row]:
    server = stack.enter_context(RedisServer())
    driver = KVS("redis", {"host": server.host, "port": server.port})
    client = redis.Redis(server.host, server.port)
    plain = stack.enter_context(PlainSocket(server))
    stack.callback(driver.close)
    many = [f"many{number}" for number in range(100)]
    driver.set("key", VALUE)
    driver.set_many(dict.fromkeys(many, VALUE))
    old = Stored(TEXT.encode())
    swap = client.register_script(
        "if redis.call('GET', KEYS[1]) == ARGV[1] then"
        " redis.call('SET', KEYS[1], ARGV[2], 'EX', 300) return 1 end return 0"
    )

    def pipeline() -> None:
        commands = client.pipeline(transaction=False)
        for key in many:
            commands.set(key, json.dumps(VALUE), ex=300)
        commands.execute()

    def get() -> Any:
        return json.loads(client.get("key"))

    yield Row("get 1 KB", lambda: driver.get("key"), "Redis.get + json.loads", get, 0.62)
    yield Row(
        "set 1 KB",
        lambda: driver.set("key", VALUE),
        "json.dumps + Redis.set",
        lambda: client.set("key", json.dumps(VALUE), ex=300),
        0.62,
    )
    yield Row(
        "get of 100 keys",
        lambda: driver.get_many(many),
        "Redis.mget + json.loads",
        lambda: [json.loads(data) for data in client.mget(many)],
        1.0,
        20,
    )
    yield Row(
        "set of 100 keys",
        lambda: driver.set_many(dict.fromkeys(many, VALUE)),
        "json.dumps + pipeline",
        pipeline,
        0.62,
        20,
    )
    yield Row(
        "incr", lambda: driver.incr("count"), "Redis.incr", lambda: client.incr("plain"), 0.85
    )
    yield Row(
        "swap 1 KB",
        lambda: driver.raw_swap("key", old, TEXT, 300),
        "a registered script",
        lambda: swap(keys=["key"], args=[TEXT, TEXT]),
        0.75,
    )
    yield Row(
        "load and renew",
        lambda: driver.raw_load("key", renew=300),
        "Redis.getex",
        lambda: client.getex("key", px=300_000),
        0.85,
    )
    yield Row(
        "load and renew",
        lambda: driver.raw_load("key", renew=300),
        "a plain socket",
        lambda: plain.ask(GETEX),
    )


GETEX = b"*4\r\n$5\r\nGETEX\r\n$3\r\nkey\r\n$2\r\nPX\r\n$6\r\n300000\r\n"


class PlainSocket:
    """The minimum of a round trip: a blocking socket, and a reply that is not parsed."""

    def __init__(self, server: RedisServer) -> None:
        self._socket = socket.create_connection((server.host, server.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> PlainSocket:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._socket.close()

    def ask(self, command: bytes) -> bytes:
        self._socket.sendall(command)
        return self._socket.recv(65536)


# -- memory ----------------------------------------------------------------------------------


def memory_rows(stack: ExitStack) -> Iterator[Row]:
    driver, full = KVS("memory"), KVS("memory", {"max_bytes": 1_000_000})
    plain: dict[str, str] = {}
    numbers = itertools.count()
    driver.set("key", VALUE)
    plain["key"] = TEXT
    for number in range(2000):
        full.set(f"key {number}", VALUE)

    def plain_set() -> None:
        plain["key"] = json.dumps(VALUE)

    yield Row(
        "get 1 KB",
        lambda: driver.get("key"),
        "dict + json.loads",
        lambda: json.loads(plain["key"]),
    )
    yield Row("set 1 KB", lambda: driver.set("key", VALUE), "json.dumps + dict", plain_set)
    yield Row(
        "set when full",
        lambda: full.set(f"new {next(numbers)}", VALUE),
        "json.dumps + dict",
        plain_set,
    )
    yield Row(
        "get, undecoded",
        lambda: driver.raw_get("key"),
        "dict.get",
        lambda: plain.get("key"),
        loops=5000,
    )
    yield Row(
        "load and renew",
        lambda: driver.raw_load("key", renew=300),
        "dict.get",
        lambda: plain.get("key"),
        loops=5000,
    )


GROUPS: dict[str, Group] = {
    "redis": redis_rows,
    "memory": memory_rows,
}


# -- measuring -------------------------------------------------------------------------------


def measure(row: Row, rounds: int) -> Result:
    """Run both sides in turn; each round begins with the other side."""
    ours: list[float] = []
    reference: list[float] = []
    sides = [(row.ours, ours), (row.reference, reference)]
    for operation, _ in sides:
        duration(operation, row.loops)
    for _ in range(rounds):
        for operation, found in sides:
            found.append(duration(operation, row.loops))
        sides.reverse()
    ratios = [a / b for a, b in zip(ours, reference, strict=True)]
    return Result(statistics.median(ours), statistics.median(reference), ratios)


def duration(operation: Operation, loops: int) -> float:
    """Return the microseconds that one call takes."""
    gc.collect()
    gc.disable()
    start = time.perf_counter()
    for _ in range(loops):
        operation()
    end = time.perf_counter()
    gc.enable()
    return (end - start) / loops * 1e6


def line(row: Row, result: Result) -> str:
    low, middle, high = statistics.quantiles(result.ratios, n=4)
    budget = "" if row.budget is None else f"{row.budget:.2f}"
    return (
        f"{row.name:<18} {result.ours:8.1f} {row.against:<24} {result.reference:8.1f}"
        f" {middle:6.2f} ({low:.2f} to {high:.2f}) {budget:>7}"
    )


def main(groups: dict[str, Group] = GROUPS, description: str | None = __doc__) -> None:
    """Measure the groups that the command line names, or all of them."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("groups", nargs="*", metavar="group", help=", ".join(groups))
    parser.add_argument("--rounds", type=int, default=25)
    arguments = parser.parse_args()
    for group in arguments.groups or groups:
        print(f"\n{group:<18} {'µs':>8} {'against':<24} {'µs':>8} {'ratio':>6} {'budget':>22}")
        with ExitStack() as stack:
            for row in groups[group](stack):
                print(line(row, measure(row, arguments.rounds)), flush=True)


if __name__ == "__main__":
    main()

"""The time of calls on PostgreSQL: ``python -m tests.benchmarks.bench_postgresql``.

It starts a server, and prints the medians of interleaved rounds in microseconds, and the counters
of the server.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import psycopg

from pyramid_kvs.kvs import KVS
from tests.servers import PostgresServer

GET = "SELECT data FROM kvs WHERE key = %s AND (expires IS NULL OR expires > now())"
SET = """
    INSERT INTO kvs (key, data, is_text, expires)
    VALUES (%s, %s, true, now() + %s * interval '1 second')
    ON CONFLICT (key) DO UPDATE SET data = excluded.data, expires = excluded.expires
"""
FILL = """
    INSERT INTO kvs (key, data, is_text, expires)
    SELECT convert_to(%s || number, 'UTF8'), convert_to(repeat('x', 100), 'UTF8'), true,
        now() + %s * interval '1 second'
    FROM generate_series(1, %s) number
"""


def interleaved(
    ways: dict[str, Callable[[], Any]], rounds: int = 40, calls: int = 100
) -> dict[str, float]:
    """Return the median time of one call of each way, in microseconds."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            for _ in range(calls):
                way()
            times[name].append((time.perf_counter() - started) / calls * 1e6)
    return {name: statistics.median(found) for name, found in times.items()}


def fill(server: PostgresServer, prefix: str, ttl: float, rows: int) -> None:
    server.execute(FILL, (prefix, ttl, rows))
    server.execute("VACUUM ANALYZE kvs")


def print_get_and_set(server: PostgresServer, driver: KVS) -> None:
    print("get and set of 100 bytes against a prepared psycopg statement on a held connection")
    with psycopg.connect(server.url, autocommit=True, prepare_threshold=0) as held:
        data = b'"' + b"x" * 100 + b""
        rows = 0
        for more in (0, 100_000, 900_000):
            fill(server, f"live{more}-", 86400, more)
            rows += more
            ways = {
                "psycopg get": lambda: held.execute(GET, (b"bench::key",)).fetchone(),
                "driver get": lambda: driver.raw_get("key"),
                "psycopg set": lambda: held.execute(SET, (b"bench::held", data, 300)),
                "driver set": lambda: driver.raw_set("key", data, 300),
            }
            driver.raw_set("key", data, 300)
            found = interleaved(ways)
            ratios = [found[f"driver {name}"] / found[f"psycopg {name}"] for name in ("get", "set")]
            print(f"  {rows:>9,} rows", {name: round(time) for name, time in found.items()})
            print(f"            get {ratios[0]:.2f} x, set {ratios[1]:.2f} x (budget 1.40)")


def print_expired(server: PostgresServer, driver: KVS) -> None:
    print("get of 100 bytes beside expired rows, against a table of none")
    server.execute("TRUNCATE kvs")
    clean = KVS("postgresql", {"url": server.url, "table": "clean"}, "bench::")
    clean.initialize_schema()
    for one in (driver, clean):
        one.raw_set("key", "x" * 100, 3000)
    for rows in (0, 100_000, 900_000):
        fill(server, f"dead{rows}-", -1, rows)
        started = time.perf_counter()
        driver.raw_get("dead")
        first = (time.perf_counter() - started) * 1e3
        found = interleaved(
            {"none": lambda: clean.raw_get("key"), "expired": lambda: driver.raw_get("key")},
            rounds=100,
        )
        print(
            f"  {rows:>9,} more expired: {found['expired']:.1f} against {found['none']:.1f} µs "
            f"({found['expired'] / found['none']:.2f} x), the first get {first:.2f} ms"
        )
    clean.close()
    print_purge(server, driver)


def print_purge(server: PostgresServer, driver: KVS) -> None:
    times = []
    for number in range(1600):
        started = time.perf_counter()
        driver.raw_set(f"key{number % 10}", "x" * 100, 300)
        times.append((time.perf_counter() - started) * 1e6)
    left = server.execute("SELECT count(*) FROM kvs WHERE expires <= now()")[0][0]
    print(
        f"  1,600 writes removed {1_000_000 - left:,} of them: "
        f"median {statistics.median(times):.0f}, mean {statistics.mean(times):.0f}, "
        f"slowest {max(times):,.0f} µs a write"
    )
    started = time.perf_counter()
    removed = driver.purge()  # type: ignore[attr-defined]
    print(f"  purge() removed {removed:,} in {time.perf_counter() - started:.1f} s")


def hot(server: PostgresServer) -> tuple[int, int, int]:
    """Return how many updates there were, how many of them HOT, and the bytes of WAL so far."""
    server.execute("SELECT pg_stat_force_next_flush()")
    updates, hot = server.execute(
        "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'kvs'"
    )[0]
    return updates, hot, int(server.execute("SELECT pg_current_wal_insert_lsn() - '0/0'")[0][0])


def print_hot(server: PostgresServer, driver: KVS) -> None:
    print("renewals and updates that stayed HOT")
    for size in (100, 1_000, 1_900, 10_000, 100_000):
        server.execute("DROP TABLE kvs, kvs_version")
        driver.close()
        driver.initialize_schema()
        data = incompressible(size)
        for number in range(200):
            driver.raw_set(f"session{number}", data, 300)
        for name, renew in (("each read renews", True), ("data changes", False)):
            driver.close()
            before = hot(server)
            for turn in range(10):
                for number in range(200):
                    if renew:
                        driver.raw_load(f"session{number}", renew=1000 * (turn + 1))
                    else:
                        driver.raw_set(f"session{number}", data, 300)
            driver.close()
            after = hot(server)
            updates, stayed, wal = (b - a for a, b in zip(before, after, strict=True))
            print(
                f"  {size:>7,} bytes, {name}: n_tup_upd {updates:,}, n_tup_hot_upd {stayed:,} "
                f"({stayed / updates:.0%}), {wal / updates:,.0f} bytes of WAL each"
            )


def print_throttled(driver: KVS) -> None:
    driver.raw_set("session", incompressible(1000), 300)
    found = interleaved(
        {
            "get": lambda: driver.raw_get("session"),
            "load, not renewed": lambda: driver.raw_load("session", renew=300),
            "load, renewed": lambda: driver.raw_load("session", renew=1 + time.time() % 1000),
        }
    )
    print("a session of 1,000 bytes", {name: round(time) for name, time in found.items()})


def print_pools(server: PostgresServer, driver: KVS) -> None:
    from psycopg_pool import ConnectionPool

    with (
        ConnectionPool(
            server.url,
            min_size=1,
            max_size=20,
            open=True,
            kwargs={"autocommit": True, "prepare_threshold": 0},
        ) as pool,
        psycopg.connect(server.url, autocommit=True, prepare_threshold=0) as held,
    ):

        def by_pool() -> None:
            with pool.connection() as connection:
                connection.execute(GET, (b"bench::key",)).fetchone()

        def take_and_give() -> None:
            pool.putconn(pool.getconn())

        found = interleaved(
            {
                "held": lambda: held.execute(GET, (b"bench::key",)).fetchone(),
                "psycopg_pool": by_pool,
                "psycopg_pool, empty": take_and_give,
                "driver": lambda: driver.raw_get("key"),
            }
        )
    print("a get by way of", {name: round(time, 1) for name, time in found.items()})


def incompressible(size: int) -> str:
    return "".join(
        random.Random(size).choices("0123456789abcdefghijklmnopqrstuvwxyzABCDEF", k=size)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared-buffers", default="256MB")
    shared_buffers = parser.parse_args().shared_buffers
    with PostgresServer(shared_buffers=shared_buffers, max_wal_size="2GB") as server:
        driver = KVS("postgresql", {"url": server.url}, "bench::")
        driver.initialize_schema()
        print_pools(server, driver)
        print_throttled(driver)
        print_get_and_set(server, driver)
        print_expired(server, driver)
        print_hot(server, driver)
        driver.close()


if __name__ == "__main__":
    main()

"""Use a store from four processes while it is stopped and killed at random moments.

    python -m tests.soak [redis] [memcached] [postgresql] [--seconds SECONDS]

It prints what the processes saw, and fails if one of them saw a wrong value, lost something that
was acknowledged (and that the server did not lose itself), waited for longer than a call may take,
or needed ever more memory.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from pyramid_kvs.kvs import KVS
from tests.servers import MemcachedServer, PostgresServer, RedisServer, Server

ROOT = Path(__file__).parents[2]
PROCESSES = 4
#: KiB that a process may need more at the end than after three quarters of the time.
GROWTH = 8 * 1024

#: Redis writes each command to disk before it acknowledges it.
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


def make_server(name: str) -> tuple[Server, dict[str, Any]]:
    """Return a server that is running, and the settings of its store."""
    if name == "redis":
        redis = RedisServer(*DURABLE).start()
        kwargs: dict[str, Any] = {"host": redis.host, "port": redis.port}
        return redis, {"store": {"kvs": "redis", "kvs_kwargs": kwargs}, "keeps": True}
    if name == "memcached":
        memcached = MemcachedServer().start()
        kwargs = {"servers": [f"{memcached.host}:{memcached.port}"]}
        return memcached, {"store": {"kvs": "memcache", "kvs_kwargs": kwargs}, "keeps": False}
    postgres = PostgresServer(synchronous_commit="on").start()
    postgres.clear()
    kwargs = {"url": postgres.dsn()}
    KVS("postgresql", kwargs).initialize_schema()
    return postgres, {"store": {"kvs": "postgresql", "kvs_kwargs": kwargs}, "keeps": True}


def disturb(server: Server, until: float, chance: random.Random) -> dict[str, int]:
    """Stop and kill a server at random moments; return how often."""
    done = {"stopped": 0, "killed": 0}
    while time.monotonic() < until:
        time.sleep(chance.uniform(0.5, 3))
        if chance.random() < 0.6:
            server.pause()
            time.sleep(chance.uniform(0.2, 2.5))
            server.resume()
            done["stopped"] += 1
        else:
            server.kill()
            time.sleep(chance.uniform(0, 1))
            server.start()
            done["killed"] += 1
    return done


def run(name: str, seconds: float, seed: int) -> tuple[list[str], dict[str, Any]]:
    """Return what went wrong, and what was counted."""
    server, settings = make_server(name)
    try:
        command = [sys.executable, "-m", "tests.soak.worker", json.dumps(settings), str(seconds)]
        workers = [
            subprocess.Popen([*command, str(number)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
            for number in range(PROCESSES)
        ]
        done = disturb(server, time.monotonic() + seconds - 4, random.Random(seed))
        printed = [worker.communicate()[0] for worker in workers]
    finally:
        server.close()
    reports = [json.loads(text.splitlines()[-1]) if text else {} for text in printed]
    return summary(reports, done)


def summary(
    reports: list[dict[str, Any]], done: dict[str, int]
) -> tuple[list[str], dict[str, Any]]:
    wrong = [error for report in reports for error in report.get("errors", ["a process died"])]
    counts: dict[str, int] = {}
    for report in reports:
        for what, count in report.get("counts", {}).items():
            counts[what] = counts.get(what, 0) + count
        _, warm, *_, last = report.get("memory", [0, 0, 0])
        if last - warm > GROWTH:
            wrong.append(f"memory grew from {warm} to {last} KiB")
    longest = max(report.get("longest", 0) for report in reports)
    memory = [report.get("memory") for report in reports]
    return wrong, {**done, **counts, "longest call": round(longest, 2), "memory": memory}


def main(names: list[str], seconds: float) -> int:
    failed = 0
    for name in names:
        seed = random.SystemRandom().randrange(10**6)
        wrong, counted = run(name, seconds, seed)
        print(f"{name}, {seconds:g} s, seed {seed}: {json.dumps(counted)}", flush=True)
        for error in wrong:
            print(f"  wrong: {error}", flush=True)
        failed += bool(wrong)
    return failed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("stores", nargs="*", help="redis, memcached or postgresql")
    parser.add_argument("--seconds", type=float, default=120)
    arguments = parser.parse_args()
    sys.exit(main(arguments.stores or ["redis", "memcached", "postgresql"], arguments.seconds))

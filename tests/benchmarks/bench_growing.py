"""The processor time of redis for each request: ``python -m tests.benchmarks.bench_growing``.

It measures a single server, a server with a replica, and a cluster of three primaries with a
replica each. The processor time of a server includes what the kernel does for it. What an idle
server uses is subtracted. The figures are those of the best round, because a busy machine makes the
processor slower, too.
``docs/growing.rst`` computes the size of a cluster from them.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from pyramid.config import Configurator

from pyramid_kvs.kvs import KVS
from tests.benchmarks.bench_session import SMALL, change, environ, read
from tests.servers import RedisCluster, RedisServer, wait_until

SESSIONS = 1000
THREADS = 8
#: How long to measure idle servers, in seconds.
IDLE = 0.3
LIMIT = {"limit": 10**9, "window": 3600}
LIMITS = {
    "no limit": None,
    "one limit": [LIMIT],
    "a limit by address too": [LIMIT, {**LIMIT, "by": "address"}],
}


class Case(NamedTuple):
    """Requests of one kind, and what they ask of the store."""

    name: str
    limits: list[dict[str, Any]] | None
    path: str


CASES = [
    Case(f"{verb} the session, {name}", limits, f"/{verb.split()[0]}")
    for verb in ("read", "change")
    for name, limits in LIMITS.items()
]


class Used(NamedTuple):
    """Microseconds of each request: of all primaries, of all replicas, and of the application."""

    primaries: float
    replicas: float
    application: float


def session_ids() -> list[str]:
    return [f"{number:040x}" for number in range(SESSIONS)]


def fill(url: str) -> None:
    driver = KVS("redis", {"url": url}, key_prefix="session::")
    record = json.dumps({**SMALL, "__kvs_created": time.time()})
    driver.raw_set_many(dict.fromkeys(session_ids(), record), 3600)
    driver.close()


def application(url: str, case: Case) -> Any:
    store = {"kvs": "redis", "kvs_kwargs": {"url": url}, "ttl": 3600}
    config = Configurator(settings={"kvs.session": store, "kvs.ratelimit": case.limits or []})
    config.include("pyramid_kvs")
    for name, view in (("read", read), ("change", change)):
        config.add_route(name, f"/{name}")
        config.add_view(view, route_name=name)
    return config.make_wsgi_app()


def send(app: Any, path: str, ids: Sequence[str]) -> None:
    """Send a request for each session, in several threads: connections are busy at once."""

    def send_some(part: Sequence[str]) -> None:
        for number, session_id in enumerate(part):
            found = environ(path)
            found["HTTP_COOKIE"] = f"session_id={session_id}"
            found["REMOTE_ADDR"] = f"192.0.2.{number % 250}"
            statuses: list[str] = []
            b"".join(app(found, lambda status, *_, statuses=statuses: statuses.append(status)))
            assert statuses == ["200 OK"], statuses

    threads = [threading.Thread(target=send_some, args=(ids[n::THREADS],)) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def cpu(servers: Sequence[RedisServer]) -> float:
    """Return the seconds that the processes of the servers have used."""
    total = 0.0
    for server in servers:
        found = server.command("INFO", "cpu")
        total += found["used_cpu_user"] + found["used_cpu_sys"]
    return total


def measure(
    app: Any, path: str, primaries: Sequence[RedisServer], replicas: Sequence[RedisServer]
) -> Used:
    """Send the requests of a round, and then wait for as long."""
    with_requests = used_during(lambda: send(app, path, session_ids()), primaries, replicas)
    idle = used_during(lambda: time.sleep(IDLE), primaries, replicas)
    share = with_requests.seconds / idle.seconds
    return Used(
        with_requests.primaries - idle.primaries * share,
        with_requests.replicas - idle.replicas * share,
        with_requests.application,
    )


class Spent(NamedTuple):
    """Microseconds of each request, and the seconds that all took."""

    primaries: float
    replicas: float
    application: float
    seconds: float


def used_during(
    work: Callable[[], object], primaries: Sequence[RedisServer], replicas: Sequence[RedisServer]
) -> Spent:
    def now() -> tuple[float, ...]:
        return cpu(primaries), cpu(replicas), time.process_time(), time.monotonic()

    before = now()
    work()
    *used, seconds = [late - early for early, late in zip(before, now(), strict=True)]
    return Spent(*[one / SESSIONS * 1e6 for one in used], seconds)


def rows(
    url: str, primaries: Sequence[RedisServer], replicas: Sequence[RedisServer], rounds: int
) -> Iterator[tuple[Case, Used]]:
    fill(url)
    for case in CASES:
        app = application(url, case)
        measure(app, case.path, primaries, replicas)
        found = [measure(app, case.path, primaries, replicas) for _ in range(rounds)]
        yield case, Used(*map(min, zip(*found, strict=True)))


def show(title: str, found: Iterator[tuple[Case, Used]]) -> None:
    print(f"{title:<45} {'primaries':>9} {'replicas':>9} {'application':>12}   µs of a request")
    for case, used in found:
        print(f"{case.name:<45} " + " ".join(f"{part:>9.1f}" for part in used), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    with RedisServer() as server:
        show("a single server", rows(server.url, [server], [], rounds))
    with RedisServer() as server, RedisServer() as replica:
        replica.command("REPLICAOF", server.host, server.port)
        wait_until(lambda: replica.command("ROLE")[3] == b"connected", "replication")
        show("with a replica", rows(server.url, [server], [replica], rounds))
    with RedisCluster() as cluster:
        primaries = cluster.primaries()
        replicas = [node for node in cluster.nodes if node not in primaries]
        show("a cluster", rows(cluster.url, primaries, replicas, rounds))


if __name__ == "__main__":
    main()

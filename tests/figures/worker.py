"""A worker with all features: ``python -m tests.figures.worker URL [REQUESTS]``.

It prints the blocks of memory that each request leaves, and how much the process grows. The URL is
that of an empty redis. 100,000 requests take about a minute.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import random
import sys
from pathlib import Path
from typing import Any

from tests.figures.site import VIEWS, Client, site

REQUESTS = 6_000

#: More than the bounded caches of the package hold, for example those of addresses.
WARM_UP = 10_000
CLIENTS = 500

#: What happens most, and each of the others.
PATHS = ["read", "change", "read", "hit", *VIEWS, "limited", "nowhere"]


def settings(store: dict[str, Any]) -> dict[str, Any]:
    limit = {"limit": 10**9, "window": 60}
    with contextlib.suppress(ImportError):
        import prometheus_client  # noqa: F401

        return {"kvs.observe": ["prometheus"], **limits(store, limit)}
    return limits(store, limit)


def limits(store: dict[str, Any], limit: dict[str, Any]) -> dict[str, Any]:
    """Return settings of limits of all strategies, by address and by session."""
    strategies = ("fixed-window", "sliding-window", "gcra")
    found = [
        {**limit, "by": by, "strategy": s} for s in strategies for by in ("address", "session")
    ]
    return {"kvs.ratelimit": [{**store, **each} for each in found]}


def serve(clients: list[Client], count: int, start: int) -> None:
    """Answer requests, each from another address, of many sessions."""
    for number in range(start, start + count):
        client = clients[random.randrange(len(clients))]
        client.address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        client.get(f"/{PATHS[number % len(PATHS)]}")


def memory() -> tuple[int, int]:
    """Return the number of blocks of Python's objects, and the bytes of the process."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return sys.getallocatedblocks(), pages * 4096


def main(url: str, requests: int = REQUESTS) -> None:
    logging.disable(logging.CRITICAL)
    store = {"kvs": "redis", "kvs_kwargs": {"url": url}}
    app = site(store, **settings(store))
    clients = [Client(app) for _ in range(CLIENTS)]
    serve(clients, WARM_UP, 0)
    blocks, size = memory()
    serve(clients, requests, WARM_UP)
    more_blocks, more_size = memory()
    print((more_blocks - blocks) / requests, (more_size - size) / requests, size)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))

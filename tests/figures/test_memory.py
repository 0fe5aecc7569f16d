"""The memory of an entry of the memory driver, and that of a worker after many requests."""

from __future__ import annotations

import subprocess
import sys

from tests.figures.measuring import ROOT
from tests.servers import RedisServer

#: The most bytes that an entry may take: a key of 10 characters, 100 bytes of data, and a ttl.
ENTRY = 380

#: The most blocks and bytes that a request may leave on average, for what is not steady.
BLOCKS, BYTES = 0.1, 200

ENTRIES = """
import gc, tracemalloc
from pyramid_kvs.kvs import KVS

driver = KVS("memory")
driver.raw_set("first", b"x", 60)
gc.collect()
tracemalloc.start()
count = 20_000
for number in range(count):
    driver.raw_set(f"key{number:07}", b"%0100d" % number, 3600)
gc.collect()
print(tracemalloc.get_traced_memory()[0] / count)
"""


def output(*arguments: str) -> str:
    command = [sys.executable, *arguments]
    return subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True).stdout


def test_an_entry_of_the_memory_driver() -> None:
    assert float(output("-c", ENTRIES)) < ENTRY


def test_a_worker_does_not_grow(redis_server: RedisServer) -> None:
    """Requests of many clients and sessions leave nothing once all caches are full.

    Each object that a request leaves is a block of memory, however small it is. The size of the
    process is less exact: it changes by whole pages, and by arenas of a quarter of a megabyte.
    """
    blocks, size, _ = output("-m", "tests.figures.worker", redis_server.url).split()
    assert float(blocks) < BLOCKS
    assert float(size) < BYTES

"""Run as a program: fork without Python's hooks, as uWSGI does, and use one driver everywhere.

    python -m tests.forks.children NAME KVS_KWARGS

The parent uses the driver first, so that it has open connections. Then it makes children by the C
library's ``fork``, for which Python calls no ``os.register_at_fork`` function. All processes write
and read keys at the same time. A process that reads another one's value, or that hangs, has used
another one's connection, or waits for a lock that nobody will release.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from typing import Any

from pyramid_kvs.kvs import KVS
from tests.children import fork_in_c

CHILDREN = 4
ROUNDS = 150
SECONDS = 30


def use(driver: KVS) -> None:
    """Write and read keys of this process.

    :raises AssertionError: a value belongs to another process.
    """
    process = f"{os.getpid()}-{time.monotonic_ns()}"
    for number in range(ROUNDS):
        key = f"{process}-{number % 7}"
        driver.set(key, [process, number])
        assert driver.get(key) == [process, number], "another process's reply"
        assert driver.get_many([key]) == {key: [process, number]}, "another process's replies"
        assert driver.incr(f"{process}-count") == number + 1, "another process's count"


def run(driver: KVS) -> int:
    """Use the driver in this process and its children; return how many of them went wrong."""
    use(driver)
    failed = fork_all(driver)
    # A child that is forked while another thread asks for the interpreter's lock would wait for
    # that thread forever, because it does not exist there. Nobody asks before this time is over.
    sys.setswitchinterval(60)
    stop = threading.Event()
    busy = threading.Thread(target=keep_busy, args=(driver, stop))
    busy.start()
    failed += fork_all(driver)
    stop.set()
    busy.join()
    return failed


def fork_all(driver: KVS) -> int:
    """Fork, use the driver everywhere, and return how many children went wrong."""
    children = []
    for _ in range(CHILDREN):
        child = fork_in_c()
        if child == 0:
            finish_child(driver)
        children.append(child)
    use(driver)
    return sum(os.waitpid(child, 0)[1] != 0 for child in children)


def keep_busy(driver: KVS, stop: threading.Event) -> None:
    """Hold the driver's locks now and then, so that some forks happen while they are held."""
    sys.setprofile(lambda *event: time.sleep(0.0002))  # between all calls, also with a lock
    while not stop.is_set():
        driver.set("busy", "x")


def finish_child(driver: KVS) -> None:
    signal.alarm(SECONDS)  # a child that hangs is killed, and counts as one that went wrong
    try:
        use(driver)
    except BaseException as error:
        os.write(2, f"child: {type(error).__name__}: {error}\n".encode())
        os._exit(1)
    os._exit(0)


def main(name: str, kwargs: dict[str, Any]) -> int:
    driver = KVS(name, kwargs, f"forks-{os.getpid()}::")
    driver.initialize_schema()
    return run(driver)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], json.loads(sys.argv[2])))

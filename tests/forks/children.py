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
from collections.abc import Callable
from typing import Any

from pyramid_kvs.kvs import KVS
from tests.children import fork_in_c

CHILDREN = 4
ROUNDS = 150
SECONDS = 90


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


class Busy(threading.Thread):
    """A thread that uses the driver, and that stops anywhere in a call while another one forks.

    It stops in an untimed wait. If it ran, it could hold or ask for the interpreter's own lock at
    the fork, and the child would wait for it forever, because this thread does not exist there.
    """

    def __init__(self, driver: KVS) -> None:
        super().__init__(daemon=True)
        self.driver = driver
        self.is_asked_to_stop = False
        self.has_stopped = threading.Semaphore(0)
        self.may_go_on = threading.Semaphore(0)
        self.is_over = False

    def run(self) -> None:
        sys.setprofile(self.between_calls)
        while not self.is_over:
            self.driver.set("busy", "x")

    def between_calls(self, *event: object) -> None:
        if self.is_asked_to_stop:
            self.is_asked_to_stop = False
            self.has_stopped.release()
            self.may_go_on.acquire()
        else:
            time.sleep(0.0002)  # the others' turn

    def fork(self) -> int:
        """Fork while this thread has stopped."""
        self.is_asked_to_stop = True
        self.has_stopped.acquire()
        child = fork_in_c()
        if child:
            self.may_go_on.release()
        return child


def run(driver: KVS) -> int:
    """Use the driver in this process and its children; return how many of them went wrong."""
    use(driver)
    failed = use_everywhere(driver, fork_in_c)
    sys.setswitchinterval(60)  # a thread runs until it waits, and takes the lock from nobody
    busy = Busy(driver)
    busy.start()
    failed += use_everywhere(driver, busy.fork)
    busy.is_over = True
    busy.join()
    return failed


def use_everywhere(driver: KVS, fork: Callable[[], int]) -> int:
    """Fork, use the driver in all processes, and return how many children went wrong."""
    children = []
    for _ in range(CHILDREN):
        child = fork()
        if child == 0:
            finish_child(driver)
        children.append(child)
    use(driver)
    return sum(os.waitpid(child, 0)[1] != 0 for child in children)


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

"""Each thread and each child process gets its own connections."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

from tests.drivers.redis.support import driver_of, pool_of
from tests.servers import wait_until


def test_threads_get_their_own(driver):
    keys = {f"k{number}": number for number in range(8)}
    driver.set_many(keys)
    wrong = []

    def work(key: str, value: int) -> None:
        for _ in range(200):
            if driver.get(key) != value or driver.get_many([key]) != {key: value}:
                wrong.append(key)
            driver.incr("count")

    threads = [threading.Thread(target=work, args=item) for item in keys.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert driver.get("count") == 1600


def in_child(test: Callable[[], Any]) -> int:
    """Run a test in a forked child; return the child's pid."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            test()
            status = 0
        finally:
            os._exit(status)
    return pid


def test_fork(driver):
    """The driver was used before the fork. Parent and children use it at the same time."""
    keys = {str(number): f"value {number}" for number in range(4)}
    driver.set_many(keys)

    def work(key: str) -> None:
        for _ in range(300):
            assert driver.get(key) == keys[key]
            driver.incr("count")

    children = [in_child(lambda key=key: work(key)) for key in list(keys)[1:]]
    work("0")
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0]
    assert driver.get("count") == 1200


def test_fork_during_a_call(own_redis):
    """A thread of the parent waits for a reply. The child does not touch its connection."""
    server = own_redis()
    driver = driver_of(server, socket_timeout=30)
    driver.set_many({"a": "A", "b": "B"})
    found: list[Any] = []
    server.pause()
    thread = threading.Thread(target=lambda: found.append(driver.get("a")))
    thread.start()
    wait_until(lambda: not pool_of(driver).counts().idle, "a call under way")

    def child() -> None:
        assert driver.get("b") == "B"
        driver.close()
        assert driver.get("b") == "B"

    pid = in_child(child)
    server.resume()
    assert os.waitpid(pid, 0)[1] == 0
    thread.join()
    assert found == ["A"]
    assert driver.get("b") == "B"

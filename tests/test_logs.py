"""Log lines that are throttled, and ids that a log does not show."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import pytest

from pyramid_kvs.logs import ThrottledLog, fingerprint
from tests.children import FORKS, is_true_in_child

logger = logging.getLogger("pyramid_kvs.tests")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_one_line_in_an_interval_says_how_many_were_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    log = ThrottledLog(logger, 60, clock)
    for clock.now in (0, 1, 59.9, 60, 61, 200):
        log.warning("a %s is unavailable", "store")
    assert caplog.messages == [
        "a store is unavailable",
        "a store is unavailable (2 more since the last such line)",
        "a store is unavailable (1 more since the last such line)",
    ]


def test_an_interval_of_infinity_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    log = ThrottledLog(logger, float("inf"), clock)
    for clock.now in (0, 10**9):
        log.warning("once")
    assert caplog.messages == ["once"]


def test_threads_write_one_line(caplog: pytest.LogCaptureFixture) -> None:
    log = ThrottledLog(logger)
    barrier = threading.Barrier(8)

    def work() -> None:
        barrier.wait(10)
        for _ in range(100):
            log.warning("once")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert caplog.messages == ["once"]


@pytest.mark.parametrize("fork", FORKS)
def test_a_child_logs_although_its_parent_was_logging(fork: Callable[[], int]) -> None:
    """A thread that writes a line while the process forks does not exist in the child."""
    logging_now, forked = threading.Event(), threading.Event()
    parent = threading.current_thread()

    def clock() -> float:
        if threading.current_thread() is not parent:
            logging_now.set()
            forked.wait(60)
        return 0.0

    log = ThrottledLog(logging.getLogger("pyramid_kvs.tests.child"), clock=clock)
    thread = threading.Thread(target=log.warning, args=("in the parent",))
    thread.start()
    assert logging_now.wait(60)
    try:
        assert is_true_in_child(lambda: log.warning("in the child") is None, fork)
    finally:
        forked.set()
        thread.join()


def test_a_signal_handler_may_log_while_a_line_is_written() -> None:
    log: ThrottledLog

    def clock() -> float:
        if not interrupted:
            interrupted.append(1)
            log.warning("from the handler")
        return 0.0

    interrupted: list[int] = []
    log = ThrottledLog(logger, clock=clock)
    log.warning("from the request")
    assert interrupted


def test_a_fingerprint_tells_ids_apart_and_hides_them() -> None:
    one, other = fingerprint("a" * 40), fingerprint("b" * 40)
    assert one == fingerprint("a" * 40) != other
    assert len(one) == 8
    assert fingerprint("lone\ud800surrogate")

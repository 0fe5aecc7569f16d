"""State that a child process does not share with its parent."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

from pyramid_kvs.forks import ProcessLock, _new_marker, _ProcessId, renew_in_child, renewed
from tests.children import FORKS, is_true_in_child


@pytest.mark.parametrize("fork", FORKS)
def test_a_lock_is_free_in_a_child(fork: Callable[[], int]) -> None:
    lock = ProcessLock()
    held, forked = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            forked.wait(60)

    def enter() -> bool:
        with lock:
            return True

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(60)
    try:
        assert is_true_in_child(enter, fork)
    finally:
        forked.set()
        thread.join()


@pytest.mark.parametrize("fork", FORKS)
def test_a_lock_of_the_thread_that_forks_is_released_in_both(fork: Callable[[], int]) -> None:
    lock = ProcessLock()

    def leave() -> bool:
        lock.__exit__()
        with lock:
            return True

    with lock:
        assert is_true_in_child(leave, fork)


@pytest.mark.parametrize("fork", FORKS)
def test_a_child_of_a_child(fork: Callable[[], int]) -> None:
    lock = ProcessLock()

    def enter() -> bool:
        with lock:
            return is_true_in_child(lambda: renewed[0] == (fork is os.fork), fork)

    assert is_true_in_child(enter, fork)


@pytest.mark.parametrize("marker", [_new_marker(), _ProcessId()])
@pytest.mark.parametrize("fork", FORKS)
def test_a_marker_is_cleared_in_a_child(fork: Callable[[], int], marker: Any) -> None:
    """The second one is for systems that cannot clear a page of memory."""
    marker[0] = 1
    assert marker[0]

    def is_cleared() -> bool:
        before = marker[0]
        marker[0] = 1
        return not before and marker[0]

    assert is_true_in_child(is_cleared, fork)
    assert marker[0]


def test_a_lock_keeps_threads_apart() -> None:
    lock = ProcessLock()
    inside: list[int] = []

    def work() -> None:
        for _ in range(200):
            with lock, lock:
                inside.append(1)
                assert len(inside) == 1
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert inside == []


def test_an_object_is_renewed_in_a_child() -> None:
    class Item:
        renewed = False

        def after_fork(self) -> None:
            self.renewed = True

    item = Item()
    renew_in_child(item)
    assert is_true_in_child(lambda: item.renewed)
    assert not item.renewed

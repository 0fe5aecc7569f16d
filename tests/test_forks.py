"""State that a child process does not share with its parent."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from pyramid_kvs.forks import ProcessLock, renew_in_child
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

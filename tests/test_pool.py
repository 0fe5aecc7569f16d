"""The pool of connections that drivers share."""

from __future__ import annotations

import gc
import os
import threading

import pytest

from pyramid_kvs.drivers.pool import Pool
from pyramid_kvs.exceptions import KVSUnavailable


class Pipe:
    """A connection to nowhere: a file descriptor, which the collector closes at the latest."""

    def __init__(self) -> None:
        self.used_at = 0.0
        self.fd, other = os.pipe()
        self.is_open = True
        os.close(other)

    def close(self) -> None:
        self.is_open = False
        os.close(self.fd)

    def __del__(self) -> None:
        if self.is_open:
            self.close()


def test_latest_given_is_first_taken():
    pool = Pool(Pipe, 3)
    first, second = pool.take(), pool.take()
    pool.give(second)
    pool.give(first)
    assert pool.take() is first
    assert pool.take() is second


def test_give_notes_the_time():
    pool = Pool(Pipe, 1)
    connection = pool.take()
    assert connection.used_at == 0
    pool.give(connection)
    assert connection.used_at > 0


def test_exhausted():
    pool = Pool(Pipe, 2)
    held = [pool.take(), pool.take()]
    with pytest.raises(KVSUnavailable, match="all 2 connections are in use"):
        pool.take()
    pool.drop(held.pop())
    assert pool.take().is_open


def test_dropped_is_closed():
    pool = Pool(Pipe, 1)
    connection = pool.take()
    pool.drop(connection)
    assert not connection.is_open
    assert pool.take() is not connection


def test_lost_connection_makes_room():
    """An exception between ``take`` and the caller's ``try`` does not narrow the pool for good."""
    pool = Pool(Pipe, 1)
    for _ in range(3):
        pool.take()
        gc.collect()


def test_failed_connect_makes_room():
    """Not even while somebody keeps the error, whose traceback holds what was being opened."""

    def refuse() -> Pipe:
        raise ConnectionRefusedError

    pool = Pool(refuse, 1)
    errors = []
    for _ in range(3):
        with pytest.raises(ConnectionRefusedError) as raised:
            pool.take()
        errors.append(raised.value)


def test_interrupted_connect_makes_room():
    def interrupt() -> Pipe:
        raise KeyboardInterrupt

    pool = Pool(interrupt, 1)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            pool.take()


def test_opening_counts():
    """A connection that is being opened has its place already."""
    opening, go_on = threading.Event(), threading.Event()

    def connect() -> Pipe:
        opening.set()
        assert go_on.wait(10)
        return Pipe()

    pool = Pool(connect, 1)
    thread = threading.Thread(target=pool.take)
    thread.start()
    assert opening.wait(10)
    with pytest.raises(KVSUnavailable):
        pool.take()
    go_on.set()
    thread.join()


def test_close_leaves_those_in_use():
    pool = Pool(Pipe, 3)
    used, *free = [pool.take() for _ in range(3)]
    for connection in free:
        pool.give(connection)
    pool.close()
    assert used.is_open
    assert not any(connection.is_open for connection in free)
    pool.give(used)
    assert pool.take() is used


def test_take_new_closes_the_free():
    pool = Pool(Pipe, 2)
    old = [pool.take(), pool.take()]
    for connection in old:
        pool.give(connection)
    assert pool.take_new() not in old
    assert not any(connection.is_open for connection in old)


def test_take_new_takes_no_returned():
    """A connection that comes back meanwhile is not taken for a new one."""
    pool = Pool(Pipe, 2)
    old = pool.take()

    class Closing(Pool[Pipe]):
        def close(self) -> None:
            super().close()
            self.give(old)

    pool.__class__ = Closing
    assert pool.take_new() is not old


def test_threads_share_no_connection():
    pool = Pool(Pipe, 8)
    used: set[Pipe] = set()
    shared = []

    def work() -> None:
        for turn in range(500):
            connection = pool.take()
            if connection in used:
                shared.append(connection)
            used.add(connection)
            used.discard(connection)
            if turn % 10:
                pool.give(connection)
            else:
                pool.drop(connection)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert shared == []
    assert len([pool.take() for _ in range(8)]) == 8


def in_child(test) -> bool:
    """Run a test in a forked child; return whether it held there."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = 0 if test() else 1
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1] == 0


def test_child_opens_its_own():
    pool = Pool(Pipe, 2)
    free, used = pool.take(), pool.take()
    pool.give(free)
    assert in_child(lambda: pool.take() not in (free, used) and pool.take() not in (free, used))
    assert pool.take() is free


def test_child_leaves_the_parents_open():
    """Neither ``close`` nor the collector closes in the child what the parent uses."""
    pool = Pool(Pipe, 1)
    connection = pool.take()
    pool.give(connection)

    fd = connection.fd
    del connection

    def test() -> bool:
        pool.close()
        gc.collect()
        os.fstat(fd)
        return in_child(lambda: bool(os.fstat(fd)))

    assert in_child(test)


def test_fork_while_a_thread_opens():
    """The lock that a thread of the parent holds is not the child's."""
    pool = Pool(Pipe, 1)
    with pool._lock:
        assert in_child(lambda: pool.take().is_open)

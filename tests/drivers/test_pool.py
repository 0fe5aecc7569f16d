"""The pool of connections that the drivers share."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import pytest

from pyramid_kvs.drivers import pool as pool_module
from pyramid_kvs.drivers import pooled as pooled_module
from pyramid_kvs.drivers.pool import Counts, Pool, Pooled
from pyramid_kvs.exceptions import KVSUnavailable
from pyramid_kvs.kvs import KVS
from tests.children import FORKS, is_true_in_child
from tests.servers import wait_until

InChild = Callable[[Callable[[], bool]], bool]


class Pipe(Pooled):
    """A connection that leads nowhere. Its file descriptor shows whether it was closed."""

    def __init__(self, began: float = 0.0) -> None:
        super().__init__()
        self.began = began
        self.fd, other = os.pipe()
        self.is_open = True
        os.close(other)

    is_open = False

    def close(self) -> None:
        if self.is_open:
            self.is_open = False
            os.close(self.fd)

    def __del__(self) -> None:
        self.close()


def pool_of(size: int, **options: Any) -> Pool[Pipe]:
    return Pool(Pipe, size, **{"timeout": 0.01, **options})


def opened(pool: Pool[Pipe], count: int) -> list[Pipe]:
    """Return that many connections, which are idle in the pool. The last one is taken first."""
    connections = [pool.take() for _ in range(count)]
    for connection in connections:
        pool.give(connection)
    return connections


@contextmanager
def running(*functions: Callable[[], object]) -> Iterator[None]:
    """Run functions in threads, and wait for their end."""
    threads = [threading.Thread(target=function, daemon=True) for function in functions]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


# -- taking and giving -----------------------------------------------------------------------


def test_the_most_recently_used_is_taken_first() -> None:
    pool = pool_of(3)
    first, second = pool.take(), pool.take()
    pool.give(second)
    pool.give(first)
    assert pool.take() is first
    assert pool.take() is second


def test_the_times_of_a_connection() -> None:
    pool = pool_of(1)
    started = time.monotonic()
    connection = pool.take()
    assert connection.is_new
    assert started <= connection.began == connection.taken_at <= time.monotonic()
    pool.give(connection)
    assert connection.taken_at <= connection.used_at <= time.monotonic()
    assert pool.take() is connection
    assert not connection.is_new
    assert connection.used_at <= connection.taken_at <= time.monotonic()


def test_dropped_is_closed() -> None:
    pool = pool_of(1)
    connection = pool.take()
    pool.drop(connection)
    assert not connection.is_open
    assert pool.take() is not connection


def test_an_error_of_closing_is_not_raised() -> None:
    class Broken(Pipe):
        def close(self) -> None:
            if self.is_open:
                super().close()
                raise ConnectionResetError

    pool = Pool(Broken, 1)
    pool.drop(pool.take())
    assert pool.counts() == Counts(0, 0, 0)


def test_counts() -> None:
    pool = pool_of(2, timeout=10)
    connections = opened(pool, 2)
    assert pool.counts() == Counts(idle=2, in_use=0, waiting=0)
    for _ in connections:
        pool.take()
    with running(pool.take):
        wait_until(lambda: pool.counts() == Counts(idle=0, in_use=2, waiting=1), "a caller")
        pool.drop(connections[0])


def test_take_idle_opens_nothing() -> None:
    pool = pool_of(1)
    assert pool.take_idle() is None
    (connection,) = opened(pool, 1)
    assert pool.take_idle() is connection
    assert pool.take_idle() is None


# -- limits ----------------------------------------------------------------------------------


def test_exhausted() -> None:
    pool = pool_of(2)
    held = [pool.take(), pool.take()]
    with pytest.raises(KVSUnavailable, match=r"all 2 connections .* none came free in 0\.01 s"):
        pool.take()
    pool.drop(held.pop())
    assert pool.take().is_open


def test_overflow_is_opened_and_not_kept() -> None:
    pool = pool_of(1, overflow=1)
    first, second = pool.take(), pool.take()
    with pytest.raises(KVSUnavailable, match="all 2 connections"):
        pool.take()
    pool.give(first)
    pool.give(second)
    assert (first.is_open, second.is_open) == (False, True)
    assert pool.counts() == Counts(idle=1, in_use=0, waiting=0)


def test_unlimited_overflow() -> None:
    pool = pool_of(1, overflow=-1)
    assert len({pool.take() for _ in range(50)}) == 50


def test_backlog() -> None:
    pool = pool_of(1, backlog=1, timeout=10)
    connection = pool.take()
    with running(pool.take):
        wait_until(lambda: pool.counts().waiting == 1, "the first in the line")
        with pytest.raises(KVSUnavailable, match="1 callers wait"):
            pool.take()
        pool.give(connection)


def test_backlog_of_none_opens_all_connections() -> None:
    """A call that opens a connection does not wait."""
    pool = pool_of(3, backlog=0)
    taken = [pool.take() for _ in range(3)]
    with pytest.raises(KVSUnavailable, match="0 callers wait"):
        pool.take()
    assert len(taken) == 3


def test_a_connection_that_is_being_opened_counts() -> None:
    opening, go_on = threading.Event(), threading.Event()

    def connect(_: float) -> Pipe:
        opening.set()
        assert go_on.wait(10)
        return Pipe()

    pool = Pool(connect, 1, timeout=0.01)
    with running(lambda: pool.give(pool.take())):
        assert opening.wait(10)
        with pytest.raises(KVSUnavailable):
            pool.take()
        go_on.set()


# -- waiting ---------------------------------------------------------------------------------


def test_callers_are_served_in_order() -> None:
    pool = pool_of(1, timeout=30)
    connection = pool.take()
    served: list[int] = []

    def caller(number: int) -> Callable[[], None]:
        def call() -> None:
            taken = pool.take()
            served.append(number)
            pool.give(taken)

        return call

    threads = [threading.Thread(target=caller(number)) for number in range(5)]
    for number, thread in enumerate(threads):
        thread.start()
        wait_until(lambda: pool.counts().waiting == number + 1, "a caller")  # noqa: B023
    pool.give(connection)
    for thread in threads:
        thread.join(30)
    assert served == [0, 1, 2, 3, 4]


def test_nobody_passes_the_line() -> None:
    """The thread that gave a connection back does not get it before one that waits."""
    pool = pool_of(1, timeout=30)
    connection = pool.take()
    waited: list[Pipe] = []
    with running(lambda: waited.append(pool.take())):
        wait_until(lambda: pool.counts().waiting == 1, "a caller")
        pool.give(connection)
        assert pool.take_idle() is None
    assert waited == [connection]


def test_a_dropped_connection_lets_a_waiting_caller_open_one() -> None:
    pool = pool_of(1, timeout=30)
    connection = pool.take()
    opened_later: list[Pipe] = []
    with running(lambda: opened_later.append(pool.take())):
        wait_until(lambda: pool.counts().waiting == 1, "a caller")
        dropped_at = time.monotonic()
        pool.drop(connection)
    assert opened_later[0].began >= dropped_at  # the call begins when the wait is over


def test_a_failed_connect_lets_the_next_caller_try() -> None:
    """Not even one that keeps the error, whose traceback holds what was being opened."""

    def refuse(_: float) -> Pipe:
        time.sleep(0.01)
        raise ConnectionRefusedError

    pool = Pool(refuse, 1, timeout=30)
    errors: list[BaseException] = []

    def call() -> None:
        try:
            pool.take()
        except ConnectionRefusedError as error:
            errors.append(error)

    with running(*[call] * 4):
        pass
    assert len(errors) == 4


def test_a_caller_that_gives_up_leaves_the_line() -> None:
    pool = pool_of(1, backlog=1)
    connection = pool.take()
    for _ in range(3):
        with pytest.raises(KVSUnavailable, match="none came free"):
            pool.take()
    pool.give(connection)
    assert pool.take() is connection


class Interrupted(BaseException):
    """As a worker's timeout raises it in a signal handler."""


def test_an_interrupted_caller_leaves_the_line() -> None:
    def interrupt(*_: object) -> None:
        raise Interrupted

    pool = pool_of(1, timeout=30)
    connection = pool.take()
    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Interrupted):
            pool.take()
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert pool.counts() == Counts(idle=0, in_use=1, waiting=0)
    pool.give(connection)
    assert pool.take() is connection


def test_a_handled_signal_does_not_restart_the_wait() -> None:
    pool = pool_of(1, timeout=0.5)
    connection = pool.take()
    previous = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
    started = time.monotonic()
    try:
        with pytest.raises(KVSUnavailable):
            pool.take()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert 0.4 < time.monotonic() - started < 1.5
    pool.drop(connection)


def test_a_signal_handler_may_use_the_pool() -> None:
    pool = pool_of(4, timeout=5)
    used: list[Pipe] = []
    using: list[bool] = []

    def use(*_: object) -> None:
        if not using:
            using.append(True)
            connection = pool.take()
            pool.give(connection)
            used.append(connection)
            using.clear()

    previous = signal.signal(signal.SIGALRM, use)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    end = time.monotonic() + 0.5
    try:
        while time.monotonic() < end:
            pool.drop(pool.take())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert used


# -- no wake-up is lost ----------------------------------------------------------------------


FILES = (pool_module.__file__, pooled_module.__file__)


class Preemption:
    """Run something else at one bytecode instruction of the pool's code in this thread."""

    def __init__(self, number: int, intruder: Callable[[], object]) -> None:
        self.left = number
        self.intruder = intruder

    def __enter__(self) -> Preemption:
        sys.settrace(self.trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in FILES:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                self.intruder()
        return self.trace


def joins_while_given_back(give_back: str, number: int) -> bool:
    """Let a caller join the line at an instruction of ``give``; return whether there is one."""
    pool = pool_of(1, timeout=20)
    connection = pool.take()
    served: list[Pipe] = []
    thread = threading.Thread(target=lambda: served.append(pool.take()), daemon=True)

    def join_the_line() -> None:
        thread.start()
        # It is served, or it waits in the line, or for the lock that this thread has.
        end = time.monotonic() + 0.005
        while not served and not pool.counts().waiting and time.monotonic() < end:
            time.sleep(0.0002)

    with Preemption(number, join_the_line) as preemption:
        getattr(pool, give_back)(connection)
    if preemption.left > 0:
        return False
    thread.join(10)
    assert served, f"not woken, at instruction {number}"
    return True


def given_back_while_joining(give_back: str, number: int) -> bool:
    """Give a connection back at an instruction of ``take``; return whether there is one."""
    pool = pool_of(1, timeout=20)
    connection = pool.take()
    reached, given = threading.Event(), threading.Event()
    in_time: list[bool] = []

    def give() -> None:
        in_time.append(reached.wait(0.1))  # or else the caller waits already
        getattr(pool, give_back)(connection)
        given.set()

    def let_the_other_give() -> None:
        reached.set()
        given.wait(0.003)  # it may wait for the lock that this thread has

    started = time.monotonic()
    with running(give), Preemption(number, let_the_other_give):
        pool.take()
    assert time.monotonic() - started < 10, f"not noticed, at instruction {number}"
    return in_time[0]


@pytest.mark.parametrize("give_back", ["give", "drop"])
@pytest.mark.parametrize("interleave", [joins_while_given_back, given_back_while_joining])
def test_no_wake_up_is_lost(interleave: Callable[[str, int], bool], give_back: str) -> None:
    """Another thread runs at each single instruction of ``give``, and of ``take``."""
    number = 1
    while interleave(give_back, number):
        number += 1
    assert number > 30


def test_threads_share_no_connection_and_nobody_waits_for_long() -> None:
    pool = pool_of(2, overflow=1, timeout=30)
    used: set[Pipe] = set()
    shared: list[Pipe] = []
    longest = 0.0
    barrier = threading.Barrier(16)

    def work() -> None:
        nonlocal longest
        barrier.wait()
        for turn in range(400):
            started = time.monotonic()
            connection = pool.take()
            longest = max(longest, time.monotonic() - started)
            if connection in used:
                shared.append(connection)
            used.add(connection)
            if turn % 3 == 0:
                time.sleep(0)
            used.discard(connection)
            if turn % 10:
                pool.give(connection)
            else:
                pool.drop(connection)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with running(*[work] * 16):
            pass
    finally:
        sys.setswitchinterval(interval)
    assert shared == []
    assert longest < 10
    counts = pool.counts()
    assert (counts.in_use, counts.waiting) == (0, 0)
    assert len([pool.take() for _ in range(3)]) == 3


def test_threads_raise_nothing_else_while_the_pool_is_closed() -> None:
    pool = pool_of(4, timeout=30)
    errors: list[BaseException] = []
    done = threading.Event()

    def work() -> None:
        try:
            while not done.is_set():
                connection = pool.take()
                assert connection.is_open
                pool.give(connection)
                pool.close_unused_since(connection.used_at)
                pool.counts()
        except BaseException as error:
            errors.append(error)

    with running(*[work] * 6):
        for _ in range(500):
            pool.close()
        done.set()
    assert errors == []


# -- connections that are lost ---------------------------------------------------------------


def test_a_lost_connection_makes_room() -> None:
    """An exception between ``take`` and the caller's ``try`` does not make the pool smaller."""
    pool = pool_of(1)
    for _ in range(3):
        pool.take()
    assert pool.counts() == Counts(0, 0, 0)


def test_a_lost_connection_makes_room_for_a_waiting_caller() -> None:
    pool = pool_of(1, timeout=0.2)
    held = [pool.take()]
    with running(pool.take):
        wait_until(lambda: pool.counts().waiting == 1, "a caller")
        held.clear()


def test_an_interrupted_connect_makes_room() -> None:
    def interrupt(_: float) -> Pipe:
        raise Interrupted

    pool = Pool(interrupt, 1, timeout=0.01)
    for _ in range(2):
        with pytest.raises(Interrupted):
            pool.take()


def interrupt() -> None:
    raise Interrupted


def is_interrupted_at(number: int, idle: int) -> bool:
    """Raise an exception at an instruction of the pool; return whether there is one."""
    pool = pool_of(1)
    opened(pool, idle)

    def use() -> None:
        connection = pool.take()
        try:
            pool.drop(connection if connection.is_new else pool.replace(connection))
        except BaseException:
            pool.drop(connection)
            raise

    with Preemption(number, interrupt) as preemption, suppress(Interrupted):
        use()
    assert pool.counts().waiting == 0
    assert pool.take().is_open
    return preemption.left <= 0


@pytest.mark.parametrize("idle", [0, 1])
def test_exceptions_at_any_instruction_make_no_pool_smaller(idle: int) -> None:
    """A signal handler can raise anywhere in the pool."""

    def count() -> int:
        number = 1
        while is_interrupted_at(number, idle):
            number += 1
        return number

    # In another thread: an exception of a trace function can spoil the thread's sys.exc_info().
    with ThreadPoolExecutor(1) as executor:
        assert executor.submit(count).result() > 50


# -- closing ---------------------------------------------------------------------------------


def test_close_ends_those_in_use_when_they_come_back() -> None:
    pool = pool_of(3)
    used, *idle = [pool.take() for _ in range(3)]
    for connection in idle:
        pool.give(connection)
    pool.close()
    assert used.is_open
    assert not any(connection.is_open for connection in idle)
    pool.give(used)
    assert not used.is_open
    assert pool.take() not in (used, *idle)


def test_close_while_a_connection_is_opened() -> None:
    """It may lead to the server that ``close`` was called for."""

    def connect(_: float) -> Pipe:
        pool.close()
        return Pipe()

    pool = Pool(connect, 1)
    connection = pool.take()
    assert connection.is_open
    pool.give(connection)
    assert not connection.is_open


def test_close_unused_since() -> None:
    pool = pool_of(3)
    old, middle, young = opened(pool, 3)
    pool.close_unused_since(middle.used_at)
    assert [c.is_open for c in (old, middle, young)] == [False, False, True]
    assert pool.take() is young


def test_replace_closes_what_was_idle_for_as_long() -> None:
    pool = pool_of(3)
    old, dead, young = opened(pool, 3)
    assert pool.take() is young
    assert pool.take() is dead
    pool.give(young)
    new = pool.replace(dead)
    assert [c.is_open for c in (old, dead, young)] == [False, False, True]
    assert new.is_new
    assert new.taken_at == dead.taken_at  # the same call goes on
    assert pool.counts() == Counts(idle=1, in_use=1, waiting=0)


def test_replace_waits_for_no_place() -> None:
    pool = pool_of(1)
    opened(pool, 1)
    connection = pool.replace(pool.take())
    with pytest.raises(KVSUnavailable):
        pool.take()
    pool.give(connection)


def test_recycle() -> None:
    pool = pool_of(1, recycle=0.05)
    (connection,) = opened(pool, 1)
    assert pool.take() is connection
    pool.give(connection)
    time.sleep(0.06)
    assert pool.take() is not connection
    assert not connection.is_open


# -- processes -------------------------------------------------------------------------------


@pytest.fixture(params=FORKS, ids=["python", "c"])
def in_child(request: pytest.FixtureRequest) -> InChild:
    """Return whether a check is true in a forked child."""
    return lambda check: is_true_in_child(check, request.param)


def test_a_child_opens_its_own(in_child: InChild) -> None:
    pool = pool_of(2)
    idle, used = pool.take(), pool.take()
    pool.give(idle)
    assert in_child(lambda: pool.take() not in (idle, used) and pool.take() not in (idle, used))
    assert pool.take() is idle


def test_a_child_leaves_the_parents_connections_open(in_child: InChild) -> None:
    """Neither ``close`` nor the collector closes in the child what the parent uses."""
    pool = pool_of(2)
    (idle,) = opened(pool, 1)
    fd = idle.fd
    del idle

    def test() -> bool:
        pool.close()
        gc.collect()
        os.fstat(fd)
        return in_child(lambda: bool(os.fstat(fd)))

    assert in_child(test)


@pytest.mark.parametrize("give_back", ["give", "drop"])
def test_a_connection_taken_before_the_fork(give_back: str, in_child: InChild) -> None:
    """It comes back in the child, where it is neither closed nor used again."""
    pool = pool_of(2)
    connection = pool.take()

    def test() -> bool:
        getattr(pool, give_back)(connection)
        other = pool.take()
        pool.close()
        return other is not connection and connection.is_open

    assert in_child(test)
    assert pool.counts().in_use == 1


def test_fork_while_a_thread_of_the_parent_waits(in_child: InChild) -> None:
    pool = pool_of(1, timeout=30)
    connection = pool.take()
    with running(lambda: pool.give(pool.take())):
        wait_until(lambda: pool.counts().waiting == 1, "a caller")
        assert in_child(lambda: pool.take() is not connection)
        pool.give(connection)


def test_fork_while_a_thread_of_the_parent_has_the_lock(in_child: InChild) -> None:
    """A new connection is closed under the lock, in a thread that the child does not have."""
    parent, closing, go_on = os.getpid(), threading.Event(), threading.Event()

    class Slow(Pipe):
        def close(self) -> None:
            super().close()
            closing.set()
            assert os.getpid() != parent or go_on.wait(30)

    pool = Pool(Slow, 1)
    pool.give(pool.take())
    with running(pool.close):
        assert closing.wait(10)
        assert in_child(lambda: pool.take().is_open)
        go_on.set()


def test_threads_of_a_child_share_the_pool(in_child: InChild) -> None:
    """The first ones to use it find the fork at the same time."""
    pool = pool_of(4)
    opened(pool, 1)

    def test() -> bool:
        barrier = threading.Barrier(4)

        def take() -> None:
            barrier.wait()
            taken.append(pool.take())

        taken: list[Pipe] = []
        with running(*[take] * 4):
            pass
        return pool.counts() == Counts(idle=0, in_use=4, waiting=0)

    assert all(in_child(test) for _ in range(10))


# -- kvs_kwargs ------------------------------------------------------------------------------


STORES = {"redis": {"port": 1}, "memcache": {"servers": ["127.0.0.1:1"]}}


@pytest.mark.parametrize("name", STORES)
@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("pool_timeout", 0, "pool_timeout: found 0, expected a positive number of seconds"),
        ("pool_timeout", "1", "pool_timeout: found '1', expected a positive number of seconds"),
        ("max_backlog", -2, "max_backlog: found -2, expected 0, a positive integer, or -1"),
    ],
)
def test_a_refused_option(name: str, option: str, value: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        KVS(name, {**STORES[name], option: value})


@pytest.mark.parametrize("name", ["redis", "memcache"])
def test_options_of_the_pool(name: str, request: pytest.FixtureRequest) -> None:
    """A call waits as long as it is allowed to, and only as many calls wait."""
    server = request.getfixturevalue({"redis": "own_redis", "memcache": "own_memcached"}[name])()
    address = {"port": server.port} if name == "redis" else {"servers": [server.url]}
    options = {"max_connections": 1, "socket_timeout": 10, "pool_timeout": 0.2, "max_backlog": 1}
    driver = KVS(name, {**address, **options})
    driver.set("key", 1)
    errors: list[str] = []

    def call() -> None:
        try:
            assert driver.get("key") == 1
        except KVSUnavailable as error:
            errors.append(str(error))

    server.pause()
    with running(*[call] * 3):
        wait_until(lambda: len(errors) == 2, "two refusals", 5)
        server.resume()
    assert sorted(errors) == [
        "all 1 connections are in use, and 1 callers wait for one",
        "all 1 connections are in use; none came free in 0.2 s",
    ]

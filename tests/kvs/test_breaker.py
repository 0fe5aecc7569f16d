"""The circuit breaker: who is refused, who probes, and what is logged."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from pyramid_kvs.exceptions import KVSUnavailable
from pyramid_kvs.kvs import breaker as module
from pyramid_kvs.kvs.breaker import Breaker, Breakers, check_seconds, told_later
from tests.clock import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(1000.0)
    monkeypatch.setattr(module, "time", clock)
    return clock


def is_admitted(breaker: Breaker) -> bool:
    try:
        breaker.admit()
    except KVSUnavailable:
        return False
    return True


def test_a_timeout_opens_it_and_one_caller_a_second_probes(clock: Clock) -> None:
    breaker = Breaker("redis at a:1")
    assert not breaker.is_troubled
    breaker.timed_out()
    assert breaker.is_troubled
    clock.now += 0.9
    assert breaker.is_open
    assert not is_admitted(breaker)
    clock.now += 0.2
    assert [is_admitted(breaker) for _ in range(3)] == [True, False, False]
    clock.now += 1.1
    assert [is_admitted(breaker) for _ in range(3)] == [True, False, False]


def test_an_answer_closes_it(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    breaker = Breaker("redis at a:1")
    breaker.timed_out()
    clock.now += 1.1
    breaker.timed_out()
    clock.now += 1.4
    breaker.admit()
    breaker.answered()
    assert not breaker.is_troubled
    assert not breaker.is_open
    assert caplog.messages == ["redis at a:1 is back; it was unavailable for 2.5 s"]
    breaker.answered()
    assert len(caplog.messages) == 1


def test_a_refusal_does_not_open_it(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """A refused connection takes no time, so that there is no reason to wait with the next."""
    breaker = Breaker("redis at a:1")
    breaker.failed()
    assert breaker.is_troubled
    assert is_admitted(breaker)
    clock.now += 3
    breaker.answered()
    assert caplog.messages == ["redis at a:1 is back; it was unavailable for 3.0 s"]


def test_a_probe_that_never_came_back_is_replaced(clock: Clock) -> None:
    breaker = Breaker("redis at a:1")
    breaker.timed_out()
    clock.now += 1.1
    breaker._tokens.clear()  # its caller was killed between two steps
    assert not is_admitted(breaker)
    clock.now += 1
    assert is_admitted(breaker)


def test_0_seconds_switch_it_off(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    breaker = Breaker("redis at a:1", 0)
    breaker.timed_out()
    assert all(is_admitted(breaker) for _ in range(3))
    breaker.answered()
    assert len(caplog.messages) == 1


def test_one_of_many_threads_probes() -> None:
    for _ in range(30):
        breaker = Breaker("redis at a:1", 0.001)
        breaker.timed_out()
        time.sleep(0.002)
        breaker.seconds = 60
        barrier = threading.Barrier(8)

        def call(_: int, breaker: Breaker = breaker, barrier: threading.Barrier = barrier) -> bool:
            barrier.wait()
            return is_admitted(breaker)

        with ThreadPoolExecutor(8) as pool:
            assert sorted(pool.map(call, range(8))) == [False] * 7 + [True]


def test_the_message_names_the_server(clock: Clock) -> None:
    breaker = Breaker("redis at a:1")
    breaker.timed_out()
    with pytest.raises(KVSUnavailable, match="redis at a:1 did not answer a moment ago"):
        breaker.admit()


def test_settings_that_name_one_server_share_a_breaker() -> None:
    breakers = Breakers()
    first, second = breakers.get("redis at a:1"), breakers.get("redis at a:2")
    assert breakers.get("redis at a:1") is first is not second
    assert breakers.all() == [first, second]


def test_a_server_that_nobody_uses_has_no_breaker() -> None:
    """The nodes of a cluster get new addresses again and again."""
    breakers = Breakers()
    used = breakers.get("redis at a:1")
    for number in range(100):
        breakers.get(f"redis at 10.0.0.{number}:6379").timed_out()
    assert breakers.all() == [used]


def test_the_outage_of_a_server_that_is_used_again_ends(clock: Clock) -> None:
    breakers, told = Breakers(), []
    breakers.listeners.append(lambda *event: told.append(event))
    breakers.get("redis at a:1").timed_out()
    clock.now += 2
    again = breakers.get("redis at a:1")
    assert again.is_troubled
    again.admit()
    again.answered()
    assert told == [("redis at a:1", None), ("redis at a:1", 2)]


@pytest.mark.parametrize("value", [True, "1", -1, None, float("nan"), 3601, [1]])
def test_what_is_not_a_number_of_seconds_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"breaker: found .*, expected a number of seconds"):
        check_seconds(value)


def test_a_number_of_seconds_is_accepted() -> None:
    assert [check_seconds(value) for value in (0, 0.5, 30)] == [0, 0.5, 30]


def test_listeners_are_told_once_by_all_breakers_of_a_server(clock: Clock) -> None:
    breakers, told = Breakers(), []
    breakers.listeners.append(lambda *event: told.append(event))
    first, second = breakers.get("redis at a:1"), breakers.get("redis at a:1", 5)
    other = breakers.get("redis at b:1")
    first.timed_out()
    second.failed()
    other.failed()
    clock.now += 2
    second.answered()
    first.answered()
    assert told == [("redis at a:1", None), ("redis at b:1", None), ("redis at a:1", 2)]


def test_listeners_are_told_after_a_block_that_holds_a_lock() -> None:
    breakers, lock = Breakers(), threading.Lock()
    told: list[bool] = []
    breakers.listeners.append(lambda *event: told.append(lock.locked()))

    @told_later()
    def fail() -> None:
        with lock, told_later():
            breakers.get("redis at a:1").failed()
            assert told == []
            raise KVSUnavailable("redis at a:1 does not answer")

    with pytest.raises(KVSUnavailable):
        fail()
    assert told == [False]
    breakers.get("redis at a:1").answered()
    assert told == [False, False]


def test_a_server_that_refuses_some_commands_is_back_after_a_minute_without(clock: Clock) -> None:
    """Until then, what it answers is not the end of the outage."""
    breakers, told = Breakers(), []
    breakers.listeners.append(lambda *event: told.append(event))
    breaker = breakers.get("redis at a:1")
    breaker.timed_out()
    for _ in range(4):
        breaker.refused()
        assert not breaker.is_open
        breaker.admit()
        breaker.answered()
        clock.now += 30
    assert told == [("redis at a:1", None)]
    clock.now += 31
    breaker.answered()
    assert told == [("redis at a:1", None), ("redis at a:1", 90)]
    assert not breaker.is_troubled
    breaker.failed()
    clock.now += 1
    breaker.answered()
    assert told[2:] == [("redis at a:1", None), ("redis at a:1", 1)]

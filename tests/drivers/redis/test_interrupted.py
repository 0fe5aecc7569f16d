"""An exception of a signal handler in the middle of a call."""

from __future__ import annotations

import gc
import math
import os
import signal
import sys
import time

import pytest

from pyramid_kvs.drivers.redis.deadline import Deadline
from pyramid_kvs.kvs import KVS
from tests.drivers.redis.fake import fake_redis
from tests.drivers.redis.support import driver_of, operations, pool_of
from tests.servers import LOOPBACK


class WorkerTimeout(BaseException):
    """Like those of gunicorn and gevent, it is not an Exception."""


@pytest.mark.parametrize("operation", ["get", "incr", "get_many", "set_many", "load", "swap"])
def test_interrupted_call(own_redis, operation):
    """Its reply does not come to the next call."""
    server = own_redis()
    driver = driver_of(server, socket_timeout=30, max_connections=1)
    driver.set_many({"key": "value of key", "mine": "value of mine"})

    def strike(*_: object) -> None:
        raise WorkerTimeout

    before = signal.signal(signal.SIGALRM, strike)
    server.pause()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(WorkerTimeout):
            operations(driver)[operation]()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        server.resume()
    assert driver.get("mine") == "value of mine"
    assert driver.get_many(["mine", "none"]) == {"mine": "value of mine"}


def test_interrupted_question_to_a_sentinel():
    """Its answer does not come to the next question."""
    ports = [b"1", b"2"]

    def answer(*_: bytes) -> bytes:
        port = ports.pop(0)
        if ports:
            os.kill(os.getpid(), signal.SIGALRM)
            time.sleep(0.3)
        return b"*2\r\n$9\r\n127.0.0.1\r\n$1\r\n%b\r\n" % port

    def strike(*_: object) -> None:
        raise WorkerTimeout

    before = signal.signal(signal.SIGALRM, strike)
    try:
        with fake_redis() as fake:
            fake.answers[b"SENTINEL"] = answer
            url = f"redis+sentinel://{LOOPBACK}:{fake.port}/main"
            driver = KVS("redis", {"url": url, "socket_timeout": 30})
            [sentinel] = driver._transport._service._sentinels
            with pytest.raises(WorkerTimeout):
                sentinel.primary_of("main", Deadline(math.inf))
            assert sentinel.primary_of("main", Deadline(math.inf)) == (LOOPBACK, 2)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_strikes_at_random(own_redis, monkeypatch):
    """An exception at any point of a call. No reply is mistaken, and no connection is lost.

    Python ignores those in a destructor. pytest would keep them, and what they refer to.
    """
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    server = own_redis()
    driver = driver_of(server, max_connections=100)
    keys = {f"k{number}": f"value {number}" for number in range(20)}
    driver.set_many(keys)
    struck = 0

    def strike(*_: object) -> None:
        raise WorkerTimeout

    before = signal.signal(signal.SIGALRM, strike)
    try:
        for turn in range(4000):
            key = f"k{turn % 20}"
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-6 * (turn % 499 + 1))
                if turn % 2:
                    driver.set_many(keys)
                value = driver.get(key)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except (WorkerTimeout, UnboundLocalError):  # redis-py 5 to 7, in a finally
                struck += 1
            else:
                assert value == keys[key]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert struck > 0
    for key, value in keys.items():
        assert driver.get(key) == value
    driver.close()
    gc.collect()
    assert pool_of(driver).counts() == (0, 0, 0)

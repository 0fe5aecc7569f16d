"""Timeouts, deadlines and the circuit breaker, with a server that does what a test says."""

from __future__ import annotations

import logging
import threading
import time

import pytest
import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from pyramid_kvs.exceptions import KVSError, KVSUnavailable
from pyramid_kvs.kvs import Breakers, Stored
from tests.drivers.redis.support import pool_of, unavailable
from tests.servers import free_port

#: Seconds beyond the promised time, for a busy machine.
SLACK = 0.3


def silent(*_: object) -> bytes:
    return b""


def hello(*words: bytes) -> bytes:
    """Switch to RESP3; do not tell the mode."""
    return b"%1\r\n+proto\r\n:3\r\n" if words else b"-ERR wrong number of arguments\r\n"


def seconds(call) -> float:
    began = time.monotonic()
    with pytest.raises(KVSUnavailable):
        call()
    return time.monotonic() - began


def let_idle(driver, seconds: float = 1.2) -> None:
    """Let the idle connections look as if they had not been used for some time."""
    pool = pool_of(driver)
    taken = [pool.take() for _ in range(pool.counts().idle)]
    for connection in taken:
        pool.give(connection)
    for connection in taken:
        connection.used_at -= seconds


def open_some(driver, count: int = 4) -> None:
    pool = pool_of(driver)
    for connection in [pool.take() for _ in range(count)]:
        pool.give(connection)


# -- the circuit breaker ---------------------------------------------------------------------


def test_a_timeout_opens_it(fake):
    driver = fake.driver(socket_timeout=0.2)
    fake.answers[b"GET"] = silent
    assert seconds(lambda: driver.get("key")) > 0.15
    error = unavailable(lambda: driver.get("key"))
    assert "left alone for up to 1 s" in str(error)
    assert f"redis at 127.0.0.1:{fake.port}" in str(error)
    assert fake.commands.count(b"GET") == 1


def test_zero_switches_it_off(fake):
    driver = fake.driver(socket_timeout=0.1, breaker=0)
    fake.answers[b"GET"] = silent
    for _ in range(3):
        assert seconds(lambda: driver.get("key")) > 0.05
    assert fake.commands.count(b"GET") == 3


def test_one_caller_probes(fake, caplog):
    driver = fake.driver(socket_timeout=0.1, breaker=0.2)
    fake.answers[b"GET"] = silent
    for _ in range(2):
        seconds(lambda: driver.get("key"))
    fake.answers[b"GET"] = lambda _: b"$-1\r\n"
    time.sleep(0.25)
    caplog.set_level(logging.WARNING, "pyramid_kvs.stores")
    assert driver.get("key") is None
    assert not driver._transport.breaker.is_troubled
    assert [f"127.0.0.1:{fake.port} is back" in line for line in caplog.messages] == [True]


def test_refused_connections_do_not_open_it(fake):
    """They take no time. The end of the outage is noted."""
    driver = fake.driver(port=free_port())
    for _ in range(2):
        assert "refused" in str(unavailable(lambda: driver.get("key")))
    assert driver._transport.breaker.is_troubled
    assert not driver._transport.breaker.is_open


@pytest.mark.parametrize(
    "refusal", [b"-LOADING Redis is loading\r\n", b"-READONLY replica\r\n", b"-OOM memory\r\n"]
)
def test_refusals_for_now_are_an_outage(fake, refusal):
    """A server that refuses only writes is not back because it answers something else."""
    driver = fake.driver()
    driver.raw_set("key", b"", None)
    fake.answers[b"GET"] = lambda _: refusal
    for _ in range(2):
        unavailable(lambda: driver.get("key"))
    assert driver._transport.breaker.is_troubled
    assert not driver._transport.breaker.is_open
    driver.raw_set("key", b"", None)
    assert driver._transport.breaker.is_troubled is (b"LOADING" not in refusal)


def test_a_read_only_server_is_asked_twice(fake):
    """The second time on a new connection; then its word holds, also for a server that recovers."""
    driver = fake.driver()
    driver.raw_set("key", b"", None)
    before = fake.connections
    fake.answers[b"INCRBY"] = lambda *_: b"-READONLY You can't write against a replica.\r\n"
    error = unavailable(lambda: driver.raw_incr("count", 1, None))
    assert "write against a replica" in str(error)
    assert fake.commands.count(b"INCRBY") == 2
    assert fake.connections == before + 1
    assert pool_of(driver).counts().idle == 0


@pytest.mark.parametrize(
    ("command", "replies", "operation"),
    [
        (b"SET", (b"+OK\r\n", b"$-1\r\n"), lambda driver: driver.raw_add("key", b"1", None)),
        (b"GETDEL", (b"$1\r\n1\r\n", b"$-1\r\n"), lambda driver: driver.raw_delete("key")),
        (
            b"EVALSHA",
            (b":1\r\n", b"*1\r\n$1\r\n2\r\n"),
            lambda driver: driver.raw_swap("key", Stored(b"1"), b"2", None),
        ),
    ],
)
def test_a_lost_reply(fake, command, replies, operation):
    """It is sent again. If that works, the first attempt had no effect; else nobody knows."""
    driver = fake.driver()
    for reply, is_known in zip(replies, (True, False), strict=True):
        driver.raw_get("key")
        answers = iter([None, reply])
        fake.answers[command] = lambda *_, answers=answers: next(answers)
        if is_known:
            assert operation(driver)
        else:
            assert "closed" in str(unavailable(lambda: operation(driver))).lower()
        assert next(answers, "all given") == "all given"


def test_refusals_for_good_are_not(fake):
    driver = fake.driver()
    fake.answers[b"GET"] = lambda _: b"-WRONGTYPE Operation against a key\r\n"
    with pytest.raises(KVSError, match="WRONGTYPE"):
        driver.get("key")
    assert not driver._transport.breaker.is_troubled


def test_a_full_pool_does_not_open_it(fake):
    driver = fake.driver(max_connections=1, pool_timeout=0.05)
    connection = pool_of(driver).take()
    assert "all 1 connections" in str(unavailable(lambda: driver.get("key")))
    assert not driver._transport.breaker.is_troubled
    pool_of(driver).give(connection)


def test_drivers_share_it(fake):
    """By the server, whichever way it is named; each application has its own."""
    breakers = Breakers()
    one, two = fake.driver(socket_timeout=0.1), fake.driver(db=1)
    for driver in (one, two):
        driver.share_breakers(breakers)
    fake.answers[b"GET"] = silent
    seconds(lambda: one.get("key"))
    assert "left alone" in str(unavailable(lambda: two.get("key")))
    assert fake.driver().raw_set("key", b"", None) is None


# -- idle connections --------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_forgotten_connection(fake, protocol):
    """A call that can be repeated succeeds. Those that were idle for as long are closed."""
    fake.answers[b"HELLO"] = hello
    driver = fake.driver(protocol=protocol)
    open_some(driver)
    let_idle(driver)
    fake.forget()
    began = time.monotonic()
    driver.raw_set("key", b"", None)
    assert time.monotonic() - began < 0.6 + SLACK
    assert pool_of(driver).counts().idle == 1
    assert not driver._transport.breaker.is_troubled


def test_a_forgotten_counter(fake):
    """It is not sent again, and the next call works at once."""
    fake.answers[b"INCRBY"] = lambda *_: b":1\r\n"
    driver = fake.driver()
    open_some(driver)
    let_idle(driver)
    fake.forget()
    assert seconds(lambda: driver.raw_incr("count", 1, None)) < 0.6 + SLACK
    assert driver.raw_incr("count", 1, None) == 1
    assert not driver._transport.breaker.is_troubled
    assert fake.commands.count(b"INCRBY") == 2


@pytest.mark.filterwarnings("ignore:.*lib_name.*:DeprecationWarning")
def test_a_handshake_without_a_reply(fake):
    """A new connection without a handshake is probed with ``PING``."""
    driver = fake.driver(lib_name=None, lib_version=None)
    open_some(driver)
    let_idle(driver)
    fake.forget()
    driver.raw_set("key", b"", None)
    assert b"PING" in fake.commands


def test_a_hung_server_after_a_pause(fake):
    """The probe gets no reply: the breaker opens after the timeout and 0.08 s."""
    driver = fake.driver()
    open_some(driver)
    let_idle(driver)
    for name in (b"SET", b"CLIENT", b"PING"):
        fake.answers[name] = silent
    assert 0.5 < seconds(lambda: driver.raw_set("key", b"", None)) < 0.58 + SLACK
    assert driver._transport.breaker.is_open


def test_a_busy_connection_is_not_asked_twice(fake):
    driver = fake.driver(socket_timeout=0.2)
    driver.raw_set("key", b"", None)
    fake.answers[b"SET"] = silent
    assert seconds(lambda: driver.raw_set("key", b"", None)) < 0.2 + SLACK
    assert fake.commands.count(b"SET") == 2
    assert driver._transport.breaker.is_open


def test_health_checks(fake):
    """No call fails, and the health check does not take the time of the call."""
    fake.answers[b"INCRBY"] = lambda *_: b":1\r\n"
    driver = fake.driver(health_check_interval=1)
    open_some(driver)
    let_idle(driver, 0.5)
    fake.commands.clear()
    driver.raw_incr("count", 1, None)
    assert b"PING" not in fake.commands
    let_idle(driver)
    driver.raw_incr("count", 1, None)
    assert b"PING" in fake.commands
    opened = fake.connections
    let_idle(driver)
    fake.forget()
    began = time.monotonic()
    assert driver.raw_incr("count", 1, None) == 1
    assert time.monotonic() - began < 0.25 + SLACK
    assert fake.connections == opened + 1
    assert pool_of(driver).counts().idle == 1


# -- deadlines ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kwargs", [{}, {"protocol": 3}])
def test_a_reply_that_trickles(fake, kwargs):
    fake.answers[b"HELLO"] = hello
    fake.answers[b"GET"] = lambda _: b"$100\r\n%b\r\n" % (b"x" * 100)
    fake.answers[b"MGET"] = lambda _: b"*1\r\n$100\r\n%b\r\n" % (b"x" * 100)
    driver = fake.driver(breaker=0, **kwargs)
    driver.raw_set("key", b"", None)
    fake.pause = 0.03
    for call in (lambda: driver.raw_get("key"), lambda: driver.raw_get_many(["key"])):
        assert 0.9 < seconds(call) < 1 + SLACK
    fake.pause = 0.003
    assert driver.raw_get("key") == b"x" * 100


def test_the_next_call_has_its_whole_time(fake):
    """Also after a call that read in several steps, the last of them with little time left."""
    fake.answers[b"GET"] = lambda _: b"$5\r\nvalue\r\n"
    driver = fake.driver(socket_timeout=0.4, socket_connect_timeout=0.1)
    driver.raw_get("key")
    fake.pause = 0.035
    assert driver.raw_get("key") == b"value"
    fake.pause = 0
    fake.answers[b"GET"] = lambda _: time.sleep(0.3) or b"$5\r\nvalue\r\n"
    assert driver.raw_get("key") == b"value"


@pytest.mark.filterwarnings("ignore:.*retry_on_timeout.*:DeprecationWarning")
@pytest.mark.parametrize(
    "kwargs",
    [
        {"retry": Retry(ConstantBackoff(0.1), -1)},
        {"retry": Retry(ConstantBackoff(60), 3)},
        {"retry_on_timeout": True},
        {"retry_on_error": [redis.ConnectionError]},
    ],
)
@pytest.mark.parametrize("answer", [silent, lambda *_: None, lambda *_: b"-LOADING\r\n"])
def test_retries_end_in_time(fake, kwargs, answer):
    driver = fake.driver(breaker=0, socket_timeout=0.2, socket_connect_timeout=0.2, **kwargs)
    driver.raw_set("key", b"", None)
    fake.answers[b"GET"] = answer
    assert seconds(lambda: driver.get("key")) < 0.4 + SLACK
    fake.answers[b"CLIENT"] = answer
    assert seconds(lambda: driver.get("key")) < 0.4 + SLACK


def test_a_second_attempt_within_the_time(fake):
    """retry_on_error sends again, and stops at the deadline of the first attempt."""
    replies = [None, b"-LOADING\r\n", b"$1\r\n1\r\n"]
    fake.answers[b"GET"] = lambda _: replies.pop(0)
    driver = fake.driver(retry=Retry(ConstantBackoff(0.05), 3))
    assert driver.raw_get("key") == b"1"
    assert replies == []


def test_a_slow_handshake_leaves_less_time(fake):
    """Each step is quicker than its timeout, and there is no reply to the command."""

    def slow(*_: object) -> bytes:
        time.sleep(0.3)
        return b"+OK\r\n"

    fake.answers.update({b"CLIENT": slow, b"HELLO": slow, b"GET": silent})
    assert seconds(lambda: fake.driver().get("key")) < 1 + SLACK


def test_little_time_after_a_sign_of_life(fake):
    """The second attempt ends in time, and says nothing about the server, which has answered."""
    driver = fake.driver(socket_connect_timeout=0.1, socket_timeout=0.5)
    driver.set("key", 1)
    let_idle(driver)
    fake.forget()
    fake.answers[b"GET"] = silent
    assert seconds(lambda: driver.get("key")) < 0.6 + SLACK
    assert not driver._transport.breaker.is_open


def test_the_wait_for_a_connection_is_not_counted(fake):
    driver = fake.driver(
        max_connections=1, pool_timeout=2, socket_timeout=0.4, socket_connect_timeout=0.1
    )
    connection = pool_of(driver).take()
    threading.Timer(0.7, pool_of(driver).give, [connection]).start()
    fake.answers[b"GET"] = lambda _: time.sleep(0.2) or b"$1\r\n1\r\n"
    assert driver.raw_get("key") == b"1"

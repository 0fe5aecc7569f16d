"""A PostgreSQL server that stops, hangs, refuses or restarts, and calls that are given up."""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from pyramid_kvs.exceptions import KVSUnavailable
from pyramid_kvs.kvs import KVS, Stored
from tests.drivers.postgresql.helpers import (
    CAN_CANCEL,
    Make,
    PostgresqlKVS,
    backends,
    count_at_once,
    limited_role,
    locked,
    psycopg,
    run_at_once,
    wait_for_blocked,
)
from tests.servers import LOOPBACK, PostgresServer, wait_until


def test_built_and_used_while_the_server_is_down(make: Make, frail: PostgresServer) -> None:
    frail.stop()
    driver = make(frail)
    started = time.monotonic()
    with pytest.raises(KVSUnavailable, match="no connection to PostgreSQL") as caught:
        driver.get("key")
    assert time.monotonic() - started < 1
    assert isinstance(caught.value.__cause__, psycopg.OperationalError)
    assert not driver.ping()
    frail.start()
    assert driver.incr("key") == 1


def test_restart_is_not_noticed(make: Make, frail: PostgresServer) -> None:
    driver = make(frail, pool_size=3)
    run_at_once(driver, frail, 3)
    frail.restart()
    assert [driver.incr("n") for _ in range(5)] == [1, 2, 3, 4, 5]


def test_terminated_backends_are_not_noticed(
    make: Make, store: PostgresqlKVS, postgres_server: PostgresServer
) -> None:
    driver = make(postgres_server, pool_size=3)
    run_at_once(driver, postgres_server, 3)
    before = backends(postgres_server)
    assert len(before) >= 3
    postgres_server.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE application_name = 'pyramid_kvs'"
    )
    assert [driver.incr("n") for _ in range(5)] == [1, 2, 3, 4, 5]
    assert not before & backends(postgres_server)


def test_backend_terminated_during_a_call(
    store: PostgresqlKVS, postgres_server: PostgresServer
) -> None:
    """A count that may have moved is not repeated. A write that may run twice is repeated."""
    store.incr("n")
    store.set("value", 1)
    with ThreadPoolExecutor() as pool, locked(postgres_server):
        count = pool.submit(store.incr, "n")
        wait_for_blocked(postgres_server)
        (blocked,) = backends(postgres_server)
        postgres_server.execute("SELECT pg_terminate_backend(%s, 5000)", (blocked,))
        assert isinstance(count.exception(), KVSUnavailable)
    assert store.get("n") == 1
    with ThreadPoolExecutor() as pool:
        with locked(postgres_server):
            written = pool.submit(store.set, "value", 2)
            wait_for_blocked(postgres_server)
            (blocked,) = backends(postgres_server)
            postgres_server.execute("SELECT pg_terminate_backend(%s, 5000)", (blocked,))
            wait_for_blocked(postgres_server)
        written.result()
    assert store.get("value") == 2


def test_standby_refuses_writes(store: PostgresqlKVS, postgres_server: PostgresServer) -> None:
    store.set("key", 1)
    alter = f"ALTER DATABASE {postgres_server.dbname}"
    postgres_server.execute(f"{alter} SET default_transaction_read_only = on")
    try:
        store.close()
        assert store.get("key") == 1
        with pytest.raises(KVSUnavailable, match="read-only"):
            store.set("key", 2)
    finally:
        postgres_server.execute(f"{alter} RESET ALL", dbname="postgres")
    store.set("key", 3)  # the older connections are still read-only, as after a failover
    assert store.get("key") == 3


def test_too_many_connections(
    store: PostgresqlKVS, make: Make, postgres_server: PostgresServer
) -> None:
    url = limited_role(postgres_server, "CONNECTION LIMIT 1")
    first, second = make(postgres_server, url=url), make(postgres_server, url=url)
    assert first.get("key") is None
    with pytest.raises(KVSUnavailable, match="too many connections"):
        second.get("key")
    first.close()
    wait_until(second.ping, "the end of the first connection", 5)


def test_statement_timeout_keeps_the_connection(
    store: PostgresqlKVS, make: Make, postgres_server: PostgresServer
) -> None:
    driver = make(postgres_server, statement_timeout=0.1)
    driver.set("s3cret-key", 1)
    before = backends(postgres_server)
    with locked(postgres_server), pytest.raises(KVSUnavailable, match="took longer") as caught:
        driver.set("s3cret-key", "s3cret-value")
    assert "s3cret" not in str(caught.value) + str(caught.value.__cause__)
    assert driver.get("s3cret-key") == 1
    assert backends(postgres_server) == before


def test_serializable_as_the_default_of_the_database(
    store: PostgresqlKVS, make: Make, postgres_server: PostgresServer
) -> None:
    alter = f"ALTER DATABASE {postgres_server.dbname}"
    postgres_server.execute(f"{alter} SET default_transaction_isolation = 'serializable'")
    try:
        count_at_once(make(postgres_server))
    finally:
        postgres_server.execute(f"{alter} RESET ALL", dbname="postgres")


def test_hung_server(make: Make, frail: PostgresServer) -> None:
    """Each call ends within 3 seconds, on an open connection and on a new one."""
    driver = make(frail)
    driver.set("key", 1)
    frail.pause()
    for call in (driver.get, driver.incr):
        started = time.monotonic()
        with pytest.raises(KVSUnavailable):
            call("key")
        assert time.monotonic() - started < 3
    frail.resume()
    wait_until(lambda: driver.ping(), "the return of the server", 5)
    assert driver.get("key") == 1


def test_a_handled_signal_does_not_restart_the_timeout(make: Make, frail: PostgresServer) -> None:
    driver = make(frail, statement_timeout=0.5)
    driver.set("key", 1)
    frail.pause()
    previous = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    started = time.monotonic()
    try:
        for _ in range(2):  # on an open connection and on a new one
            with pytest.raises(KVSUnavailable):
                driver.get("key")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        frail.resume()
    assert time.monotonic() - started < 3


# -- a server that sends single bytes --------------------------------------------------------


AUTHENTICATED = b"R" + struct.pack("!ii", 8, 0)
READY = b"Z" + struct.pack("!i", 5) + b"I"


def trickle(connection: socket.socket, replies: list[bytes]) -> None:
    """Reply to each message of the client, and to the last one with a byte every 50 ms."""
    with connection, suppress(OSError):
        for reply in replies:
            connection.recv(65536)
            connection.sendall(reply)
        while True:
            connection.sendall(b"D" if replies else b"R")
            time.sleep(0.05)


@pytest.mark.parametrize("replies", [[], [AUTHENTICATED + READY]], ids=["connecting", "reading"])
def test_a_server_that_trickles(replies: list[bytes]) -> None:
    """Bytes that arrive do not prolong a call."""

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=trickle, args=(connection, replies), daemon=True).start()

    with socket.create_server((LOOPBACK, 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        url = f"postgresql://user@{LOOPBACK}:{listener.getsockname()[1]}/db?sslmode=disable"
        driver = KVS("postgresql", {"url": f"{url}&gssencmode=disable"})
        started = time.monotonic()
        with pytest.raises(KVSUnavailable):
            driver.get("key")
        assert time.monotonic() - started < 3


# -- calls that are given up -----------------------------------------------------------------


class Interrupted(BaseException):
    """As a worker's timeout or a gevent.Timeout."""


def waiting(server: PostgresServer) -> int:
    """Return how many statements wait for a lock."""
    return int(server.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")[0][0])


@pytest.mark.skipif(not CAN_CANCEL, reason="libpq before 17 can only cancel by blocking")
def test_a_call_that_is_given_up_is_canceled_on_the_server(
    store: PostgresqlKVS, make: Make, postgres_server: PostgresServer
) -> None:
    """Where the server has no timeout, as behind pgbouncer, the statement would run on."""
    url = f"{postgres_server.url}?options=-c%20statement_timeout%3D0"
    driver = make(postgres_server, url=url, statement_timeout=0.2)
    with locked(postgres_server, "LOCK TABLE kvs"):
        with pytest.raises(KVSUnavailable, match="did not answer"):
            driver.get("key")
        wait_until(lambda: not waiting(postgres_server), "the end of the statement", 5)


@pytest.mark.skipif(not CAN_CANCEL, reason="libpq before 17 can only cancel by blocking")
def test_an_interrupted_call_is_canceled_on_the_server(
    store: PostgresqlKVS, postgres_server: PostgresServer
) -> None:
    store.get("key")

    def interrupt(*_: object) -> None:
        raise Interrupted

    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        with locked(postgres_server, "LOCK TABLE kvs"):
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            with pytest.raises(Interrupted):
                store.get("key")
            wait_until(lambda: not waiting(postgres_server), "the end of the statement", 1)
    finally:
        signal.signal(signal.SIGALRM, previous)


def test_an_interrupted_call_leaves_no_reply(
    store: PostgresqlKVS, postgres_server: PostgresServer
) -> None:
    store.set_many({"blocked": "wrong", "other": "right"})
    before = backends(postgres_server)

    def interrupt(*_: object) -> None:
        raise Interrupted

    def alarm() -> None:
        wait_for_blocked(postgres_server)
        os.kill(os.getpid(), signal.SIGUSR1)

    previous = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with locked(postgres_server):
            threading.Thread(target=alarm, daemon=True).start()
            with pytest.raises(Interrupted):
                store.raw_swap("blocked", Stored('"wrong"'), "new", 300)
            assert store.incr("n") == 1
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert store.get("other") == "right"
    wait_until(lambda: before.isdisjoint(backends(postgres_server)), "the end of the connection")

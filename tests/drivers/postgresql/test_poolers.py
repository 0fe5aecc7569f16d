"""The postgresql driver behind pgbouncer and other poolers."""

from __future__ import annotations

import logging
import pwd
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from pyramid_kvs.exceptions import KVSError, KVSUnavailable
from tests.drivers.postgresql.helpers import Make, PostgresqlKVS, count_at_once, psycopg
from tests.servers import (
    LOOPBACK,
    PostgresServer,
    Server,
    find,
    free_port,
    missing,
    wait_until,
)


class PgBouncer(Server):
    """A pgbouncer in transaction mode in front of a server's database."""

    program = "pgbouncer"

    def __init__(self, server: PostgresServer, size: int) -> None:
        if find("pgbouncer") is None:
            missing("pgbouncer is not installed: apt-get install pgbouncer")
        super().__init__()
        self.port = free_port()
        (self.directory / "users").write_text('"postgres" ""\n')
        (self.directory / "ini").write_text(
            f"[databases]\nkvs = host={server.host} port={server.port} dbname=kvs\n"
            f"[pgbouncer]\nlisten_addr = {self.host}\nlisten_port = {self.port}\n"
            f"unix_socket_dir =\nauth_type = trust\nauth_file = {self.directory}/users\n"
            f"pool_mode = transaction\ndefault_pool_size = {size}\n"
            "server_round_robin = 1\nserver_login_retry = 1\n"
        )
        for path in (self.directory, *self.directory.iterdir()):
            path.chmod(0o755)

    def account(self) -> str:
        names = {entry.pw_name for entry in pwd.getpwall()}
        return "postgres" if "postgres" in names else "nobody"

    def arguments(self) -> list[str]:
        return [str(self.directory / "ini")]

    def is_ready(self) -> bool:
        with psycopg.connect(self.url, connect_timeout=2):
            return True

    @property
    def url(self) -> str:
        return f"postgresql://postgres@{self.host}:{self.port}/kvs"


@pytest.mark.parametrize("prepare", ["auto", False])
def test_pgbouncer_in_transaction_mode(
    prepare: Any,
    store: PostgresqlKVS,
    make: Make,
    postgres_server: PostgresServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Prepared statements are off after the first error."""
    caplog.set_level(logging.INFO, "pyramid_kvs")
    with PgBouncer(postgres_server, size=3) as bouncer:
        driver = make(postgres_server, url=bouncer.url, prepare=prepare)
        driver.initialize_schema()
        count_at_once(driver)
        assert ("prepared statements are off" in caplog.text) == (prepare == "auto")
        caplog.clear()
        driver.set_many({"a": 1, "b": 2})
        assert driver.get_many(["a", "b", "c"]) == {"a": 1, "b": 2}
        assert driver.update("a", lambda value: value + 1) == 2
        assert driver.purge() == 0
        driver.flush()
        assert driver.get_keys() == []
        assert "prepared statements" not in caplog.text


def test_two_poolers(store: PostgresqlKVS, make: Make, postgres_server: PostgresServer) -> None:
    """The first host that can be written to is asked through a pooler, too."""
    with PgBouncer(postgres_server, size=3) as one, PgBouncer(postgres_server, size=3) as two:
        hosts = f"{one.host}:{one.port},{two.host}:{two.port}"
        driver = make(postgres_server, url=f"postgresql://postgres@{hosts}/kvs")
        driver.set("key", 1)
        one.kill()
        driver.close()
        assert driver.get("key") == 1


@pytest.mark.parametrize("prepare", ["auto", True])
def test_statements_that_the_server_lost_are_prepared_again(
    prepare: Any, store: PostgresqlKVS, make: Make, postgres_server: PostgresServer
) -> None:
    """As after the DISCARD ALL of a pooler."""
    driver = make(postgres_server, pool_size=1, prepare=prepare)
    for count in range(1, 4):
        assert driver.incr("n") == count
        driver._client.run_script("DEALLOCATE ALL", 5)


def test_pgbouncer_without_its_server(make: Make, frail: PostgresServer) -> None:
    """What it says is unavailable for now, on an open connection and on a new one."""
    with PgBouncer(frail, size=3) as bouncer:
        driver = make(frail, url=bouncer.url, statement_timeout=0.5)
        driver.set("key", 1)
        frail.stop()
        for call in (driver.get, driver.incr, driver.delete):
            with pytest.raises(KVSUnavailable):
                call("key")
        driver.close()
        with pytest.raises(KVSUnavailable):
            driver.get("key")
        frail.start()
        wait_until(driver.ping, "the return of the server", 20)
        assert driver.get("key") == 1


@pytest.mark.parametrize(
    ("message", "passes"),
    [
        ("FATAL: server login failed: connection refused", True),
        ("no more connections allowed (max_client_conn)", True),
        ("Max client connections reached", True),
        ("Timed-out waiting to acquire database connection", True),
        ("cache lookup failed for relation 16384", False),
    ],
)
def test_an_internal_error_passes_if_it_is_of_a_pooler(
    message: str, passes: bool, store: PostgresqlKVS, postgres_server: PostgresServer
) -> None:
    """Some poolers have no other state for what they say."""
    postgres_server.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$BEGIN RAISE EXCEPTION '{message}' USING ERRCODE = 'XX000'; END$$;"
        "CREATE TRIGGER refuse BEFORE INSERT ON kvs EXECUTE FUNCTION refuse()"
    )
    with pytest.raises(KVSError) as caught:
        store.set("key", 1)
    assert isinstance(caught.value, KVSUnavailable) == passes


def test_statements_are_prepared_again_after_discard_all(
    store: PostgresqlKVS, make: Make, postgres_server: PostgresServer
) -> None:
    driver = make(postgres_server, pool_size=1, prepare=True)
    for count in range(1, 4):
        assert driver.incr("n") == count
        connection = driver._client.pool.take()
        connection.deadline = connection.taken_at + 5
        connection.run_script("DISCARD ALL")
        driver._client.pool.give(connection)


class RefusingPooler:
    """Passes connections on to a server, unless they have start-up options."""

    def __init__(self, server: PostgresServer, message: str) -> None:
        self.server, self.message = server, message
        self.refused = self.passed = 0
        self.listener = socket.create_server((LOOPBACK, 0))
        self.url = f"postgresql://postgres@{LOOPBACK}:{self.listener.getsockname()[1]}/kvs"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            start = client.recv(65536)
            if b"options\0" in start:
                self.refused += 1
                fields = f"SFATAL\0C0A000\0M{self.message}\0\0".encode()
                client.sendall(b"E" + struct.pack("!i", len(fields) + 4) + fields)
                return
            self.passed += 1
            with socket.create_connection((LOOPBACK, self.server.port)) as server:
                server.sendall(start)
                threading.Thread(target=self.copy, args=(server, client), daemon=True).start()
                self.copy(client, server)

    def copy(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)


@pytest.mark.parametrize(
    "message",
    [
        "unsupported startup parameter: options",
        "Feature not supported: RDS Proxy currently doesn't support command-line options.",
        "nobody has ever seen these words",
    ],
)
def test_a_pooler_that_refuses_options(
    message: str, store: PostgresqlKVS, make: Make, postgres_server: PostgresServer
) -> None:
    """It is noticed once; words that are not known, when they come again."""
    pooler = RefusingPooler(postgres_server, message)
    with pooler.listener:
        url = f"{pooler.url}?sslmode=disable&gssencmode=disable"
        driver = make(postgres_server, url=url, pool_recycle=0.001)
        for number in range(3):
            driver.set("key", number)
            time.sleep(0.002)
        assert (pooler.refused, pooler.passed) == (2 if "words" in message else 1, 3)
        assert store.get("key") == 2
        driver.close()


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_contended_updates_behind_a_pooler_that_refuses_options(
    isolation: str, store: PostgresqlKVS, make: Make, postgres_server: PostgresServer
) -> None:
    """The driver cannot choose another isolation level than the default of the database.

    A trigger makes each write take so long that all threads meet.
    """
    postgres_server.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN PERFORM pg_sleep(0.005); RETURN NEW; END';"
        "CREATE TRIGGER slow BEFORE UPDATE ON kvs FOR EACH ROW EXECUTE FUNCTION slow()"
    )
    alter = f"ALTER DATABASE {postgres_server.dbname}"
    postgres_server.execute(f"{alter} SET default_transaction_isolation = '{isolation}'")
    pooler = RefusingPooler(postgres_server, "unsupported startup parameter: options")
    try:
        with pooler.listener, ThreadPoolExecutor(8) as pool:
            url = f"{pooler.url}?sslmode=disable&gssencmode=disable"
            driver = make(postgres_server, url=url)

            def append(number: int) -> None:
                for _ in range(10):
                    driver.update("list", lambda value: [*(value or []), number])

            list(pool.map(append, range(8)))
            assert sorted(driver.get("list")) == sorted([*range(8)] * 10)
            count_at_once(driver)
            driver.close()
    finally:
        postgres_server.execute(f"{alter} RESET ALL", dbname="postgres")

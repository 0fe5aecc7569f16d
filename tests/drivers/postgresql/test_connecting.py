"""Where the postgresql driver connects to: hosts, addresses, sockets, passwords and TLS."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pyramid_kvs.exceptions import KVSUnavailable
from pyramid_kvs.kvs import KVS
from tests.drivers.postgresql.helpers import Make, PostgresqlKVS, backends
from tests.servers import LOOPBACK, PostgresServer, need, wait_until


def test_port_that_never_answers(make: Make) -> None:
    with socket.create_server((LOOPBACK, 0)) as silent:
        port = silent.getsockname()[1]
        url = f"postgresql://{LOOPBACK}:{port},{LOOPBACK}:{port}/db"
        started = time.monotonic()
        with pytest.raises(KVSUnavailable):
            KVS("postgresql", {"url": url}).get("key")
        assert time.monotonic() - started < 3


def test_second_host_of_a_list(store: PostgresqlKVS, postgres_server: PostgresServer) -> None:
    url = f"postgresql://postgres@{LOOPBACK}:1,{LOOPBACK}:{postgres_server.port}/kvs"
    driver = KVS("postgresql", {"url": url}, "p::")
    driver.set("key", 1)
    assert store.get("key") == 1
    driver.close()


def test_unix_socket(store: PostgresqlKVS, postgres_server: PostgresServer) -> None:
    driver = KVS("postgresql", {"url": postgres_server.socket_url}, "p::")
    driver.set("key", 1)
    assert store.get("key") == 1
    driver.close()


def test_passfile(own_postgres: Callable[..., PostgresServer], make: Make, tmp_path: Path) -> None:
    server = own_postgres()
    server.execute("CREATE ROLE app LOGIN PASSWORD 's3cret'; ALTER DATABASE kvs OWNER TO app")
    server.execute("ALTER SCHEMA public OWNER TO app")
    (server.data / "pg_hba.conf").write_text(
        "local all postgres trust\nhost all app 127.0.0.1/32 scram-sha-256\n"
    )
    server.execute("SELECT pg_reload_conf()")
    url = f"postgresql://app@{LOOPBACK}:{server.port}/kvs"
    with pytest.raises(KVSUnavailable, match="password"):
        wait_until(lambda: make(server, url=url).get("key"), "the new pg_hba.conf", 5)
    passfile = tmp_path / "pgpass"
    passfile.write_text(f"{LOOPBACK}:*:kvs:app:s3cret\n")
    passfile.chmod(0o600)
    driver = make(server, url=f"{url}?passfile={passfile}")
    driver.initialize_schema()
    driver.set("key", 1)
    assert driver.get("key") == 1
    with pytest.raises(KVSUnavailable) as caught:
        make(server, url=url.replace("app@", "app:wr0ng@")).get("key")
    assert "wr0ng" not in str(caught.value) + str(caught.value.__cause__)


def test_tls_connection_is_used_again(
    own_postgres: Callable[..., PostgresServer], make: Make
) -> None:
    """Data of TLS itself, such as session tickets, does not look like the server's end."""
    server = own_postgres()
    certificate, key = server.data / "server.crt", server.data / "server.key"
    command = [
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([need("openssl"), *command, *files], check=True, capture_output=True)
    for path in (certificate, key):
        os.chown(path, server.data.stat().st_uid, -1)
        path.chmod(0o600)
    server.execute("ALTER SYSTEM SET ssl = on")
    server.execute("SELECT pg_reload_conf()")
    driver = make(server, url=f"{server.url}?sslmode=require")
    wait_until(lambda: _answers(driver), "TLS", 10)
    before = backends(server)
    for number in range(5):
        driver.set("key", str(number) * 1_000_000)
        assert driver.get("key") == str(number) * 1_000_000
    assert backends(server) == before
    assert server.execute("SELECT count(*) FROM pg_stat_ssl WHERE ssl") == [(1,)]


# -- names -----------------------------------------------------------------------------------


OTHER = "127.0.0.2"


def resolve(monkeypatch: pytest.MonkeyPatch, look_up: Callable[[str], list[str]]) -> None:
    """Resolve host names that end in ``.test`` with a function."""
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if not str(host).endswith(".test"):
            return real(host, port, *args, **kwargs)
        stream = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*stream, (address, int(port))) for address in look_up(host)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.mark.parametrize("where", ["url", "environment"])
def test_all_addresses_of_a_name_are_tried(
    where: str,
    store: PostgresqlKVS,
    make: Make,
    postgres_server: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first address refuses, the second one never answers."""
    resolve(monkeypatch, lambda _: ["127.0.0.3", OTHER, LOOPBACK])
    url = f"postgresql://postgres@db.test:{postgres_server.port}/kvs"
    if where == "environment":
        monkeypatch.setenv("PGHOST", "db.test")
        monkeypatch.setenv("PGPORT", str(postgres_server.port))
        url = "postgresql://postgres@/kvs"
    with socket.create_server((OTHER, postgres_server.port)):
        driver = make(postgres_server, url=url)
        started = time.monotonic()
        driver.set("key", 1)
        assert time.monotonic() - started < 2
    assert store.get("key") == 1


def test_addresses_that_all_fail_are_named(
    make: Make, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve(monkeypatch, lambda _: ["127.0.0.3", OTHER])
    with socket.create_server((OTHER, 0)) as silent:
        port = silent.getsockname()[1]
        driver = make(postgres_server, url=f"postgresql://postgres:s3cret@db.test:{port}/kvs")
        with pytest.raises(KVSUnavailable) as caught:
            driver.get("key")
    assert "127.0.0.3" in str(caught.value)
    assert f"{OTHER}:{port} does not answer" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_an_unknown_name(make: Make, postgres_server: PostgresServer) -> None:
    """The other host of the URL is used, or the error says which name was not found."""
    known = f"{LOOPBACK}:{postgres_server.port}"
    driver = make(postgres_server, url=f"postgresql://postgres@unknown.invalid,{known}/kvs")
    driver.initialize_schema()
    with pytest.raises(KVSUnavailable, match=r": the host name 'unknown\.invalid' was not"):
        make(postgres_server, url="postgresql://unknown.invalid/kvs").get("key")


def test_a_prefer_standby_url_takes_a_primary_if_there_is_no_standby(
    store: PostgresqlKVS, make: Make, postgres_server: PostgresServer
) -> None:
    url = f"{postgres_server.url}?target_session_attrs=prefer-standby"
    make(postgres_server, url=url).set("key", 1)
    with pytest.raises(KVSUnavailable):
        make(postgres_server, url=url.replace("prefer-standby", "standby")).get("key")


def test_a_resolver_that_hangs_delays_one_caller(
    store: PostgresqlKVS,
    make: Make,
    postgres_server: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer = threading.Event()

    def hang(_: str) -> list[str]:
        assert answer.wait(30)
        return [LOOPBACK]

    resolve(monkeypatch, hang)
    port = postgres_server.port
    url = f"postgresql://postgres@hangs.test:{port}/kvs"
    driver = make(postgres_server, url=url, statement_timeout=0.5)
    with ThreadPoolExecutor(6) as pool:
        calls = [pool.submit(driver.get, "key") for _ in range(5)]
        wait_until(lambda: sum(call.done() for call in calls) == 4, "the other callers", 2)
        # Another name is looked up at the same time.
        other = make(postgres_server, url=f"postgresql://postgres@localhost:{port}/kvs")
        assert pool.submit(other.get, "key").result(2) is None
        answer.set()
        errors = [call.exception() for call in calls]
    assert sum("takes too long" in str(error) for error in errors) == 4
    wait_until(driver.ping, "the end of the breaker", 1.5)


def test_known_addresses_are_used_while_the_resolver_hangs(
    store: PostgresqlKVS,
    make: Make,
    postgres_server: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer, asked = threading.Event(), threading.Event()
    resolve(monkeypatch, lambda _: [LOOPBACK])
    url = f"postgresql://postgres@known.test:{postgres_server.port}/kvs"
    make(postgres_server, url=url).set("key", 1)

    def hang(_: str) -> list[str]:
        asked.set()
        assert answer.wait(30)
        return [LOOPBACK]

    resolve(monkeypatch, hang)
    with ThreadPoolExecutor(1) as pool:
        delayed = pool.submit(make(postgres_server, url=url).get, "key")
        assert asked.wait(10)
        assert make(postgres_server, url=url).get("key") == 1
        answer.set()
        assert delayed.result() == 1


def _answers(driver: PostgresqlKVS) -> bool:
    with contextlib.suppress(KVSUnavailable):
        driver.initialize_schema()
        return True
    return False


def test_system_libpq(store: PostgresqlKVS, postgres_server: PostgresServer) -> None:
    """psycopg in Python with the system's libpq does the same, if it is installed."""
    code = (
        "import sys\nfrom pyramid_kvs.kvs import KVS\n"
        "driver = KVS('postgresql', {'url': sys.argv[1]}, 'p::')\n"
        "driver.set('key', 'value' * 100000)\nassert len(driver.get('key')) == 500000\n"
        "assert driver.incr('n') == 1\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, postgres_server.url],
        env={**os.environ, "PSYCOPG_IMPL": "python"},
        capture_output=True,
        text=True,
        check=False,
    )
    if "libpq library not found" in done.stderr or "no pq wrapper" in done.stderr:
        pytest.skip("no libpq on this system")
    assert done.returncode == 0, done.stderr

"""A standby that is promoted, while a driver names both servers."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator

import pytest

from pyramid_kvs.exceptions import KVSUnavailable
from tests.drivers.postgresql.helpers import Make, backends, run_at_once
from tests.servers import PostgresServer, need, wait_until


@pytest.fixture
def pair(
    own_postgres: Callable[..., PostgresServer], make: Make
) -> Iterator[tuple[PostgresServer, PostgresServer]]:
    """A primary with the driver's table, and a standby that follows it."""
    program = need("pg_basebackup")
    primary = own_postgres(wal_level="replica", hot_standby="on")
    first = make(primary)
    first.initialize_schema()
    first.close()
    standby = PostgresServer(hot_standby="on")
    address = ["-h", str(primary.directory), "-p", str(primary.port), "-U", "postgres"]
    try:
        command = [program, *address, "-D", str(standby.data), "-c", "fast", "-R"]
        subprocess.run(command, check=True, capture_output=True)
        for path in (standby.directory, standby.data, *standby.data.rglob("*")):
            shutil.chown(path, primary.data.owner(), primary.data.group())
        yield primary, standby.start()
    finally:
        standby.close()


def url_of(*servers: PostgresServer, attributes: str = "") -> str:
    """Return a URL with several hosts."""
    hosts = ",".join(f"{server.host}:{server.port}" for server in servers)
    query = f"?target_session_attrs={attributes}" if attributes else ""
    return f"postgresql://postgres@{hosts}/{servers[0].dbname}{query}"


def test_the_primary_is_found_at_any_place_of_the_url(
    pair: tuple[PostgresServer, PostgresServer], make: Make
) -> None:
    primary, standby = pair
    for attributes in ("", "read-write", "primary"):
        for hosts in ((primary, standby), (standby, primary)):
            driver = make(primary, url=url_of(*hosts, attributes=attributes))
            driver.set("key", attributes)
            driver.check()
            assert not backends(standby)
            driver.close()


def test_a_url_that_names_the_standby_only_reads(
    pair: tuple[PostgresServer, PostgresServer], make: Make
) -> None:
    """prefer-standby is obeyed. All features write, so that a check says what is wrong."""
    primary, standby = pair
    make(primary).set("key", "replicated")
    wait_until(lambda: make(standby).get("key") == "replicated", "the replication", 10)
    for attributes in ("prefer-standby", "standby", "read-only"):
        driver = make(primary, url=url_of(primary, standby, attributes=attributes))
        assert driver.get("key") == "replicated"
        assert len(backends(standby)) >= 1
        with pytest.raises(KVSUnavailable, match="it is read-only, as a standby is"):
            driver.check()
        driver.close()


def test_a_failover(pair: tuple[PostgresServer, PostgresServer], make: Make) -> None:
    """The former primary goes on as a read-only server, and nobody asks it any more."""
    primary, standby = pair
    url = url_of(primary, standby)
    driver = make(primary, url=url, pool_size=3)
    run_at_once(driver, primary, 3)
    driver.set("key", "before")
    assert len(backends(primary)) >= 3
    assert not backends(standby)
    wait_until(lambda: make(standby).get("key") == "before", "the replication", 10)
    primary.execute("ALTER SYSTEM SET default_transaction_read_only = on")
    primary.execute("SELECT pg_reload_conf()")
    standby.execute("SELECT pg_promote()")
    wait_until(lambda: is_read_only(primary), "the setting", 10)
    driver.set("key", "after")
    assert driver.incr("count") == 1
    assert make(standby).get("key") == "after"
    wait_until(lambda: not backends(primary), "the end of the connections to it", 5)
    assert [driver.get("key") for _ in range(5)] == ["after"] * 5


def test_a_crash_of_the_primary(pair: tuple[PostgresServer, PostgresServer], make: Make) -> None:
    """Calls that may run twice succeed once the standby is promoted."""
    primary, standby = pair
    url = url_of(primary, standby)
    driver = make(primary, url=url)
    driver.set("key", "before")
    wait_until(lambda: make(standby).get("key") == "before", "the replication", 10)
    primary.kill()
    standby.execute("SELECT pg_promote()")
    assert driver.get("key") == "before"
    assert driver.incr("count") == 1


def is_read_only(server: PostgresServer) -> bool:
    return server.execute("SHOW default_transaction_read_only") == [("on",)]

"""The entries and settings of each store, and entries that other programs stored there."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pyramid.config import Configurator

from pyramid_kvs.exceptions import KVSUnavailable, ValueTooLarge
from tests.children import FORKS, is_true_in_child
from tests.kinto.stores import BackendError, Store, kintos_memcached, load
from tests.servers import (
    MemcachedServer,
    PostgresServer,
    RedisCluster,
    RedisServer,
    free_port,
    need,
)

ROOT = Path(__file__).parent.parent.parent

# -- redis -----------------------------------------------------------------------------------


def test_redis_holds_prefix_key_and_json(redis_server: RedisServer) -> None:
    """As kinto-redis stores them, so that each backend finds the other's entries."""
    cache = load("redis", cache_url=redis_server.url, cache_prefix="stack1_")
    cache.set("é", {"ü": 1}, 60)
    assert redis_server.command("KEYS", "*") == ["stack1_é".encode()]
    assert json.loads(redis_server.command("GET", "stack1_é")) == {"ü": 1}
    redis_server.command("PSETEX", "stack1_old", 60_000, '{"\\u00E9":[1,2.5,null]}')
    assert cache.get("old") == {"é": [1, 2.5, None]}
    assert cache.ttl("old") > 0


def test_redis_cluster(redis_cluster: RedisCluster) -> None:
    cache = load("redis", cache_url=redis_cluster.url, cache_prefix="stack1_")
    for number in range(20):
        cache.set(f"key{number}", number, 60)
    assert redis_cluster.calls()["set"] == 20
    assert [cache.get(f"key{number}") for number in range(20)] == list(range(20))
    assert cache.delete("key1") == 1
    cache.flush()
    assert redis_cluster.everywhere("DBSIZE") == [0, 0, 0]


def test_redis_user_and_percent_encoded_password(own_redis: Callable[..., RedisServer]) -> None:
    server = own_redis("--user", "kinto", "on", ">p@ss/w:rd%", "~*", "+@all")
    server.command("ACL", "SETUSER", "default", "off")
    url = f"redis://kinto:p%40ss%2Fw%3Ard%25@{server.host}:{server.port}/2"
    cache = load("redis", cache_url=url)
    cache.set("key", 1, 60)
    assert cache.get("key") == 1
    wrong = load("redis", cache_url=url.replace("p%40ss", "s3cret"))
    with pytest.raises(BackendError) as raised:
        wrong.get("key")
    assert isinstance(raised.value.original, KVSUnavailable)
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize("kind", ["valkey_sentinel_session", "valkey_cluster"])
def test_redis_of_sentinels_and_clusters(kind: str, request: pytest.FixtureRequest) -> None:
    servers = request.getfixturevalue(kind)
    cache = load("redis", cache_url=servers.url, cache_prefix=f"{kind}_")
    for number in range(20):
        cache.set(f"key{number}", number, 60)
    assert [cache.get(f"key{number}") for number in range(20)] == list(range(20))
    cache.flush()
    assert cache.get("key1") is None


def test_redis_without_tls_is_refused(redis_server: RedisServer) -> None:
    """``rediss://`` never becomes a plain connection."""
    cache = load("redis", cache_url=redis_server.url.replace("redis://", "rediss://"))
    with pytest.raises(BackendError):
        cache.set("key", 1, 60)
    assert redis_server.command("DBSIZE") == 0


def test_redis_over_tls(own_redis: Callable[..., RedisServer], tmp_path: Path) -> None:
    key, cert, port = tmp_path / "key.pem", tmp_path / "cert.pem", free_port()
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    make = [need("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    subprocess.run([*make, "-keyout", key, "-out", cert, *names], check=True, capture_output=True)
    own_redis(
        *("--tls-port", str(port), "--tls-cert-file", str(cert), "--tls-key-file", str(key)),
        *("--tls-ca-cert-file", str(cert), "--tls-auth-clients", "no"),
    )
    cache = load("redis", cache_url=f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={cert}")
    cache.set("key", 1, 60)
    assert cache.get("key") == 1
    with pytest.raises(BackendError, match=r"(?i)certificate"):
        load("redis", cache_url=f"rediss://127.0.0.1:{port}/0").get("key")


def test_redis_gets_no_more_connections_than_the_pool(redis_server: RedisServer) -> None:
    """If there are more threads than connections, threads wait."""
    cache = load(
        "redis",
        cache_url=redis_server.url,
        cache_pool_size="2",
        cache_max_overflow="1",
        cache_pool_timeout="30",
    )
    before = redis_server.command("INFO", "stats")["total_connections_received"]
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda number: cache.set(f"key{number}", number, 60), range(300)))
    opened = redis_server.command("INFO", "stats")["total_connections_received"] - before
    assert 1 <= opened <= 3
    assert cache.get("key299") == 299


@contextlib.contextmanager
def busy(cache: Any, server: RedisServer | MemcachedServer) -> Iterator[None]:
    """Have a call wait for a server that hangs, on the only connection."""
    cache.set("key", 1, 60)
    server.pause()
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(cache.get, "key")
        time.sleep(0.1)
        try:
            yield
        finally:
            server.resume()
        assert call.result() == 1


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"cache_pool_timeout": "0.05"}, r"all 1 connections .* none came free in 0\.05 s"),
        ({"cache_max_backlog": "0"}, "all 1 connections .* 0 callers wait"),
    ],
)
@pytest.mark.parametrize("own_store", ["redis", "memcached"], indirect=True)
def test_a_full_pool_is_a_backend_error(
    own_store: Store, settings: dict[str, str], expected: str
) -> None:
    cache = own_store.load(cache_pool_size="1", **settings)
    with busy(cache, own_store.server), pytest.raises(BackendError, match=expected):
        cache.get("key")
    assert cache.get("key") == 1


@pytest.mark.parametrize("fork", FORKS)
def test_a_child_process_has_its_own_pool(
    redis_server: RedisServer, fork: Callable[[], int]
) -> None:
    """The thread of the parent that uses the only connection does not exist in the child."""
    cache = load("redis", cache_url=redis_server.url, cache_pool_size=1, cache_pool_timeout="5")
    cache.set("key", 1, 60)

    def get_often() -> bool:
        return [cache.get("key") for _ in range(100)] == [1] * 100

    with ThreadPoolExecutor(1) as pool:
        parent = pool.submit(get_often)
        assert is_true_in_child(get_often, fork)
        assert parent.result()


# -- memcached -------------------------------------------------------------------------------


def test_memcached_shares_entries_with_kintos_own(memcached_server: MemcachedServer) -> None:
    """Workers with either backend can serve one cache."""
    settings = {"cache_hosts": memcached_server.url, "cache_prefix": "stack1_"}
    kintos = kintos_memcached.load_from_config(Configurator(settings=settings))
    ours = load("memcached", **settings)
    value = {"é": [1, 2.5, None], "value": 1, "ttl": 2}
    kintos.set("old", value, 60)
    ours.set("new", value, 60)
    assert ours.get("old") == kintos.get("old") == value
    assert ours.get("new") == kintos.get("new") == value
    assert 55 < ours.ttl("old") <= 60
    assert 55 < kintos.ttl("new") <= 61
    assert ours.delete("old") == value
    assert kintos.delete("new") == value
    assert ours.get("new") is None


def test_memcached_key_and_plain_json(memcached_server: MemcachedServer) -> None:
    cache = load("memcached", cache_hosts=memcached_server.url, cache_prefix="stack1_")
    cache.set("é", 1, 60)
    assert memcached_server.talk("get stack1_é\r\n".encode()).startswith(
        "VALUE stack1_é 16 ".encode()
    )
    memcached_server.talk(b'set stack1_plain 0 60 7\r\n[1,"a"]\r\n')
    assert cache.get("plain") == [1, "a"]


def test_memcached_hosts_are_a_list(own_memcached: Callable[..., MemcachedServer]) -> None:
    first, second = own_memcached(), own_memcached()
    cache = load("memcached", cache_hosts=f"\n  {first.url}\n  {second.url}  ")
    for number in range(40):
        cache.set(f"key{number}", number, 60)
    assert [cache.get(f"key{number}") for number in range(40)] == list(range(40))
    counts = [int(server.stats()["curr_items"]) for server in (first, second)]
    assert min(counts) > 0
    assert sum(counts) == 40
    cache.flush()
    assert cache.get("key1") is None


def test_a_value_too_large_for_memcached(memcached_server: MemcachedServer) -> None:
    cache = load("memcached", cache_hosts=memcached_server.url)
    with pytest.raises(BackendError) as raised:
        cache.set("key", "x" * 2_000_000, 60)
    assert isinstance(raised.value.original, ValueTooLarge)


# -- memory ----------------------------------------------------------------------------------


def in_a_new_process(program: str) -> None:
    """Run a program where no memory store exists yet."""
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True, cwd=ROOT)


def test_memory_is_bounded() -> None:
    """The most recently used entries stay. Each value of 100 bytes counts with its overhead."""
    in_a_new_process("""
        from tests.kinto.stores import load

        cache = load("memory", cache_max_size_bytes="20000", cache_prefix="a_")
        for number in range(1000):
            cache.set(f"key{number}", "x" * 100, 600)
            assert cache.get("key0") is not None
        kept = [n for n in range(1000) if cache.get(f"key{n}") is not None]
        assert kept[0] == 0 and kept[1:] == list(range(1001 - len(kept), 1000)), kept
        assert 20 < len(kept) < 200
        assert cache._driver._client.size <= 20000
    """)


def test_memory_is_shared_and_the_first_size_holds() -> None:
    in_a_new_process("""
        from tests.kinto.stores import BackendError, kintos_memcached, load
        from pyramid_kvs.exceptions import ValueTooLarge

        first = load("memory", cache_max_size_bytes=10_000, cache_prefix="same_")
        second = load("memory", cache_max_size_bytes=10_000_000, cache_prefix="same_")
        other = load("memory", cache_prefix="other_")
        first.set("key", 1, 60)
        assert second.get("key") == 1
        assert other.get("key") is None
        try:
            second.set("large", "x" * 20_000, 60)
        except BackendError as error:
            assert isinstance(error.original, ValueTooLarge)
        else:
            raise AssertionError("it was stored")
        assert first.get("large") is None
    """)


def test_memory_has_the_size_that_kinto_documents() -> None:
    in_a_new_process("""
        from tests.kinto.stores import load

        assert load("memory")._driver._client.max_bytes == 524288
    """)


# -- PostgreSQL ------------------------------------------------------------------------------


def test_postgresql_has_a_table_of_its_own(postgres_server: PostgresServer) -> None:
    cache = load("postgresql", cache_url=postgres_server.url, cache_prefix="stack1_")
    cache.initialize_schema()
    cache.set("é", {"ü": 1}, 60)
    rows = postgres_server.execute(
        "SELECT convert_from(key, 'UTF8'), convert_from(data, 'UTF8') FROM kinto_cache"
    )
    assert [(key, json.loads(text)) for key, text in rows] == [("stack1_é", {"ü": 1})]


def test_postgresql_dry_run_creates_nothing(postgres_server: PostgresServer) -> None:
    cache = load("postgresql", cache_url=postgres_server.url)
    cache.initialize_schema(dry_run=True)
    tables = "SELECT 1 FROM pg_tables WHERE schemaname = 'public'"
    assert postgres_server.execute(tables) == []
    with pytest.raises(BackendError, match="kinto_cache"):
        cache.get("key")


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2"])
def test_postgresql_urls_of_sqlalchemy(postgres_server: PostgresServer, scheme: str) -> None:
    cache = load("postgresql", cache_url=postgres_server.url.replace("postgresql", scheme, 1))
    cache.initialize_schema()
    assert cache.get("key") is None


def test_postgresql_percent_encoded_password(own_postgres: Callable[..., PostgresServer]) -> None:
    server = own_postgres()
    server.execute("CREATE ROLE kinto LOGIN PASSWORD 'p@ss/w:rd%'")
    rules = "local all all trust\nhost all postgres 127.0.0.1/32 trust\n"
    (server.data / "pg_hba.conf").write_text(rules + "host all all 127.0.0.1/32 scram-sha-256\n")
    server.restart()
    load("postgresql", cache_url=server.url).initialize_schema()
    server.execute("GRANT ALL ON kinto_cache, kinto_cache_version TO kinto")
    url = f"postgresql://kinto:p%40ss%2Fw%3Ard%25@{server.host}:{server.port}/{server.dbname}"
    cache = load("postgresql", cache_url=url)
    cache.set("key", 1, 60)
    assert cache.get("key") == 1
    with pytest.raises(BackendError) as raised:
        load("postgresql", cache_url=url.replace("p%40ss", "s3cret")).get("key")
    assert isinstance(raised.value.original, KVSUnavailable)
    assert "s3cret" not in str(raised.value)


def test_postgresql_pool_settings(postgres_server: PostgresServer) -> None:
    cache = load(
        "postgresql",
        cache_url=postgres_server.url,
        cache_pool_size="2",
        cache_max_overflow="1",
        cache_max_backlog="-1",
        cache_pool_timeout="30",
        cache_pool_recycle="3600",
    )
    cache.initialize_schema()
    most = 0
    done = threading.Event()

    def watch() -> None:
        nonlocal most
        sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pyramid_kvs'"
        while not done.is_set():
            most = max(most, postgres_server.execute(sql)[0][0])

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda number: cache.set(f"key{number}", number, 60), range(300)))
    done.set()
    watcher.join(60)
    assert 1 <= most <= 3
    assert cache.get("key299") == 299


def test_postgresql_entries_of_kintos_own_can_be_copied(postgres_server: PostgresServer) -> None:
    """The statement is the one in the documentation; the table is as Kinto 26 makes it."""
    cache = load("postgresql", cache_url=postgres_server.url, cache_prefix="stack1_")
    cache.initialize_schema()
    postgres_server.execute("""
        CREATE TABLE cache (key varchar(256) PRIMARY KEY, value text NOT NULL, ttl timestamp);
        INSERT INTO cache VALUES
            ('stack1_é', '{"\\u00E9":[1,2.5,null]}', now()::timestamp + interval '1 hour'),
            ('stack1_over', '1', now()::timestamp - interval '1 hour')
    """)
    page = (ROOT / "docs" / "kinto.rst").read_text(encoding="utf-8")
    statement = re.search(r"INSERT INTO kinto_cache.*?;", page, re.DOTALL)
    assert statement
    postgres_server.execute(statement[0])
    assert cache.get("é") == {"é": [1, 2.5, None]}
    assert 3500 < cache.ttl("é") <= 3600
    assert cache.get("over") is None

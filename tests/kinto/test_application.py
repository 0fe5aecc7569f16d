"""A whole Kinto with a cache of this library, by HTTP and by Kinto's commands."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from webtest import TestApp

from tests.kinto.stores import NAMES, SERVED, Counts, Store, kinto
from tests.servers import PostgresServer, wait_until

#: Kinto's default, in seconds.
HEARTBEAT_TIMEOUT = 10
ACCOUNTS = "kinto.plugins.accounts.authentication.AccountsAuthenticationPolicy"
SETTINGS = {
    "kinto.storage_backend": "kinto.core.storage.memory",
    "kinto.permission_backend": "kinto.core.permission.memory",
    "kinto.userid_hmac_secret": "a secret of this test",
    "kinto.bucket_create_principals": "system.Authenticated",
    "kinto.account_create_principals": "system.Everyone",
    "kinto.includes": "kinto.plugins.accounts kinto.plugins.flush",
    "kinto.heartbeat_timeout_seconds": str(HEARTBEAT_TIMEOUT),
    "multiauth.policies": "account",
    "multiauth.policy.account.use": ACCOUNTS,
}


def settings_for(store: Store, prefix: str = "stack1_") -> dict[str, str]:
    """Return settings as in Kinto's ini file: strings, with the project's name before each."""
    cache = {f"kinto.{name}": value for name, value in store.settings.items()}
    backend = f"pyramid_kvs.kinto.{store.name}"
    return {**SETTINGS, **cache, "kinto.cache_backend": backend, "kinto.cache_prefix": prefix}


def start(store: Store, prefix: str = "stack1_") -> TestApp:
    """Start Kinto on a store."""
    store.load(cache_prefix=prefix).initialize_schema()
    return TestApp(kinto.main({}, **settings_for(store, prefix)))


def log_in(app: TestApp) -> None:
    """Make an account, with which Kinto uses its cache at each request."""
    app.put_json("/v1/accounts/alice", {"data": {"password": "a pass phrase"}}, status=201)
    app.authorization = ("Basic", ("alice", "a pass phrase"))


def heartbeat(app: TestApp) -> dict[str, bool]:
    """Check the status and the time, and return which parts are alive."""
    started = time.monotonic()
    response = app.get("/v1/__heartbeat__", status="*")
    assert time.monotonic() - started < HEARTBEAT_TIMEOUT
    assert response.status_code == (200 if all(response.json.values()) else 503)
    return {name: alive for name, alive in response.json.items() if name != "account"}


def only_cache_is_down(app: TestApp) -> bool:
    return heartbeat(app) == {"storage": True, "permission": True, "cache": False}


@pytest.mark.parametrize("store", NAMES, indirect=True)
def test_records_by_http(store: Store) -> None:
    app = start(store)
    assert heartbeat(app) == {"storage": True, "permission": True, "cache": True}
    log_in(app)
    app.put_json("/v1/buckets/blog", status=201)
    app.put_json("/v1/buckets/blog/collections/posts", status=201)
    posts = "/v1/buckets/blog/collections/posts/records"
    made = [app.post_json(posts, {"data": {"n": n}}, status=201).json["data"] for n in range(3)]
    assert sorted(record["n"] for record in app.get(posts).json["data"]) == [0, 1, 2]
    app.delete(f"{posts}/{made[0]['id']}")
    assert sorted(record["n"] for record in app.get(posts).json["data"]) == [1, 2]
    app.authorization = ("Basic", ("alice", "a wrong one"))
    app.put_json("/v1/buckets/other", status=401)


@pytest.mark.parametrize("store", NAMES, indirect=True)
def test_kinto_keeps_its_logins_in_the_cache(store: Store) -> None:
    app = start(store)
    cache, counts = app.app.registry.cache, Counts()
    if store.name != "memcached":
        cache.flush()  # memory may know alice from another test
    cache.set_metrics_backend(counts)
    log_in(app)
    app.put_json("/v1/buckets/blog", status=201)
    assert counts.keys == ["cache_misses"]
    app.put_json("/v1/buckets/diary", status=201)
    assert counts.keys == ["cache_misses", "cache_hits"]


@pytest.mark.parametrize("own_store", SERVED, indirect=True)
def test_heartbeat_without_the_store(own_store: Store) -> None:
    app = start(own_store)
    assert all(heartbeat(app).values())
    own_store.kill()
    assert only_cache_is_down(app)
    own_store.server.start()
    wait_until(lambda: all(heartbeat(app).values()), "the heartbeat's return", 30)


@pytest.mark.parametrize("own_store", SERVED, indirect=True)
def test_heartbeat_of_a_store_that_hangs(own_store: Store) -> None:
    app = start(own_store)
    log_in(app)
    own_store.server.pause()
    assert only_cache_is_down(app)
    response = app.get("/v1/buckets", status=503)
    assert "Retry-After" in response.headers
    own_store.server.resume()
    wait_until(lambda: all(heartbeat(app).values()), "the heartbeat's return", 30)
    app.get("/v1/buckets", status=200)


@pytest.mark.parametrize("own_store", SERVED, indirect=True)
def test_kinto_starts_without_the_store(own_store: Store) -> None:
    own_store.server.pause()
    app = TestApp(kinto.main({}, **settings_for(own_store)))
    assert only_cache_is_down(app)
    own_store.server.resume()


@pytest.mark.parametrize("store", NAMES, indirect=True)
def test_flush_endpoint(store: Store) -> None:
    """It flushes all backends, which memcached can do only where no prefix is set."""
    app = start(store, prefix="")
    cache = store.load()
    cache.set("key", 1, 60)
    app.post("/v1/__flush__", status=202)
    assert cache.get("key") is None


def write_ini(path: Path, store: Store) -> Path:
    lines = [f"{name} = {value}" for name, value in settings_for(store).items()]
    server = ["[server:main]", "use = egg:waitress#main", "port = 8888"]
    path.write_text("\n".join([*server, "[app:main]", "use = egg:kinto", *lines]))
    return path


def run_kinto(command: str, ini: Path, *arguments: str) -> str:
    """Run the console script ``kinto``; return what it said."""
    script = Path(sys.executable).with_name("kinto")
    words = [str(script), command, "--ini", str(ini), *arguments]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def tables(server: PostgresServer) -> set[str]:
    sql = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    return {name for (name,) in server.execute(sql)}


@pytest.mark.parametrize("store", ["postgresql"], indirect=True)
def test_kinto_migrate_creates_the_table(store: Store, tmp_path: Path) -> None:
    ini = write_ini(tmp_path / "kinto.ini", store)
    assert "kinto_cache" in run_kinto("migrate", ini, "--dry-run")
    assert tables(store.server) == set()
    run_kinto("migrate", ini)
    assert tables(store.server) == {"kinto_cache", "kinto_cache_version"}
    cache = store.load()
    cache.set("key", 1, 60)
    run_kinto("migrate", ini)
    assert cache.get("key") == 1


@pytest.mark.parametrize("store", ["redis"], indirect=True)
def test_kinto_flush_cache_keeps_other_keys(store: Store, tmp_path: Path) -> None:
    mine, other = store.load(cache_prefix="stack1_"), store.load(cache_prefix="stack2_")
    mine.set("key", 1, 60)
    other.set("key", 1, 60)
    run_kinto("flush-cache", write_ini(tmp_path / "kinto.ini", store))
    assert [mine.get("key"), other.get("key")] == [None, 1]

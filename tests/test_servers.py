"""The servers for tests start, hang, die and restart, and leave nothing behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from tests import servers
from tests.servers import (
    MemcachedServer,
    PostgresServer,
    RedisCluster,
    RedisServer,
    Server,
    children,
    process_state,
    wait_until,
)

ROOT = Path(__file__).parent.parent
KINDS = [RedisServer, MemcachedServer, PostgresServer]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.program)


def is_gone(pid: int) -> bool:
    return process_state(pid) in ("", "Z")


@every_kind
def test_close_leaves_nothing(kind: type[Server]) -> None:
    with kind() as server:
        pids, directory = [server.pid, *children(server.pid)], server.directory
        assert server.is_ready()
    assert not server.is_running()
    assert not directory.exists()
    assert all(is_gone(pid) for pid in pids)


@pytest.mark.parametrize("name", servers.REDIS_VERSIONS)
def test_other_version_of_redis(name: str) -> None:
    with RedisServer(version=name) as server:
        info = server.command("INFO", "server")
        found = info.get("valkey_version", info["redis_version"])
        assert found.startswith(name.removeprefix("valkey-") + ".")
        assert servers.versions()[f"redis {name}"] == found


@pytest.mark.parametrize("version", ["", "valkey-9.1"])
def test_cluster(version: str) -> None:
    with RedisCluster(version=version) as cluster:
        pids = [node.pid for node in cluster.nodes]
        assert cluster.primaries() == cluster.first == cluster.nodes[:3]
        assert {node.role() for node in cluster.nodes[3:]} == {"slave"}
        cluster.reset_calls()
        cluster.command("SET", "key", "1")
        assert cluster.calls() == {"set": 1}
        old, new = cluster.primary_of("key"), cluster.primaries()[0]
        assert old is not new
        # Only newer versions of redis-py have a class for this error.
        with pytest.raises(redis.ResponseError, match=f"{servers.slot_of('key')} "):
            new.command("GET", "key")
        cluster.move_slots([servers.slot_of("key")], new)
        assert cluster.primary_of("key") is new
        assert new.command("GET", "key") == b"1"
        cluster.clear()
        assert cluster.everywhere("DBSIZE") == [0, 0, 0]
    assert all(is_gone(pid) for pid in pids)
    assert not any(node.directory.exists() for node in cluster.nodes)


def test_cluster_promotes_a_replica() -> None:
    with RedisCluster(node_timeout=1) as cluster:
        lost, replica = cluster.primary_of("key"), cluster.replica_of("key")
        lost.kill()
        wait_until(lambda: cluster.primary_of("key") is replica, "promotion")
        cluster.ensure()
        assert lost.role() == "slave"
        assert cluster.replica_of("key") is lost


def test_cluster_with_tls_and_password(tmp_path: Path) -> None:
    for path in (tmp_path, *tmp_path.parents[:2]):
        path.chmod(0o755)
    with RedisCluster(tls=servers.certificate(tmp_path), requirepass="s3cret") as cluster:
        port = cluster.primary_of("key").public_port
        client = redis.Redis(
            port=port, password="s3cret", ssl=True, ssl_ca_certs=str(tmp_path / "cert.pem")
        )
        assert client.set("key", 1)
        assert cluster.url == "rediss+cluster://:s3cret@" + ",".join(
            f"127.0.0.1:{node.public_port}" for node in cluster.nodes
        )


@pytest.mark.parametrize("turn", [1, 2])
def test_shared_cluster_is_empty(turn: int, redis_cluster: RedisCluster) -> None:
    assert redis_cluster.everywhere("DBSIZE") == [0, 0, 0]
    redis_cluster.command("SET", "left", turn)


def test_missing_version_of_redis(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(servers, "OTHER_SERVERS", tmp_path)
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(servers.Missing, match=r"\.ci/servers"):
        RedisServer(version="6.2")
    assert servers.versions()["redis 6.2"] == "missing"


@every_kind
def test_restart_keeps_the_address(kind: type[Server]) -> None:
    with kind() as server:
        before = server.url, server.pid
        server.restart()
        assert server.is_ready()
        assert server.url == before[0]
        assert server.pid != before[1]


@every_kind
def test_kill_and_start(kind: type[Server]) -> None:
    with kind() as server:
        pids = [server.pid, *children(server.pid)]
        server.kill()
        assert all(is_gone(pid) for pid in pids)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((server.host, server.port), 5)
        assert server.start().is_ready()


@every_kind
def test_close_of_a_paused_server(kind: type[Server]) -> None:
    with kind() as server:
        server.pause()
        pid = server.pid
    assert is_gone(pid)


def test_paused_redis_is_silent() -> None:
    with RedisServer() as server:
        server.pause()
        client = redis.Redis(port=server.port, socket_timeout=0.2, retry=None)
        with pytest.raises(redis.TimeoutError):
            client.ping()
        server.resume()
        assert server.command("PING") is True


def test_paused_postgres_stops_its_sessions_too() -> None:
    psycopg = pytest.importorskip("psycopg")
    with PostgresServer() as server, psycopg.connect(server.dsn()) as connection:
        connection.execute("SELECT 1")
        server.pause()
        try:  # with the server paused, leaving the connection's context would block
            states = {process_state(pid) for pid in children(server.pid)}
        finally:
            server.resume()
        assert states - {"Z"} == {"T"}, "a background worker may just have ended"
        assert connection.execute("SELECT 2").fetchone() == (2,)


@every_kind
def test_killed_test_run_takes_its_servers_along(kind: type[Server]) -> None:
    """SIGKILL does not let the fixtures stop anything, so that the kernel has to."""
    servers.need(kind.program)
    start = f"from tests.servers import *; server = {kind.__name__}().start()"
    program = f"{start}; print(server.pid, server.directory, flush=True); input()"
    run = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert run.stdout is not None
    pid, directory = run.stdout.readline().split()
    assert not is_gone(int(pid))
    os.kill(run.pid, signal.SIGKILL)
    run.communicate()
    wait_until(lambda: is_gone(int(pid)), "end of the server")
    subprocess.run(["rm", "-rf", directory], check=True)


@every_kind
def test_taken_port_is_replaced(kind: type[Server]) -> None:
    with socket.create_server((servers.LOOPBACK, 0)) as taken:
        server = kind()
        server.port = taken.getsockname()[1]
        with server:
            assert server.port != taken.getsockname()[1]
            assert server.is_ready()


def test_server_that_refuses_its_options_says_why() -> None:
    with (
        pytest.raises(servers.NotStarted, match="no-such-option"),
        RedisServer("--no-such-option", "1"),
    ):
        pass


def test_redis_counts_commands(redis_server: RedisServer) -> None:
    redis_server.command("SET", "a", "1")
    redis_server.command("GET", "a")
    redis_server.command("GET", "a")
    assert redis_server.calls() == {"set": 1, "get": 2}
    redis_server.reset_calls()
    assert redis_server.calls() == {}


def test_redis_options() -> None:
    with RedisServer(requirepass="s3cret", maxmemory="3mb") as server:
        assert server.client.config_get("maxmemory") == {"maxmemory": "3145728"}
        assert redis.Redis.from_url(server.url).ping()
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=server.port, retry=None).ping()


def test_memcached_talks_raw_bytes(memcached_server: MemcachedServer) -> None:
    assert memcached_server.talk(b"set a 7 0 3\r\n1\r\n\r\n") == b"STORED\r\n"
    assert memcached_server.talk(b"get a\r\n") == b"VALUE a 7 3\r\n1\r\n\r\nEND\r\n"


def test_memcached_on_a_unix_socket() -> None:
    with MemcachedServer("-I", "2m", unix=True) as server:
        assert server.stats("settings")["item_size_max"] == str(2 << 20)
        assert Path(server.socket_path).is_socket()


@pytest.mark.parametrize("turn", [1, 2])
def test_shared_servers_are_empty(
    turn: int,
    redis_server: RedisServer,
    memcached_server: MemcachedServer,
    postgres_server: PostgresServer,
) -> None:
    assert redis_server.command("DBSIZE") == 0
    assert memcached_server.talk(b"get left\r\n") == b"END\r\n"
    assert postgres_server.execute(
        "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
    ) == [(0,)]
    redis_server.command("SET", "left", turn)
    memcached_server.talk(b"set left 0 0 1\r\n1\r\n")
    postgres_server.execute("CREATE TABLE left_over (id int)")
    assert memcached_server.talk(b"get left\r\n") == b"VALUE left 0 1\r\n1\r\nEND\r\n"


def test_postgres_databases_and_options() -> None:
    with PostgresServer(max_connections="11") as server:
        name = server.create_database()
        server.execute("CREATE TABLE t (id int); INSERT INTO t VALUES (5)", dbname=name)
        assert server.execute("SELECT id FROM t WHERE id = %s", (5,), dbname=name) == [(5,)]
        assert server.execute("SHOW max_connections") == [("11",)]
        server.restart()
        assert server.execute("SELECT id FROM t", dbname=name) == [(5,)]


def test_postgres_urls(postgres_server: PostgresServer) -> None:
    psycopg = pytest.importorskip("psycopg")
    for address in (postgres_server.url, postgres_server.socket_url, postgres_server.dsn()):
        with psycopg.connect(address) as connection:
            assert connection.execute("SELECT current_database(), current_user").fetchone() == (
                "kvs",
                "postgres",
            )


def test_missing_program_skips_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(
        pytest.skip.Exception, match="no-such is not installed: apt-get install no-such"
    ):
        servers.need("no-such")


def test_missing_server_is_one_line_of_the_summary(tmp_path: Path) -> None:
    """Tests skip in fixtures and in their body, in several files: one line for all of them."""
    printed = run_without("redis-server", tmp_path).stdout
    reason = "redis-server is not installed: apt-get install redis-server"
    lines = [line for line in printed.splitlines() if reason in line]
    assert len(lines) == 1, printed
    skipped = re.match(r"SKIPPED \[(\d+)\] tests/servers.py:\d+: ", lines[0])
    assert skipped
    assert int(skipped[1]) > 2
    assert re.search(r"^servers: redis-server missing, memcached ", printed, re.MULTILINE)


def test_missing_server_fails_the_run_in_ci(tmp_path: Path) -> None:
    run = run_without("redis-server", tmp_path, CI="true")
    assert run.returncode == 1
    summary = r"^=+ \d+ failed, (\d+ passed, )?\d+ deselected, \d+ errors? in "
    assert re.search(summary, run.stdout, re.MULTILINE)


def run_without(program: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run some tests in a pytest that does not find a program."""
    (folder / "without.py").write_text(
        "from tests import servers\n"
        "find = servers.find\n"
        f"servers.find = lambda program: None if program == {program!r} else find(program)\n"
    )
    names = "redis and not (run or killed or version)"
    chosen = ["tests/demo/test_command.py", "tests/test_servers.py", "-k", names]
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "without", *chosen],
        cwd=ROOT,
        env={**os.environ, "CI": "", **environment, "PYTHONPATH": f"{folder}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_missing_program_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="apt-get install libno-such-perl"):
        servers.need_perl("No::Such")

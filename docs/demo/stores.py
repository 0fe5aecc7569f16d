"""The stores of the demo: servers that it starts for itself, and the memory of its process.

A server listens on a unix socket in its own folder. So it needs no port, and no other user of the
machine can connect to it.
"""

from __future__ import annotations

import contextlib
import functools
import glob
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from pyramid_kvs.kvs import KVS


class NotInstalled(Exception):
    """The server of a store is not installed."""


class Memory:
    """The memory of this process, which cannot be stopped."""

    title = "memory"
    is_server = False
    keeps_data = False
    state = "running"
    description = (
        "The data are in the memory of the demo itself, which cannot be stopped. To see an outage, "
        "install redis and start docs/demo/run redis."
    )

    @property
    def settings(self):
        return {"kvs": "memory", "kvs_kwargs": {"name": "demo"}}

    def start(self):
        pass

    def close(self):
        pass


class Server:
    """A server process of the demo. Its states are ``stopped``, ``running`` and ``paused``."""

    is_server = True
    stop_signal = signal.SIGTERM
    #: Names of the program. The first one that is installed is used.
    programs = ()
    #: Debian's package.
    package = ""
    #: Whether the data are still there after a stop and a start.
    keeps_data = True

    def __init__(self):
        self.program = self.find(*self.programs)
        # A long TMPDIR would make the path too long for a socket.
        self.folder = Path(tempfile.mkdtemp(prefix="kvs-demo-", dir="/tmp"))
        self.socket = self.folder / "socket"
        self.process = None
        self.is_paused = False
        self.lock = threading.Lock()
        # As root, the server runs as the user nobody.
        self.account = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        if self.account:
            os.chown(self.folder, self.account.pw_uid, self.account.pw_gid)

    def find(self, *programs):
        """Return the path of a program, also if it is in a folder that is not in PATH."""
        folders = [os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/bin"]
        folders += sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True)
        for program in programs:
            if found := shutil.which(program, path=os.pathsep.join(folders)):
                return found
        raise NotInstalled(f"{self.package} is not installed: apt-get install {self.package}")

    @functools.cached_property
    def title(self):
        """Return the name of the program with its version."""
        printed = subprocess.run([self.program, "--version"], capture_output=True, text=True)
        version = re.search(r"\d+(\.\d+)+", printed.stdout)
        return f"{Path(self.program).name} {version[0] if version else ''}".strip()

    @property
    def description(self):
        return (
            f"The demo has started its own {self.title} on the socket {self.socket}, and stops it "
            "at the end."
        )

    @property
    def state(self):
        if self.process is None or self.process.poll() is not None:
            return "stopped"
        return "paused" if self.is_paused else "running"

    # -- start and stop

    def start(self):
        """Start the server, or let it go on if it is paused. Return when it is ready."""
        with self.lock:
            if self.state == "stopped":
                self.socket.unlink(missing_ok=True)
                self.process = self.launch(self.program, *self.arguments())
                self.wait_until_ready()
            self.send(signal.SIGCONT)
            self.is_paused = False

    def pause(self):
        """Stop the process with SIGSTOP: the server accepts connections, but never answers."""
        with self.lock:
            self.send(signal.SIGSTOP)
            self.is_paused = True

    def stop(self):
        """End the server by its process id."""
        with self.lock:
            if self.state == "stopped":
                return
            self.send(signal.SIGCONT)
            self.is_paused = False
            self.process.send_signal(self.stop_signal)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.send(signal.SIGKILL)
                self.process.wait()

    def close(self):
        """Stop the server and remove its folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def send(self, number):
        """Send a signal to the server, and then to the processes that it has started."""
        if self.state == "stopped":
            return
        pid = self.process.pid
        os.kill(pid, number)
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), number)

    def launch(self, *command):
        # Ctrl-C goes to all processes of the terminal, so the server leaves it.
        # setpriv makes the kernel end it if the demo is killed by SIGKILL.
        guard = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        account = {}
        if self.account:
            account = {
                "user": self.account.pw_uid,
                "group": self.account.pw_gid,
                "extra_groups": [],
            }
        with open(self.folder / "log", "ab") as log:
            return subprocess.Popen(
                [*guard, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
                **account,
            )

    def wait_until_ready(self):
        deadline = time.monotonic() + 60
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                log = (self.folder / "log").read_text(errors="replace")
                self.send(signal.SIGKILL)
                raise RuntimeError(f"{self.program} did not start:\n{log[-2000:]}")
            time.sleep(0.02)

    def is_ready(self):
        return KVS(self.settings["kvs"], self.settings["kvs_kwargs"]).ping()

    def arguments(self):
        raise NotImplementedError


class Redis(Server):
    programs = ("redis-server", "valkey-server")
    package = "redis-server"

    @property
    def settings(self):
        return {"kvs": "redis", "kvs_kwargs": {"url": f"unix://{self.socket}"}}

    def arguments(self):
        # It saves its data when it is stopped.
        return ["--port", "0", "--unixsocket", str(self.socket), "--save", "3600 1"]


class Memcached(Server):
    programs = ("memcached",)
    package = "memcached"
    keeps_data = False
    stop_signal = signal.SIGINT  # SIGTERM takes a second

    @property
    def settings(self):
        return {"kvs": "memcache", "kvs_kwargs": {"servers": [f"unix:{self.socket}"]}}

    def arguments(self):
        return ["-s", str(self.socket)]


class PostgreSQL(Server):
    programs = ("postgres",)
    package = "postgresql"
    stop_signal = signal.SIGINT  # ends the connections

    def __init__(self):
        self.initdb = self.find("initdb")
        super().__init__()
        self.data = self.folder / "data"
        self.socket = self.folder / ".s.PGSQL.5432"

    @property
    def settings(self):
        url = f"postgresql://postgres@/postgres?host={self.folder}"
        return {"kvs": "postgresql", "kvs_kwargs": {"url": url}}

    def start(self):
        is_new = not self.data.exists()
        if is_new:
            self.launch(
                self.initdb, "-D", str(self.data), "-U", "postgres", "-A", "trust", "-E", "UTF8",
                "--locale=C", "--no-sync",
            ).wait()  # fmt: skip
        super().start()
        if is_new:
            KVS(self.settings["kvs"], self.settings["kvs_kwargs"]).initialize_schema()

    def arguments(self):
        folder = f"unix_socket_directories={self.folder}"
        return ["-D", str(self.data), "-c", "listen_addresses=", "-c", folder, "-c", "fsync=off"]

    def is_ready(self):
        status = self.data / "postmaster.pid"
        return status.exists() and "ready" in status.read_text()


STORES = {"memory": Memory, "redis": Redis, "memcached": Memcached, "postgresql": PostgreSQL}


def choose(name=None):
    """Return a store; without a name, redis if it is installed, and memory otherwise."""
    if name is not None:
        return STORES[name]()
    try:
        return Redis()
    except NotInstalled:
        return Memory()

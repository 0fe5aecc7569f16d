"""The command ``docs/demo/run``, once everything is installed."""

import contextlib
import logging
import os
import signal
import socket
import sys

from waitress.server import create_server

from .application import main
from .stores import NotInstalled, choose

HOST = "127.0.0.1"


def bind(port):
    """Return a socket that listens on a port of this machine only."""
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        sys.exit(f"demo: PORT is {port!r}, but it has to be a number from 1 to 65535")
    try:
        return socket.create_server((HOST, int(port)), backlog=1024)
    except OSError as error:
        said = os.strerror(error.errno)
        sys.exit(
            f"demo: port {port} cannot be used ({said}): choose another one, as in "
            f"PORT={int(port) % 65535 + 1} docs/demo/run"
        )


def end(number, frame):
    """End the demo as Ctrl-C does. A second signal does not disturb the end."""
    ignore_signals()
    raise KeyboardInterrupt


def ignore_signals():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def running(name):
    """Start a store, and stop it at the end, whatever happens."""
    try:
        store = choose(name)
    except NotInstalled as error:
        sys.exit(f"demo: {error}, or choose another store, as in docs/demo/run memory")
    try:
        store.start()
        yield store
    finally:
        ignore_signals()
        store.close()


def serve(name, listening):
    with running(name) as store:
        server = create_server(main(store), sockets=[listening], threads=24)
        if name is None and not store.is_server:
            print("redis is not installed, so the demo uses memory.")
        print(store.description)
        print("The demo is on http://{}:{}/. Ctrl-C ends it.".format(*listening.getsockname()))
        sys.stdout.flush()
        server.run()


def run(name=None):
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    listening = bind(os.environ.get("PORT") or "6543")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    with contextlib.suppress(KeyboardInterrupt):
        serve(name, listening)
    print("The demo has ended.")


if __name__ == "__main__":
    run(*sys.argv[1:])

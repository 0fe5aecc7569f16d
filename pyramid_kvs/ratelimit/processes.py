"""Whether other processes serve the same application, where each has a store of its own."""

from __future__ import annotations

import logging
import os
import re
import sys

from pyramid.request import Request

from ..kvs import KVS

log = logging.getLogger("pyramid_kvs.ratelimit")

_OWN_STORES = ("memory", "mock")
_WORKERS = re.compile(r"(?:^|\s)(?:-w|--workers|--processes)[\s=]*(\d+)")
_SERVERS = re.compile(r"gunicorn|uwsgi|mod_wsgi|uvicorn|hypercorn|granian")


class ProcessWatch:
    """Warns once if limits count in this process's memory and it is not the only one."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._is_on = False
        self._has_warned = False

    def add(self, driver: KVS) -> None:
        """Take note of a store that limits count on, at the start."""
        if driver.kvs in _OWN_STORES:
            self._is_on = not self._has_warned
            if self._is_on and workers_in_sight():
                self._warn()

    def look(self, request: Request) -> None:
        """Look at a request, whose server knows best."""
        if self._is_on and (request.environ.get("wsgi.multiprocess") or os.getpid() != self._pid):
            self._warn()

    def _warn(self) -> None:
        self._is_on, self._has_warned = False, True
        log.warning(
            "kvs.ratelimit counts in this process's memory, and more than one process serves: "
            "each counts alone, so that together they let through more than the limit; "
            'use a store that they share, for example {"kvs": "redis"}'
        )


def workers_in_sight() -> bool:
    """Return whether the environment or a server's command line asks for several workers."""
    asked = os.environ.get("WEB_CONCURRENCY", "")
    if asked.isdecimal() and int(asked) > 1:
        return True
    arguments = os.environ.get("GUNICORN_CMD_ARGS", "")
    if sys.argv and _SERVERS.search(os.path.basename(sys.argv[0])):
        arguments += " " + " ".join(sys.argv[1:])
    return any(int(count) > 1 for count in _WORKERS.findall(arguments)) or _is_uwsgi()


def _is_uwsgi() -> bool:
    uwsgi = sys.modules.get("uwsgi")  # exists only within its server
    return uwsgi is not None and getattr(uwsgi, "numproc", 1) > 1

"""Warn if several processes serve an application and each has a separate store."""

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
    """Warns once if limits count in the memory of this process, and there are other processes."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._is_on = False
        self._has_warned = False

    def add(self, driver: KVS) -> None:
        """Note at the start that limits count on a store."""
        if driver.kvs in _OWN_STORES:
            self._is_on = not self._has_warned
            if self._is_on and workers_in_sight():
                self._warn()

    def look(self, request: Request) -> None:
        """Look at a request, because its server tells whether there are other processes."""
        if self._is_on and (request.environ.get("wsgi.multiprocess") or os.getpid() != self._pid):
            self._warn()

    def _warn(self) -> None:
        self._is_on, self._has_warned = False, True
        log.warning(
            "kvs.ratelimit counts in this process's memory, but there is more than one process: "
            "each counts separately, so together they admit more requests than the limit allows; "
            'use a store that they share, for example {"kvs": "redis"}'
        )


def workers_in_sight() -> bool:
    """Return whether the environment or the server's command line sets several workers."""
    asked = os.environ.get("WEB_CONCURRENCY", "")
    if asked.isdecimal() and int(asked) > 1:
        return True
    arguments = os.environ.get("GUNICORN_CMD_ARGS", "")
    if sys.argv and _SERVERS.search(os.path.basename(sys.argv[0])):
        arguments += " " + " ".join(sys.argv[1:])
    return any(int(count) > 1 for count in _WORKERS.findall(arguments)) or _is_uwsgi()


def _is_uwsgi() -> bool:
    uwsgi = sys.modules.get("uwsgi")  # exists only in processes of uWSGI
    return uwsgi is not None and getattr(uwsgi, "numproc", 1) > 1

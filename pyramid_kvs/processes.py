"""Warn if several processes serve an application, and a store is in the memory of each."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any

log = logging.getLogger("pyramid_kvs.stores")

_WORKERS = re.compile(r"(?:^|\s)(?:-w|--workers|--processes)[\s=]*(\d+)")
_SERVERS = re.compile(r"gunicorn|uwsgi|mod_wsgi|uvicorn|hypercorn|granian")


class ProcessWatch:
    """Warns once if there are several processes, at the start or when a request shows it.

    :param settings: the names of the settings whose data are in the memory of this process.
    """

    def __init__(self, settings: Iterable[str]) -> None:
        self._settings = ", ".join(dict.fromkeys(settings))
        self._pid = os.getpid()
        self.is_on = bool(self._settings)
        if self.is_on and workers_in_sight():
            self._warn()

    def look(self, environ: Mapping[str, Any]) -> None:
        """Look at a request; to be called while ``is_on``. Its server knows the processes."""
        if environ.get("wsgi.multiprocess") or os.getpid() != self._pid:
            self._warn()

    def _warn(self) -> None:
        self.is_on = False
        log.warning(
            "%s: the data are in this process's memory, but there is more than one process, and "
            "each one has its own data: a session is unknown to the other processes, and together "
            "they admit more requests than a rate limit allows; use a store that they share, for "
            'example {"kvs": "redis"}',
            self._settings,
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

"""One process of the soak test: it uses a site and knows what the site acknowledged.

    python -m tests.soak.worker SETTINGS SECONDS NUMBER

Each thread has a session, a key of the cache and a counter that nobody else writes. So it knows
what each of them may hold: everything that was acknowledged, and perhaps what was not.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response

from pyramid_kvs.exceptions import KVSError, KVSUnavailable
from pyramid_kvs.kvs import KVS

THREADS = 4
#: A call ends after pool_timeout, socket_connect_timeout and socket_timeout (PostgreSQL: 0.5 and
#: 3 s); the rest is for a busy machine.
LONGEST = {"redis": 1.5, "memcache": 1.5, "postgresql": 3.5}
PATIENCE = 1.5


class Report:
    """What the process saw, written as JSON when it ends."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.counts: dict[str, int] = {}
        self.longest = 0.0
        self.memory: list[int] = []

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def error(self, what: str) -> None:
        if len(self.errors) < 20:
            self.errors.append(what)


def timed(driver: KVS, report: Report) -> None:
    """Time the calls of a driver."""
    for name in ("raw_get", "raw_set", "raw_incr", "raw_load", "raw_swap"):
        setattr(driver, name, _timed(getattr(driver, name), report, LONGEST[driver.kvs]))


def _timed(call: Callable[..., Any], report: Report, longest: float) -> Callable[..., Any]:
    def timed_call(*args: Any, **kwargs: Any) -> Any:
        started = time.monotonic()
        try:
            return call(*args, **kwargs)
        finally:
            seconds = time.monotonic() - started
            report.longest = max(report.longest, seconds)
            if seconds > longest + PATIENCE:
                report.error(f"a call took {seconds:.2f} s")

    return timed_call


def add_item(request: Request) -> Response:
    items = request.session.setdefault("items", [])
    items.append(int(request.GET["item"]))
    return Response(json.dumps(items))


def make_site(settings: dict[str, Any], report: Report) -> tuple[Any, KVS]:
    config = Configurator(
        settings={
            "pyramid.includes": "pyramid_kvs",
            "kvs.session": {**settings["store"], "key_name": "X-Token", "session_type": "header"},
            "kvs.cache": {**settings["store"], "on_error": "raise"},
            "kvs.ratelimit": {"limit": 10**9, "window": 3600, "by": "header:X-Token"},
        }
    )
    config.add_route("add", "/add")
    config.add_view(add_item, route_name="add")
    application = config.make_wsgi_app()
    driver = KVS(settings["store"]["kvs"], settings["store"]["kvs_kwargs"], "soak::", None)
    timed(driver, report)
    return application, driver


class Visitor:
    """One thread's session, cache key and counter."""

    def __init__(
        self, name: str, application: Any, driver: KVS, report: Report, keeps: bool
    ) -> None:
        self.name = name
        self.application = application
        self.driver = driver
        self.report = report
        #: Whether the store keeps data over a restart.
        self.keeps = keeps
        self.number = 0
        self.acknowledged: set[int] = set()
        self.stored = 0  # the latest number that was acknowledged
        #: Numbers whose set failed. A server that was stopped may run it after a later one.
        self.doubtful: set[int] = set()
        self.counted = 0  # the latest count
        self.attempts = 0

    def run(self, until: float) -> None:
        while time.monotonic() < until:
            self.number += 1
            for step in (self.add_item, self.use_key, self.count):
                try:
                    step()
                except KVSUnavailable:
                    self.report.count(f"{step.__name__}: unavailable")
                except KVSError as error:
                    self.report.error(f"{self.name}: {step.__name__}: {error!r}")
                else:
                    self.report.count(f"{step.__name__}: done")

    def add_item(self) -> None:
        request = Request.blank(f"/add?item={self.number}", headers={"X-Token": self.name})
        request.environ["REMOTE_ADDR"] = "127.0.0.1"
        response = request.get_response(self.application)
        if response.status_code == 503:
            raise KVSUnavailable("answered 503")
        if response.status_code != 200:
            self.report.error(f"{self.name}: {response.status} {dict(response.headers)}")
            return
        seen = response.json
        lost = self.acknowledged - set(seen)
        if len(seen) != len(set(seen)) or max(seen) > self.number:
            self.report.error(f"{self.name}: items {seen[-5:]} at {self.number}")
        if lost and self.keeps:
            self.report.error(f"{self.name}: lost {sorted(lost)[:5]} at {self.number}")
        self.acknowledged = set(seen)
        if len(seen) > 200:
            self.driver.delete("-")  # a call in between, so that connections are shared
            self._start_again()

    def _start_again(self) -> None:
        self.name = f"{self.name.partition('+')[0]}+{self.number}"
        self.acknowledged = set()

    def use_key(self) -> None:
        key = f"key-{self.name.partition('+')[0]}"
        found = self.driver.get(key)
        if found is None and self.stored and self.keeps:
            self.report.error(f"{key}: lost {self.stored}")
        if found is not None and not self._is_possible(key, *found):
            self.report.error(f"{key}: found {found}, expected {self.stored}")
        self.doubtful.add(self.number)
        self.driver.set(key, [key, self.number])
        self.doubtful.discard(self.number)
        self.stored = self.number

    def _is_possible(self, key: str, owner: str, number: int) -> bool:
        return owner == key and (number == self.stored or number in self.doubtful)

    def count(self) -> None:
        key = f"count-{self.name.partition('+')[0]}"
        self.attempts += 1
        found = self.driver.incr(key)
        if found > self.attempts or (found <= self.counted and self.keeps):
            self.report.error(f"{key}: {found} after {self.counted}, {self.attempts} attempts")
        self.counted = found


def memory() -> int:
    """Return the resident memory of this process, in KiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def main(settings: dict[str, Any], seconds: float, number: str) -> int:
    report = Report()
    application, driver = make_site(settings, report)
    until = time.monotonic() + seconds
    visitors = [
        Visitor(f"w{number}t{thread}", application, driver, report, settings["keeps"])
        for thread in range(THREADS)
    ]
    threads = [threading.Thread(target=visitor.run, args=(until,)) for visitor in visitors]
    for thread in threads:
        thread.start()
    for _ in range(4):
        time.sleep(max(0, (until - time.monotonic()) / 2))
        report.memory.append(memory())
    for thread in threads:
        thread.join()
    print(json.dumps(vars(report)))
    return 1 if report.errors else 0


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1]), float(sys.argv[2]), sys.argv[3]))

"""After 10,000 mixed requests, the metrics agree with the counters of the servers to the call."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from pyramid.request import Request

from pyramid_kvs.application import Application
from tests.observe.apps import Told, imported, started, with_view
from tests.observe.test_prometheus import samples
from tests.servers import MemcachedServer, PostgresServer, RedisServer

REQUESTS = 10_000


def mixed(request: Any) -> str:
    """Do one of several things with the cache and the session."""
    cache, numbers = request.cache, request.registry["numbers"]
    kind, key = numbers.randrange(8), f"key {numbers.randrange(40)}"
    if kind < 3:
        cache.get(key)
    elif kind == 3:
        cache.get_many([key, "another", "third"])
    elif kind == 4:
        cache.set(key, "value", 600)
    elif kind == 5:
        cache.set_many({key: 1, "another": 2}, 600)
    elif kind == 6:
        cache.delete_many([key, "third"])
    elif "session" in request.registry["uses"]:
        request.session["kind"] = numbers.randrange(10**9)
    return "done"


class Site:
    """An application that is observed by Prometheus, and by a listener."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.told = Told()
        settings = {"kvs.observe": ["prometheus"], **settings}
        self.app = started(settings, self.told, configure=with_view(mixed)).app
        uses = " ".join(settings)
        self.app.registry.update(numbers=random.Random(1), uses=uses)
        self.cookie = ""
        self.visit(100)  # connects, and sends the scripts

    def visit(self, count: int = REQUESTS) -> None:
        for _ in range(count):
            response = Request.blank("/", headers={"Cookie": self.cookie}).get_response(self.app)
            assert response.status_int == 200
            self.cookie = response.headers.get("Set-Cookie", self.cookie).partition(";")[0]

    def measured(self) -> Metrics:
        """Make the requests, and return by how much the metrics grew."""
        self.told.clear()
        before = samples()
        self.visit()
        return Metrics(before, samples(), self.told)


class Metrics:
    """What Prometheus has counted, which is what the listener was told."""

    def __init__(self, before: dict[str, float], after: dict[str, float], told: Told) -> None:
        self.hits = after["kvs_hits_total"] - before.get("kvs_hits_total", 0)
        self.misses = after["kvs_misses_total"] - before.get("kvs_misses_total", 0)
        self.told = told
        self._before, self._after = before, after
        assert len(told) >= REQUESTS / 2
        for setting, operation in {(one.setting, one.operation) for one in told}:
            counted = self.calls(operation, setting)
            assert counted == sum(
                (one.setting, one.operation) == (setting, operation) for one in told
            )

    def calls(self, operation: str, setting: str = "kvs.cache") -> float:
        labels = f'{{operation="{operation}",setting="{setting}"}}'
        name = f"kvs_operation_duration_seconds_count{labels}"
        return self._after.get(name, 0) - self._before.get(name, 0)

    def keys(self, *operations: str) -> int:
        return sum(one.keys for one in self.told if one.operation in operations)

    @property
    def round_trips(self) -> int:
        return sum(one.round_trips for one in self.told)


def test_of_redis(own_redis: Callable[..., RedisServer]) -> None:
    """The cache and the sessions have a server each: commands in scripts count there too."""
    of_cache, of_session = own_redis(), own_redis()
    places = [
        {"kvs": "redis", "kvs_kwargs": {"host": server.host, "port": server.port}}
        for server in (of_cache, of_session)
    ]
    site = Site(
        {
            "kvs.cache": places[0],
            "kvs.session": places[1],
            "kvs.ratelimit": [
                {"limit": 10**6, "window": 600},
                {"limit": 10**6, "window": 600, "by": "address", "kvs": "redis"}
                | {"kvs_kwargs": places[1]["kvs_kwargs"]},
            ],
        }
    )
    of_cache.reset_calls()
    of_session.reset_calls()
    found = site.measured()
    calls = of_cache.calls()
    assert calls["get"] == found.calls("get") > 2000
    assert calls["mget"] == found.calls("get_many") > 500
    assert calls["set"] == found.calls("set") + found.keys("set_many") > 2000
    assert calls["unlink"] == found.calls("delete_many") > 500
    stats = of_cache.command("INFO", "stats")
    assert (stats["keyspace_hits"], stats["keyspace_misses"]) == (found.hits, found.misses)
    scripts = of_session.calls()["evalsha"]
    assert scripts == sum(one.round_trips for one in found.told if one.setting != "kvs.cache")
    assert scripts == sum(one.operation in ("run_script", "swap") for one in found.told) > REQUESTS


def test_of_memcached(own_memcached: Callable[..., MemcachedServer]) -> None:
    server = own_memcached()
    store = {"kvs": "memcache", "kvs_kwargs": {"servers": [server.url]}}
    site = Site({"kvs.cache": store, "kvs.session": store})
    before = server.stats()
    found = site.measured()
    after = server.stats()
    grown = Counter({name: int(after[name]) - int(before[name]) for name in COUNTED})
    assert grown["get_hits"] + grown["touch_hits"] == found.hits > 2000
    assert grown["get_misses"] + grown["touch_misses"] == found.misses > 500
    sent = found.calls("set") + found.keys("set_many") + found.calls("swap", "kvs.session")
    assert grown["cmd_set"] == sent > 2000
    assert grown["delete_hits"] + grown["delete_misses"] == found.keys("delete_many") > 1000


COUNTED = (
    *("get_hits", "get_misses", "touch_hits", "touch_misses", "cmd_set"),
    *("delete_hits", "delete_misses"),
)


def test_of_postgresql(own_postgres: Callable[..., PostgresServer]) -> None:
    psycopg = imported("psycopg")
    server = own_postgres(shared_preload_libraries="pg_stat_statements")
    store = {"kvs": "postgresql", "kvs_kwargs": {"url": server.url}}
    site = Site({"kvs.cache": store, "kvs.session": store})
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute("CREATE EXTENSION pg_stat_statements")
        admin.execute("SELECT pg_stat_statements_reset()")
        found = site.measured()
        rows = admin.execute(
            "SELECT query, calls FROM pg_stat_statements WHERE query LIKE '%kvs%'"
            " AND query NOT LIKE '%pg_stat%'"
        ).fetchall()
    assert sum(calls for _, calls in rows) == found.round_trips > REQUESTS / 2
    assert {one.error for one in found.told} == {None}
    driver = Application.of(site.app.registry).stores[0].driver
    assert driver.connection_pools()[0].counts().in_use == 0

"""The events of a store that becomes unavailable, and of its return."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from pyramid.config import Configurator

from pyramid_kvs import events
from pyramid_kvs.events import StoreBack, StoreUnavailable
from pyramid_kvs.exceptions import KVSUnavailable
from tests.outages.apps import build
from tests.outages.stores import SLACK, Store, at_once, until
from tests.servers import RedisCluster, RedisSentinel, RedisServer, free_port

CLASSES = [StoreUnavailable, StoreBack]
FAULTS = ["hung", "dead"]


class Site:
    """An application whose cache and sessions use one server, and the events that it fires."""

    def __init__(self, store: Store, **kwargs: Any) -> None:
        self.events: list[Any] = []
        self.threads: list[int] = []
        self.config: Configurator
        self.server = store.server

        def add(config: Configurator) -> None:
            self.config = config
            for kind in CLASSES:
                config.add_subscriber(self._note, kind)

        options = store.options(**kwargs)
        self.app = build(add, cache=options, session={**options, "key_prefix": "s::"})

    def _note(self, event: Any) -> None:
        self.events.append(event)
        self.threads.append(threading.get_ident())

    def seen(self) -> list[type]:
        return [type(event) for event in self.events]

    def fail(self, fault: str) -> None:
        """Let the server hang, or end it."""
        if fault == "hung":
            self.server.pause()
        else:
            self.server.kill()

    def bring_back(self) -> None:
        if self.server.is_running():
            self.server.resume()
        else:
            self.server.start()
        assert until(lambda: StoreBack in self.ask(), 20) < 20

    def ask(self) -> list[type]:
        self.app.get("/")
        return self.seen()


@pytest.mark.parametrize("fault", FAULTS)
def test_one_event_for_each_outage(fault: str, frail: Store) -> None:
    """All settings that name the server see one outage of it."""
    site = Site(frail)
    site.app.get("/")
    site.app.get("/visited")
    assert site.seen() == []
    site.fail(fault)
    began = time.monotonic()
    for _ in range(3):
        site.app.get("/")
        site.app.get("/visited", status=503)
    assert site.seen() == [StoreUnavailable]
    event = site.events[0]
    assert str(frail.server.port) in event.server
    assert event.request
    assert event.request.path == "/"
    site.bring_back()
    site.app.get("/visited")
    assert site.seen() == [StoreUnavailable, StoreBack]
    assert site.events[1].server == event.server
    assert 0 < site.events[1].seconds <= time.monotonic() - began + SLACK + frail.deadline
    assert site.threads == [threading.get_ident()] * 2
    site.fail(fault)
    site.app.get("/")
    assert site.seen()[2:] == [StoreUnavailable]


def test_settings_with_different_breakers_see_one_outage(
    own_redis: Callable[..., RedisServer],
) -> None:
    server = own_redis()
    seen: list[Any] = []

    def add(config: Configurator) -> None:
        for kind in CLASSES:
            config.add_subscriber(seen.append, kind)

    options = [
        {"kvs": "redis", "kvs_kwargs": {"port": server.port, "breaker": seconds}}
        for seconds in (0, 1)
    ]
    app = build(add, cache=options[0], session=options[1])
    server.kill()
    app.get("/")
    app.get("/visited", status=503)
    server.start()
    app.get("/")
    app.get("/visited")
    assert [type(event) for event in seen] == [StoreUnavailable, StoreBack]


@pytest.mark.parametrize(("name", "value"), [("maxmemory", "1"), ("min-replicas-to-write", "1")])
def test_a_server_that_only_reads_is_one_outage(
    name: str, value: str, own_redis: Callable[..., RedisServer]
) -> None:
    """A page reads with success, and then fails to write. The store is not back in between."""
    server = own_redis()
    site = Site(Store("redis", server))
    site.app.get("/visited")
    server.command("CONFIG", "SET", name, value)
    for _ in range(4):
        site.app.get("/visited", status=503)
        site.app.get("/")
    assert site.seen() == [StoreUnavailable]


def test_threads_that_notice_at_once_fire_one_event(frail: Store) -> None:
    site = Site(frail)
    frail.server.pause()
    at_once(8, lambda _: site.app.get("/"))
    assert site.seen() == [StoreUnavailable]


def test_an_outage_at_the_start(own_redis: Callable[..., RedisServer]) -> None:
    """It is found by the check of all stores, outside of any request."""
    server = own_redis()
    server.kill()
    seen: list[Any] = []
    options = {"kvs": "redis", "kvs_kwargs": {"port": server.port, "password": "s3cret"}}
    build(lambda config: config.add_subscriber(seen.append, StoreUnavailable), cache=options)
    assert [(event.request, event.server) for event in seen] == [
        (None, f"redis at localhost:{server.port}")
    ]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_subscriber_may_use_the_store(fault: str, frail: Store) -> None:
    """Its calls fail as any others do, also if there is only one connection."""
    sizes: dict[str, dict[str, Any]] = {
        "postgresql": {"pool_size": 1, "max_overflow": 0},
        "redis": {"max_connections": 1},
        "memcache": {"max_connections": 1},
    }
    site = Site(frail, **sizes[frail.kvs], pool_timeout=0.1)
    found: list[Any] = []

    def use(event: Any) -> None:
        cache = site.config.registry["pyramid_kvs"].features["kvs.cache"]
        try:
            found.append(cache.client.get("key"))
        except KVSUnavailable:
            found.append("unavailable")

    for kind in CLASSES:
        site.config.add_subscriber(use, kind)
    site.config.commit()
    site.app.get("/")
    site.fail(fault)
    site.app.get("/")
    assert found == ["unavailable"]
    site.bring_back()
    assert found == ["unavailable", None]
    assert site.seen() == [StoreUnavailable, StoreBack]
    assert site.app.get("/").text == "0 1 2"


def cluster_with_a_dead_seed(request: pytest.FixtureRequest) -> str:
    cluster: RedisCluster = request.getfixturevalue("redis_cluster")
    return cluster.url.replace("://", f"://127.0.0.1:{free_port()},")


def service_with_a_dead_sentinel(request: pytest.FixtureRequest) -> str:
    service: RedisSentinel = request.getfixturevalue("own_redis_sentinel")()
    return service.url.replace("://", f"://127.0.0.1:{free_port()},")


@pytest.mark.parametrize("url_of", [cluster_with_a_dead_seed, service_with_a_dead_sentinel])
def test_a_subscriber_may_use_a_store_that_looks_for_its_servers(
    url_of: Callable[[pytest.FixtureRequest], str], request: pytest.FixtureRequest
) -> None:
    """It is told when the lock of those who ask for the servers is free."""
    config: list[Configurator] = []
    found: list[Any] = []

    def use(event: StoreUnavailable) -> None:
        cache = config[0].registry["pyramid_kvs"].features["kvs.cache"]
        found.append(cache.client.get("key", "nothing"))

    def add(made: Configurator) -> None:
        config.append(made)
        made.add_subscriber(use, StoreUnavailable)

    build(add, cache={"kvs": "redis", "kvs_kwargs": {"url": url_of(request)}})
    assert found == ["nothing"]


@pytest.mark.parametrize(("fault", "error"), [("hung", SystemExit), ("dead", ValueError)])
def test_a_subscriber_that_raises_breaks_nothing(
    fault: str, error: type[BaseException], frail: Store
) -> None:
    """Also one that ends the call in another way than by an error: no connection is lost."""
    site = Site(frail, **({"pool_size": 1, "max_overflow": 0} if frail.kvs == "postgresql" else {}))

    def fail(event: Any) -> None:
        raise error("a bug of the application")

    for kind in CLASSES:
        site.config.add_subscriber(fail, kind)
    site.config.commit()
    site.app.get("/")
    site.fail(fault)
    for _ in range(2):
        if error is ValueError:
            assert site.app.get("/").text == "0 1 2"
        else:
            outcome(site)
    if frail.server.is_running():
        frail.server.resume()
    else:
        frail.server.start()
    assert until(lambda: outcome(site) and len(site.events) > 1, 20) < 20
    assert site.app.get("/").text == "0 1 2"
    assert site.app.get("/visited").text == "1"
    assert site.seen() == [StoreUnavailable, StoreBack]


def outcome(site: Site) -> Any:
    """Ask for the page, which a subscriber may end by SystemExit."""
    try:
        return site.app.get("/")
    except SystemExit as error:
        return error


def test_without_a_subscriber_nothing_is_created(
    own_redis: Callable[..., RedisServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = own_redis()
    app = build(cache={"kvs": "redis", "kvs_kwargs": {"port": server.port}})
    created: list[Any] = []
    for kind in CLASSES:
        monkeypatch.setattr(events, kind.__name__, lambda *facts: created.append(facts))
    server.kill()
    app.get("/")
    server.start()
    app.get("/")
    assert created == []

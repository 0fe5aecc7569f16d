"""``request.cache`` through HTTP, on real stores, in good days and bad."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from pyramid import testing as pyramid_testing
from pyramid.config import Configurator
from pyramid.testing import DummyRequest
from webtest import TestApp

import pyramid_kvs
from pyramid_kvs.application import Application
from pyramid_kvs.cache import ApplicationCache
from pyramid_kvs.exceptions import KVSNotSupported, KVSUnavailable
from pyramid_kvs.kvs import KVS
from pyramid_kvs.testing import MockCache
from tests.servers import MemcachedServer, PostgresServer, RedisServer

Options = dict[str, Any]


@pytest.fixture(params=["memory", "redis", "memcache", "postgresql"])
def store(request: pytest.FixtureRequest) -> Options:
    """The settings of each store in turn, on a real server."""
    if request.param == "redis":
        redis: RedisServer = request.getfixturevalue("redis_server")
        return {"kvs": "redis", "kvs_kwargs": {"host": redis.host, "port": redis.port}}
    if request.param == "memcache":
        memcached: MemcachedServer = request.getfixturevalue("memcached_server")
        servers = [f"{memcached.host}:{memcached.port}"]
        return {"kvs": "memcache", "kvs_kwargs": {"servers": servers}}
    if request.param == "postgresql":
        postgres: PostgresServer = request.getfixturevalue("postgres_server")
        return {"kvs": "postgresql", "kvs_kwargs": {"url": postgres.url}}
    return {"kvs": "memory"}


def build(view: Callable[[Any], Any], options: Options) -> TestApp:
    """Build an application of one view at ``/``, with a cache."""
    config = Configurator(settings={"kvs.cache": options})
    config.include("pyramid_kvs")
    config.add_route("home", "/")
    config.add_view(view, route_name="home", renderer="json")
    app = config.make_wsgi_app()
    for store in Application.of(config.registry).stores:
        store.driver.initialize_schema()
    return TestApp(app)


def cache_of(options: Options, on_error: str = "miss") -> ApplicationCache:
    kvs = KVS(options["kvs"], options.get("kvs_kwargs"), "cache::")
    kvs.initialize_schema()
    return ApplicationCache(kvs, on_error)


def test_as_a_mapping(store: Options) -> None:
    def view(request: Any) -> Any:
        cache = request.cache
        assert cache["key"] is None
        assert "key" not in cache
        with pytest.raises(KeyError):
            del cache["key"]
        cache["key"] = {"a": 1}
        assert "key" in cache
        assert cache["key"] == {"a": 1}
        del cache["key"]
        cache["null"] = None
        assert "null" in cache
        assert cache.get("null", 5) is None
        assert cache.get(None, 7) == 7
        return cache.get("key", "default")

    assert build(view, store).get("/").json == "default"


def test_everything_else(store: Options) -> None:
    def view(request: Any) -> Any:
        cache = request.cache
        cache.set("key", 1, ttl=50)
        assert 40 < cache.ttl("key") <= 50
        assert cache.expire("key", 100)
        assert cache.pop("key") == 1
        assert cache.pop("key", "gone") == "gone"
        cache["null"] = None
        assert cache.pop("null", "gone") is None
        assert cache.pop("null", "gone") == "gone"
        assert cache.add("key", 2)
        assert not cache.add("key", 3)
        assert cache.delete("key") == 2
        cache.set_many({"a": 1, "b": 2})
        assert cache.get_many(["a", "b", "c"]) == {"a": 1, "b": 2}
        cache.delete_many(["a"])
        assert cache.incr("n", 5) == 5
        assert cache.decr("n") == 4
        assert isinstance(cache.client, KVS)
        return cache.get_or_create("made", lambda: [1, 2], ttl=60)

    app = build(view, store)
    assert app.get("/").json == [1, 2]


def test_listing_and_flushing(store: Options) -> None:
    cache = cache_of(store)
    cache.set_many({"one": 1, "two": 2})
    if store["kvs"] == "memcache":
        with pytest.raises(KVSNotSupported):
            cache.list_keys()
        with pytest.raises(KVSNotSupported):
            cache.flush()
    else:
        assert sorted(cache.list_keys()) == ["one", "two"]
        assert cache.list_keys("o*") == ["one"]
        cache.flush()
        assert cache.list_keys() == []


def test_requests_share_the_cache(store: Options) -> None:
    app = build(lambda request: request.cache.incr("visits"), store)
    assert [app.get("/").json for _ in range(3)] == [1, 2, 3]


def test_undecodable_data_is_a_miss(store: Options, caplog: pytest.LogCaptureFixture) -> None:
    cache = cache_of(store)
    cache.client.raw_set("bad", "{secret value", 60)
    cache["good"] = 1
    assert cache["bad"] is None
    assert caplog.messages == [
        "cache key 'bad': stored data is not JSON: JSONDecodeError; it counts as missing"
    ]
    assert "bad" not in cache
    assert cache.get_many(["bad", "good"]) == {"good": 1}
    assert cache.get_or_create("bad", lambda: "made") == "made"
    assert cache["bad"] == "made"
    assert "secret" not in caplog.text


@pytest.mark.parametrize("remove", [ApplicationCache.pop, ApplicationCache.delete])
def test_removing_undecodable_data_is_logged(
    remove: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    cache = cache_of({"kvs": "memory"})
    cache.client.raw_set("bad", "{secret value", 60)
    assert remove(cache, "bad") is None
    assert [message.split(":")[0] for message in caplog.messages] == ["cache key 'bad'"]
    assert cache.client.raw_get("bad") is None


# -- get_or_create ---------------------------------------------------------------------------


def test_a_creator_runs_once_at_a_time() -> None:
    cache = cache_of({"kvs": "memory"})
    calls, results = [], []
    asked = threading.Barrier(8)

    def create() -> list[int]:
        calls.append(1)
        time.sleep(0.05)
        return [1]

    def work() -> None:
        asked.wait(10)
        results.append(cache.get_or_create("key", create))

    run(8, work)
    assert len(calls) == 1
    assert results == [[1]] * 8
    assert len({id(result) for result in results}) == 8
    assert cache._creating == {}


def test_keys_are_created_side_by_side() -> None:
    cache = cache_of({"kvs": "memory"})
    both = threading.Barrier(2)
    keys = iter(["one", "two"])

    def create() -> str:
        both.wait(10)
        return "made"

    run(2, lambda: cache.get_or_create(next(keys), create))
    assert cache.get_many(["one", "two"]) == {"one": "made", "two": "made"}


def test_a_creator_that_fails_lets_the_next_one_try() -> None:
    cache = cache_of({"kvs": "memory"})
    attempts = []

    def create() -> str:
        attempts.append(1)
        time.sleep(0.02)
        if len(attempts) == 1:
            raise ZeroDivisionError
        return "made"

    results: list[str] = []

    def work() -> None:
        try:
            results.append(cache.get_or_create("key", create))
        except ZeroDivisionError:
            results.append("failed")

    run(3, work)
    assert sorted(results) == ["failed", "made", "made"]
    assert len(attempts) == 2


def test_a_child_process_waits_for_no_thread_of_its_parent() -> None:
    cache = cache_of({"kvs": "memory"})
    started, forked = threading.Event(), threading.Event()

    def create() -> str:
        started.set()
        forked.wait(60)
        return "parent"

    thread = threading.Thread(target=cache.get_or_create, args=("key", create))
    thread.start()
    started.wait(60)
    child = os.fork()
    if not child:
        signal.alarm(20)  # ends the child if it waits
        os._exit(cache.get_or_create("key", lambda: "child") != "child")
    forked.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0
    assert cache["key"] == "parent"


def test_none_is_created_once() -> None:
    cache = cache_of({"kvs": "memory"})
    calls = []
    for _ in range(2):
        assert cache.get_or_create("key", lambda: calls.append(1)) is None
    assert len(calls) == 1


def run(count: int, work: Callable[[], Any]) -> None:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)


# -- the store is away -----------------------------------------------------------------------


def use_everything(cache: ApplicationCache) -> None:
    assert cache.get("key", "miss") == "miss"
    assert cache["key"] is None
    assert "key" not in cache
    cache["key"] = 1
    cache.set("key", 1, 5)
    del cache["key"]
    assert cache.delete("key") is None
    assert cache.pop("key", "gone") == "gone"
    assert cache.get_many(["a", "b"]) == {}
    cache.set_many({"a": 1})
    cache.delete_many(["a"])
    assert cache.ttl("key") < 0
    assert cache.expire("key", 5) is False
    assert cache.list_keys() == []
    cache.flush()
    assert cache.get_or_create("key", lambda: "computed") == "computed"
    for needs_an_answer in (cache.incr, cache.decr, lambda key: cache.add(key, 1)):
        with pytest.raises(KVSUnavailable):
            needs_an_answer("key")


def test_a_dead_store_is_a_miss(
    own_redis: Callable[..., RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    server = own_redis()
    cache = cache_of({"kvs": "redis", "kvs_kwargs": {"port": server.port, "host": server.host}})
    cache["key"] = "value"
    server.kill()
    use_everything(cache)
    assert caplog.text.count("requests go on without it") == 1
    server.start()
    assert until(lambda: cache.client.ping())
    cache["key"] = "value"
    assert cache["key"] == "value"


def test_a_hung_store_is_a_miss_within_a_second(own_redis: Callable[..., RedisServer]) -> None:
    server = own_redis()
    cache = cache_of({"kvs": "redis", "kvs_kwargs": {"port": server.port, "host": server.host}})
    cache["key"] = "value"
    server.pause()
    started = time.monotonic()
    assert cache["key"] is None
    assert time.monotonic() - started < 1.5
    server.resume()
    assert until(lambda: cache["key"] == "value")


def test_on_error_raise_answers_503(
    own_redis: Callable[..., RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    server = own_redis()
    kwargs = {"port": server.port, "host": server.host}
    options = {"kvs": "redis", "kvs_kwargs": kwargs, "on_error": "raise"}
    app = build(lambda request: request.cache["key"], options)
    assert app.get("/").json is None
    server.kill()
    response = app.get("/", status=503)
    assert int(response.headers["Retry-After"]) > 0
    assert str(server.port) not in response.text
    app.get("/", status=503)
    (message,) = caplog.messages
    assert message.startswith("a store is unavailable, requests that need it get a 503: redis at")
    assert str(server.port) in message


def test_an_application_starts_while_its_store_is_down(
    own_redis: Callable[..., RedisServer],
) -> None:
    server = own_redis()
    server.kill()
    kwargs = {"port": server.port, "host": server.host}
    app = build(lambda request: request.cache["key"], {"kvs": "redis", "kvs_kwargs": kwargs})
    assert app.get("/").json is None
    server.start()
    app.get("/")


@pytest.mark.parametrize("context", [KVSUnavailable, Exception])
def test_an_applications_own_view_for_the_failure(
    context: type[Exception], own_redis: Callable[..., RedisServer]
) -> None:
    server = own_redis()
    server.kill()
    kwargs = {"port": server.port, "host": server.host}
    config = Configurator(
        settings={"kvs.cache": {"kvs": "redis", "kvs_kwargs": kwargs, "on_error": "raise"}}
    )
    config.include("pyramid_kvs")
    config.include(lambda config: config.add_exception_view(_sorry, context=context))
    config.add_route("home", "/")
    config.add_view(lambda request: request.cache["key"], route_name="home", renderer="json")
    response = TestApp(config.make_wsgi_app()).get("/", status="*")
    if context is KVSUnavailable:
        assert (response.status_int, response.text) == (200, "sorry")
    else:
        assert response.status_int == 503


def _sorry(error: Exception, request: Any) -> Any:
    request.response.text = "sorry"
    return request.response


def until(condition: Callable[[], Any], seconds: float = 5.0) -> bool:
    """Ask again and again until it is so."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


# -- beside the router -----------------------------------------------------------------------


def test_subscribe_cache_serves_other_requests() -> None:
    config = Configurator(settings={"kvs.cache": {"kvs": "memory"}})
    config.include("pyramid_kvs")
    config.commit()
    request = DummyRequest()
    request.registry = config.registry
    event = type("Event", (), {"request": request})
    pyramid_kvs.subscribe_cache(event)
    request.cache["key"] = 1
    assert request.cache["key"] == 1


def test_subscribe_cache_adds_nothing_without_the_setting() -> None:
    config = Configurator(settings={})
    config.include("pyramid_kvs")
    config.commit()
    request = DummyRequest()
    request.registry = config.registry
    pyramid_kvs.subscribe_cache(type("Event", (), {"request": request}))
    assert not hasattr(request, "cache")


def test_subscribe_cache_needs_no_include() -> None:
    with pyramid_testing.testConfig(settings={"kvs.cache": '{"kvs": "memory"}'}):
        requests = [DummyRequest(), DummyRequest()]
        for request in requests:
            pyramid_kvs.subscribe_cache(type("Event", (), {"request": request}))
        requests[0].cache["key"] = 1
        assert requests[1].cache["key"] == 1


def test_no_setting_no_cache() -> None:
    config = Configurator(settings={})
    config.include("pyramid_kvs")
    config.add_route("home", "/")
    config.add_view(lambda request: hasattr(request, "cache"), route_name="home", renderer="json")
    assert TestApp(config.make_wsgi_app()).get("/").json is False


# -- the mock --------------------------------------------------------------------------------


@pytest.fixture
def mocked(monkeypatch: pytest.MonkeyPatch) -> Configurator:
    monkeypatch.setattr(MockCache, "cached_data", {b"cache::filled": '{"by": "hand"}'})
    config = Configurator(
        settings={"pyramid.includes": "pyramid_kvs.testing", "kvs.cache": '{"kvs": "mock"}'}
    )
    config.add_route("home", "/")
    return config


def test_a_test_may_read_and_fill_the_mock(mocked: Configurator) -> None:
    def view(request: Any) -> Any:
        request.cache.set("written", [1], 42)
        return request.cache["filled"]

    mocked.add_view(view, route_name="home", renderer="json")
    assert TestApp(mocked.make_wsgi_app()).get("/").json == {"by": "hand"}
    assert MockCache.cached_data[b"cache::written"] == "[1]"
    assert MockCache.last_ttl == 42


def test_a_test_may_replace_the_mocks_data(mocked: Configurator) -> None:
    mocked.add_view(lambda request: request.cache["key"], route_name="home", renderer="json")
    app = TestApp(mocked.make_wsgi_app())
    MockCache.cached_data = {b"cache::key": "7"}
    assert app.get("/").json == 7


def test_what_a_test_puts_into_the_mock_never_expires(mocked: Configurator) -> None:
    kvs = MockCache("mock", {}, "cache::")
    kvs.set("key", 1, 0.05)
    MockCache.cached_data[b"cache::key"] = "2"
    time.sleep(0.1)
    assert kvs.get("key") == 2
    assert kvs.ttl_of("key") < 0


def test_round_trips(redis_server: RedisServer) -> None:
    kwargs = {"host": redis_server.host, "port": redis_server.port}
    cache = cache_of({"kvs": "redis", "kvs_kwargs": kwargs})
    cache["key"] = 1
    redis_server.reset_calls()
    cache["key"] = 2
    assert cache["key"] == 2
    cache.get_many([f"key{n}" for n in range(100)])
    logging.getLogger(__name__).debug("%s", redis_server.calls())
    assert sum(redis_server.calls().values()) == 3

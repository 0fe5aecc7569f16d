"""``request.cache`` while its store is unavailable."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from pyramid.config import Configurator
from webtest import TestApp

from pyramid_kvs.cache import ApplicationCache
from pyramid_kvs.exceptions import KVSUnavailable
from pyramid_kvs.testing import MockCache
from tests.cache.apps import build, cache_of, run
from tests.servers import RedisServer


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


class Counting(MockCache):
    """A store that cannot be read, and that counts the attempts to write."""

    writes = 0

    def raw_get(self, key: str, default: Any = None) -> Any:
        raise KVSUnavailable("no answer")

    def raw_set(self, key: str, value: Any, ttl: float | None) -> None:
        self.writes += 1


def test_nothing_is_written_to_a_store_that_could_not_be_read() -> None:
    """A write to a hung store would cost another timeout."""
    driver = Counting("mock")
    cache = ApplicationCache(driver)
    assert cache.get_or_create("key", lambda: "computed") == "computed"
    assert driver.writes == 0
    cache.set("key", "value")
    assert driver.writes == 1


@pytest.mark.parametrize("stale", [0, 60])
def test_a_process_computes_once_while_the_store_is_unavailable(
    own_redis: Callable[..., RedisServer], stale: int
) -> None:
    server = own_redis()
    cache = cache_of({"kvs": "redis", "kvs_kwargs": {"port": server.port, "host": server.host}})
    server.kill()
    asked, looked = threading.Barrier(8), threading.Semaphore(0)
    calls = []
    look = cache.client.raw_claim if stale else cache.client.raw_get

    def counted(*args: Any) -> Any:
        looked.release()
        return look(*args)

    setattr(cache.client, look.__name__, counted)

    def create() -> str:
        calls.append(1)
        for _ in range(8):
            assert looked.acquire(timeout=30)
        time.sleep(0.2)
        return "computed"

    def work() -> None:
        asked.wait(30)
        assert cache.get_or_create("key", create, 60, stale=stale) == "computed"

    run(8, work)
    assert len(calls) == 1
    server.start()
    assert until(lambda: cache.client.ping())
    assert "key" not in cache


class Failing(MockCache):
    """A store that fails at the hooks whose names a test gives."""

    failing: tuple[str, ...] = ()

    def raw_claim(self, *args: Any) -> Any:
        return self._fail("raw_claim", args)

    def raw_release(self, *args: Any) -> Any:
        return self._fail("raw_release", args)

    def raw_set(self, *args: Any) -> Any:
        return self._fail("raw_set", args)

    def _fail(self, name: str, args: Any) -> Any:
        if name in self.failing:
            raise KVSUnavailable(name)
        return getattr(super(), name)(*args)


@pytest.mark.parametrize("failing", ["raw_claim", "raw_set", "raw_release"])
@pytest.mark.parametrize("stale", [0, 60])
def test_a_store_that_fails_during_the_computation_costs_no_value(failing: str, stale: int) -> None:
    driver = Failing("mock", None, f"{failing}{stale}::")
    driver.failing = (failing,)
    cache = ApplicationCache(driver)
    assert cache.get_or_create("key", lambda: "computed", 60, stale=stale) == "computed"
    assert (cache["key"] is None) is (failing != "raw_release")
    with pytest.raises(ZeroDivisionError):
        cache.get_or_create("other", lambda: 1 // 0, 60, stale=stale)
    if failing != "raw_release":
        with pytest.raises(KVSUnavailable):
            ApplicationCache(driver, "raise").get_or_create("key", lambda: 1, stale=stale, wait=0)


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
def test_an_application_may_answer_with_its_own_view(
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
    """Return whether a condition becomes true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False

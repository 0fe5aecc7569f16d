"""``request.cache`` through HTTP, on real stores."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from pyramid.config import Configurator
from webtest import TestApp

from pyramid_kvs.cache import ApplicationCache
from pyramid_kvs.exceptions import KVSNotSupported
from pyramid_kvs.kvs import KVS
from tests.cache.apps import Options, build, cache_of
from tests.servers import RedisServer


def test_the_cache_is_a_mapping(store: Options) -> None:
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


def test_the_other_operations(store: Options) -> None:
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


def test_a_request_has_no_cache_without_the_setting() -> None:
    config = Configurator(settings={})
    config.include("pyramid_kvs")
    config.add_route("home", "/")
    config.add_view(lambda request: hasattr(request, "cache"), route_name="home", renderer="json")
    assert TestApp(config.make_wsgi_app()).get("/").json is False


def test_each_operation_takes_one_round_trip(redis_server: RedisServer) -> None:
    kwargs = {"host": redis_server.host, "port": redis_server.port}
    cache = cache_of({"kvs": "redis", "kvs_kwargs": kwargs})
    cache["key"] = 1
    redis_server.reset_calls()
    cache["key"] = 2
    assert cache["key"] == 2
    cache.get_many([f"key{n}" for n in range(100)])
    logging.getLogger(__name__).debug("%s", redis_server.calls())
    assert sum(redis_server.calls().values()) == 3

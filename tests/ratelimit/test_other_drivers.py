"""Limits on drivers that do not run scripts: the mock, and a driver written for 1.0."""

from __future__ import annotations

from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response
from webtest import TestApp

from pyramid_kvs.drivers.redis import RedisKVS
from pyramid_kvs.kvs import KVS, Stored, Swap
from pyramid_kvs.testing import MockCache
from tests.ratelimit.stores import STRATEGY_NAMES, hello, statuses, visit
from tests.servers import RedisServer


class DictClient(dict[bytes, Any]):
    """A client as the base class of drivers expects it."""

    def set(self, key: bytes, value: Any, ttl: float | None) -> None:
        self[key] = value

    def delete(self, key: bytes) -> None:
        self.pop(key, None)


class OldKVS(KVS):
    """All that a driver for 1.0 needed."""

    def _create_client(self, **kwargs: Any) -> DictClient:
        return DictClient()


def app_on(name: str, **limit: Any) -> TestApp:
    settings = {
        "kvs.session": {"kvs": name},
        "kvs.ratelimit": [{"limit": 3, "window": 600, **limit}, {"limit": 99, "name": "b"}],
    }
    config = Configurator(settings=settings)
    config.include("pyramid_kvs.testing")
    config.add_kvs_driver("old", OldKVS)
    for path, view in (("/", hello), ("/visit", visit)):
        config.add_route(path, path)
        config.add_view(view, route_name=path)
    return TestApp(config.make_wsgi_app(), extra_environ={"REMOTE_ADDR": "192.0.2.1"})


@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
@pytest.mark.parametrize("name", ["mock", "old"])
def test_limits_count_on_any_driver(
    monkeypatch: pytest.MonkeyPatch, name: str, strategy: str
) -> None:
    monkeypatch.setattr(MockCache, "cached_data", {})
    app = app_on(name, strategy=strategy)
    assert statuses(app, 1, "/visit") == [200]
    assert statuses(app, 4, "/visit") == [200, 200, 200, 429]
    app.reset()
    assert statuses(app, 3) == [200, 200, 429]


def test_a_counter_that_others_change_all_the_time_refuses() -> None:
    """Each change has admitted another request, so that this one could be too many."""

    class Busy(OldKVS):
        update_attempts = 5

        def raw_swap(self, *args: Any, **options: Any) -> Swap:
            return Swap(False, Stored("f:1:99999999999999"))

    config = Configurator(settings={"kvs.ratelimit": {"kvs": "busy", "limit": 1000}})
    config.include("pyramid_kvs")
    config.add_kvs_driver("busy", Busy)
    config.add_route("hello", "/")
    config.add_view(hello, route_name="hello")
    response = TestApp(config.make_wsgi_app()).get("/", status=429)
    assert response.headers["Retry-After"] == "1"


class TenantRedis(RedisKVS):
    """A driver that makes full keys in another way."""

    def _get_key(self, key: str) -> bytes:
        return super()._get_key(f"tenant:{key}")


def count_visits(request: Request) -> Response:
    request.session["visits"] = request.session.get("visits", 0) + 1
    return Response(str(request.session["visits"]))


def test_a_limit_finds_the_session_at_the_keys_of_a_driver(redis_server: RedisServer) -> None:
    store = {"kvs": "tenant", "kvs_kwargs": {"url": redis_server.url}, "cookie_secure": False}
    config = Configurator(
        settings={"kvs.session": store, "kvs.ratelimit": {"limit": 9, "window": 600}}
    )
    config.include("pyramid_kvs")
    config.add_kvs_driver("tenant", TenantRedis)
    config.add_route("visits", "/")
    config.add_view(count_visits, route_name="visits")
    app = TestApp(config.make_wsgi_app())
    assert [app.get("/").text for _ in range(3)] == ["1", "2", "3"]
    keys = redis_server.command("KEYS", "*")
    assert keys, "they are those of the session and of the counters"
    assert all(b"tenant:" in key for key in keys)

"""``subscribe_cache``: the cache on a request that did not pass through the router."""

from __future__ import annotations

from pyramid import testing as pyramid_testing
from pyramid.config import Configurator
from pyramid.testing import DummyRequest

import pyramid_kvs


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

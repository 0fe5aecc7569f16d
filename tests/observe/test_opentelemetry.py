"""Spans and the metric, by the in-memory exporters of OpenTelemetry's SDK."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import metrics as api_metrics
from opentelemetry import trace as api_trace
from opentelemetry.sdk import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import (
    InMemorySpanExporter,
)
from pyramid.config import Configurator
from webtest import TestApp

from pyramid_kvs.kvs import Operation
from pyramid_kvs.observe.opentelemetry import BUCKETS, METRIC, describe
from tests.observe.apps import Options, cache, configured, imported, started, with_view
from tests.servers import RedisServer

OBSERVED: dict[str, Any] = {"kvs.observe": ["opentelemetry"]}
_exporter = InMemorySpanExporter()
_reader = InMemoryMetricReader()


@functools.cache
def set_providers() -> None:
    """Set the providers of the process, which can be done once."""
    provider = trace.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(_exporter))
    api_trace.set_tracer_provider(provider)
    api_metrics.set_meter_provider(MeterProvider([_reader]))


@pytest.fixture(autouse=True)
def exporter() -> Iterator[InMemorySpanExporter]:
    set_providers()
    _exporter.clear()
    yield _exporter
    _exporter.clear()


def of_package(exporter: InMemorySpanExporter) -> list[Any]:
    spans = exporter.get_finished_spans()
    return [span for span in spans if span.instrumentation_scope.name == "pyramid_kvs"]


def test_20_calls_are_20_client_spans_by_the_stable_conventions(
    redis_server: RedisServer, exporter: InMemorySpanExporter
) -> None:
    url = f"redis://:@{redis_server.host}:{redis_server.port}/0"
    settings = {**OBSERVED, "kvs.cache": {"kvs": "redis", "kvs_kwargs": {"url": url}}}
    found = cache(configured(settings))
    exporter.clear()
    for number in range(10):
        found.set(f"key {number}", number)
        found.get(f"key {number}")
    spans = of_package(exporter)
    assert len(spans) == 20
    place = f"{redis_server.host}:{redis_server.port}"
    assert [span.name for span in spans[:2]] == [f"set {place}", f"get {place}"]
    assert {span.kind.name for span in spans} == {"CLIENT"}
    assert {span.status.status_code.name for span in spans} == {"UNSET"}
    assert dict(spans[1].attributes) == {
        "db.system.name": "redis",
        "db.operation.name": "get",
        "server.address": redis_server.host,
        "server.port": redis_server.port,
    }
    assert all(0 < span.end_time - span.start_time < 60e9 for span in spans)


def test_a_failed_call_has_its_error(exporter: InMemorySpanExporter) -> None:
    url = "redis://:hunter2@127.0.0.1:1/0"  # nobody listens there
    settings = {**OBSERVED, "kvs.cache": {"kvs": "redis", "kvs_kwargs": {"url": url}}}
    found = cache(configured(settings))
    exporter.clear()
    assert found.get("a") is None
    (span,) = of_package(exporter)
    assert span.status.status_code.name == "ERROR"
    assert span.status.description is None
    assert span.attributes["error.type"] == "KVSUnavailable"
    assert "hunter2" not in span.to_json()


@pytest.mark.parametrize(
    ("driver", "server", "name", "expected"),
    [
        ("memory", "", "get", {"db.system.name": "memory"}),
        (
            *("memcache", "10.0.0.1:11211", "get 10.0.0.1:11211"),
            {
                "db.system.name": "memcached",
                "server.address": "10.0.0.1",
                "server.port": 11211,
            },
        ),
        (
            *("redis", "[::1]:6379", "get [::1]:6379"),
            {"db.system.name": "redis", "server.address": "::1", "server.port": 6379},
        ),
        (
            *("redis", "/run/redis.sock", "get /run/redis.sock"),
            {"db.system.name": "redis", "server.address": "/run/redis.sock"},
        ),
        ("postgresql", "a:5432,b:5432", "get", {"db.system.name": "postgresql"}),
    ],
)
def test_names_and_attributes_of_servers(
    driver: str, server: str, name: str, expected: dict[str, Any]
) -> None:
    operation = Operation("get", "kvs.cache", driver, server, 1, 1, 0, 9, 0.001, None, 1, 0)
    assert describe(operation) == (name, {"db.operation.name": "get", **expected})


def test_each_store_names_its_server(store: Options, exporter: InMemorySpanExporter) -> None:
    found = cache(configured({**OBSERVED, "kvs.cache": store}))
    exporter.clear()
    found.get("a")
    (span,) = of_package(exporter)
    if store["kvs"] == "memory" or "," in store["kvs_kwargs"].get("url", ""):  # of a cluster
        assert "server.address" not in span.attributes
    else:
        assert span.attributes["server.address"] == "127.0.0.1"
        assert str(span.attributes["server.port"]) in str(store["kvs_kwargs"])


def get_a(request: Any) -> str:
    return str(request.cache.get("a"))


def test_the_parent_is_the_span_that_is_current(exporter: InMemorySpanExporter) -> None:
    def tween(handler: Any, registry: Any) -> Any:
        def traced(request: Any) -> Any:
            with api_trace.get_tracer("tests").start_as_current_span("request"):
                return handler(request)

        return traced

    TWEENS["traced"] = tween

    def configure(config: Configurator) -> None:
        with_view(get_a)(config)
        config.add_tween("tests.observe.test_opentelemetry.traced")

    app = started({**OBSERVED, "kvs.cache": {"kvs": "memory"}}, configure=configure)
    exporter.clear()
    app.get("/")
    call, request = exporter.get_finished_spans()
    assert call.parent.span_id == request.context.span_id
    assert call.context.trace_id == request.context.trace_id


TWEENS: dict[str, Any] = {}


def traced(handler: Any, registry: Any) -> Any:
    """Be the tween that a test has chosen."""
    return TWEENS["traced"](handler, registry)


def test_the_parent_is_the_request_of_the_instrumentation_of_pyramid(
    exporter: InMemorySpanExporter,
) -> None:
    instrumentation = imported("opentelemetry.instrumentation.pyramid")
    config = Configurator(
        settings={**OBSERVED, "kvs.cache": {"kvs": "memory"}, "pyramid.includes": "pyramid_kvs"}
    )
    instrumentation.PyramidInstrumentor().instrument_config(config)
    with_view(get_a)(config)
    app = TestApp(config.make_wsgi_app())
    exporter.clear()
    app.get("/")
    call, request = exporter.get_finished_spans()
    assert call.instrumentation_scope.name == "pyramid_kvs"
    assert request.kind.name == "SERVER"
    assert call.parent.span_id == request.context.span_id


def test_durations_are_a_histogram_in_seconds_with_the_advised_buckets() -> None:
    found = cache(configured({**OBSERVED, "kvs.cache": {"kvs": "memory"}}))
    _reader.get_metrics_data()
    before = _counts()
    for _ in range(5):
        found.get("a")
    assert _counts()["get", "memory"] - before.get(("get", "memory"), 0) == 5


def _counts() -> dict[tuple[str, str], int]:
    """Return how many durations there are by operation and system, and check their form."""
    found: dict[tuple[str, str], int] = {}
    data = _reader.get_metrics_data()
    for resource in data.resource_metrics if data else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics if scope.scope.name == "pyramid_kvs" else ():
                assert (metric.name, metric.unit) == (METRIC, "s")
                for point in metric.data.data_points:
                    assert tuple(point.explicit_bounds) == BUCKETS
                    key = (
                        point.attributes["db.operation.name"],
                        point.attributes["db.system.name"],
                    )
                    found[key] = found.get(key, 0) + point.count
    return found

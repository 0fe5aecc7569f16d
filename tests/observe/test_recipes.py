"""The examples of docs/monitoring.rst, as they are written there."""

from __future__ import annotations

import logging
import socket
from pathlib import Path
from typing import Any

import pytest

from pyramid_kvs import events
from pyramid_kvs.kvs import Operation
from tests.observe.apps import cache, configured, imported, started, with_view
from tests.test_docs import blocks

PAGE = Path(__file__).parents[2] / "docs/monitoring.rst"
MEMORY: dict[str, Any] = {"kvs.cache": {"kvs": "memory"}}


def example(name: str) -> dict[str, Any]:
    """Run the example that defines a name, and return what it defines."""
    (text,) = [block.text for block in blocks(PAGE) if f"def {name}(" in block.text]
    found: dict[str, Any] = {}
    exec(compile(text, str(PAGE), "exec"), found)
    return found


def slow(**values: Any) -> Operation:
    given = Operation("get", "kvs.cache", "redis", "10.0.0.1:6379", 1, 0, 0, 0, 0.25, None, 1, 0)
    return given._replace(**values)


def test_the_first_listener_logs_slow_operations(caplog: pytest.LogCaptureFixture) -> None:
    found = example("log_slow_operations")
    found["config"].make_wsgi_app()
    caplog.set_level(logging.INFO)
    found["log_slow_operations"](slow())
    found["log_slow_operations"](slow(seconds=0.01))
    assert [record.getMessage() for record in caplog.records if record.name == "myapp.stores"] == [
        "get on kvs.cache took 250 ms"
    ]


def test_the_view_for_prometheus_answers_with_the_metrics() -> None:
    view = example("metrics")["metrics"]
    settings = {**MEMORY, "kvs.observe": ["prometheus"]}
    registry = configured(settings, configure=lambda config: None)
    cache(registry).get("a")
    response = view(None)
    assert response.content_type == "text/plain"
    assert "\nkvs_misses_total " in response.text


def test_sentry_gets_a_span_for_each_operation() -> None:
    sentry_sdk = imported("sentry_sdk")
    sent: list[dict[str, Any]] = []

    def keep(event: dict[str, Any], hint: Any) -> None:
        sent.append(event)

    url = "http://public@127.0.0.1:1/1"  # nothing is sent there
    nothing: dict[str, Any] = {"default_integrations": False, "auto_enabling_integrations": False}
    sentry_sdk.init(dsn=url, traces_sample_rate=1.0, before_send_transaction=keep, **nothing)
    try:
        found = cache(configured(MEMORY, configure=example("tell_sentry")["includeme"]))
        with sentry_sdk.start_transaction(name="request"):
            found.set("hunter2", 1)
            found.get("hunter2")
        found.get("outside of a transaction")
    finally:
        sentry_sdk.init(**nothing)
    (transaction,) = sent
    assert [(span["op"], span["description"]) for span in transaction["spans"]] == [
        ("db.memory", "set kvs.cache"),
        ("db.memory", "get kvs.cache"),
    ]
    assert "hunter2" not in str(transaction["spans"])


def test_statsd_gets_times_and_counts() -> None:
    found = example("tell_statsd")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd, found["sender"]:
        statsd.bind(("127.0.0.1", 0))
        statsd.settimeout(60)
        found["STATSD"] = found["tell_statsd"].__globals__["STATSD"] = statsd.getsockname()
        found["tell_statsd"](slow(hits=2, error="KVSUnavailable"))
        lines = statsd.recv(1000).decode().splitlines()
    assert lines == [
        "kvs.cache.get:250.000|ms",
        "kvs.cache.hits:2|c",
        "kvs.cache.errors.KVSUnavailable:1|c",
    ]


def test_refused_requests_are_counted() -> None:
    found = example("count_refused")
    assert found["RateLimitExceeded"] is events.RateLimitExceeded

    def configure(config: Any) -> None:
        with_view(lambda request: "done")(config)
        found["includeme"](config)

    limit = {"kvs": "memory", "by": "address", "limit": 1, "window": 600, "name": "few"}
    app = started({"kvs.ratelimit": limit}, configure=configure)
    for status in (200, 429, 429):
        app.get("/", status=status, extra_environ={"REMOTE_ADDR": "127.0.0.1"})
    assert found["refused"].labels("few")._value.get() == 2

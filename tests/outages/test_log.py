"""What the log says of an outage: why, once a minute, and how long it was."""

from __future__ import annotations

import contextlib
import itertools
import logging
import re
import time
from collections.abc import Callable

import pytest
from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response

from pyramid_kvs.exceptions import KVSUnavailable, SessionTooLarge
from pyramid_kvs.kvs import KVS
from tests.outages.apps import build
from tests.outages.stores import Store, until
from tests.servers import RedisServer


def lines(caplog: pytest.LogCaptureFixture, text: str) -> list[logging.LogRecord]:
    return [record for record in caplog.records if text in record.getMessage()]


@pytest.mark.parametrize("fault", ["hung", "dead"])
def test_one_line_when_the_store_is_back(
    fault: str, frail: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """It says how long the store was unavailable, also where two settings use it."""
    app = build(cache=frail.options(), session=frail.options())
    app.get("/")
    app.get("/visited")
    caplog.clear()
    if fault == "hung":
        frail.server.pause()
    else:
        frail.server.kill()
    began = time.monotonic()
    while time.monotonic() - began < frail.silence + 1.5:
        app.get("/")
        app.get("/visited", status=503)
        time.sleep(0.02)
    frail.server.ensure()
    assert until(lambda: app.get("/visited", status="*").status_int == 200, 6) < 6
    app.get("/")
    away = time.monotonic() - began
    (back,) = lines(caplog, " is back; it was unavailable for ")
    assert back.name == "pyramid_kvs.stores"
    found = re.search(r"^(.+) is back; it was unavailable for ([\d.]+) s$", back.getMessage())
    assert found
    assert f"{frail.server.host}:{frail.server.port}" in found[1] or frail.kvs == "postgresql"
    assert 1 < float(found[2]) <= away + 0.1


def test_unavailable_is_logged_once_a_minute(
    frail: Store, caplog: pytest.LogCaptureFixture
) -> None:
    app = build(cache=frail.options(), session=frail.options())
    app.get("/")
    frail.server.kill()
    caplog.clear()
    for _ in range(20):
        app.get("/")
        app.get("/visited", status=503)
    assert len(lines(caplog, "the store of the cache is unavailable")) == 1
    assert len(lines(caplog, "get a 503")) == 1
    assert len(caplog.records) <= 3


def with_page(view: Callable[[Request], str]) -> Callable[[Configurator], None]:
    """Add a view at ``/changed``, and one for a session that is too large."""

    def add(config: Configurator) -> None:
        config.add_route("changed", "/changed")
        config.add_view(view, route_name="changed", renderer="string")
        config.add_exception_view(
            lambda error, request: Response("too large", status=413), context=SessionTooLarge
        )

    return add


def test_a_failed_save_logs_its_reason(
    own_redis: Callable[..., RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    """Once a minute while the store is unavailable, without the id and the values."""
    server, numbers = own_redis(), itertools.count()

    def view(request: Request) -> str:
        request.session["name"] = f"s3cret value {next(numbers)}"
        return "changed"

    options = {"kvs": "redis", "kvs_kwargs": {"url": server.url}}
    app = build(with_page(view), session=options)
    app.get("/changed")
    session_id = app.cookies["session_id"]
    caplog.clear()
    server.command("CONFIG", "SET", "maxmemory", "1")
    for _ in range(5):
        app.get("/changed", status=503)
    (saved,) = lines(caplog, "not saved")
    assert "maxmemory" in saved.getMessage()
    assert saved.name == "pyramid_kvs.session"
    assert "s3cret" not in caplog.text
    assert session_id not in caplog.text


def test_a_save_that_fails_for_another_reason_is_logged_each_time(
    frail: Store, caplog: pytest.LogCaptureFixture
) -> None:
    def view(request: Request) -> str:
        request.session["name"] = "s3cret" * 1000
        return "changed"

    app = build(with_page(view), session={**frail.options(), "max_bytes": 1000})
    for _ in range(3):
        app.get("/changed", status=413)
    failed = lines(caplog, "not saved")
    assert len(failed) == 3
    assert all("1000" in record.getMessage() for record in failed)
    assert "s3cret" not in caplog.text


def test_no_password_is_logged(
    own_redis: Callable[..., RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    server = own_redis(requirepass="s3cret")
    options = {"kvs": "redis", "kvs_kwargs": {"url": server.url}}
    app = build(cache=options, session=options)
    app.get("/visited")
    server.kill()
    app.get("/")
    app.get("/visited", status=503)
    with contextlib.suppress(KVSUnavailable):
        KVS("redis", {"url": server.url}).get("key")
    assert caplog.records
    assert "s3cret" not in caplog.text

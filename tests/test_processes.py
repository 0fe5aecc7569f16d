"""The warning about a store in memory that several processes do not share."""

from __future__ import annotations

import logging
import multiprocessing
import sys
from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.response import Response
from webtest import TestApp

from tests.servers import RedisServer

MEMORY = {"kvs": "memory"}
LIMIT = {"limit": 9, "window": 60}
WARNING = "the data are in this process's memory"


def make_app(**settings: Any) -> TestApp:
    """Build an application; settings without ``kvs.``."""
    named = {f"kvs.{name}": value for name, value in settings.items()}
    config = Configurator(settings={**named, "pyramid.includes": "pyramid_kvs pyramid_kvs.testing"})
    config.add_view(lambda request: Response("page"))
    return TestApp(config.make_wsgi_app())


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WEB_CONCURRENCY", "GUNICORN_CMD_ARGS"):
        monkeypatch.delenv(name, raising=False)


def warnings(caplog: pytest.LogCaptureFixture) -> int:
    return sum(WARNING in record.getMessage() for record in caplog.records)


def test_one_process_causes_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    make_app(session=MEMORY, cache=MEMORY, ratelimit={**LIMIT, **MEMORY}).get("/")
    assert warnings(caplog) == 0


@pytest.mark.parametrize(
    ("environ", "arguments", "expected"),
    [
        ({"WEB_CONCURRENCY": "2"}, [], 1),
        ({"WEB_CONCURRENCY": "1"}, [], 0),
        ({"WEB_CONCURRENCY": "many"}, [], 0),
        ({"GUNICORN_CMD_ARGS": "--preload --workers=3"}, [], 1),
        ({"GUNICORN_CMD_ARGS": "-w 1"}, [], 0),
        ({}, ["/usr/bin/gunicorn", "-w4", "app:main"], 1),
        ({}, ["/usr/bin/gunicorn", "--workers", "4", "app:main"], 1),
        ({}, ["/usr/bin/gunicorn", "app:main"], 0),
        ({}, ["/usr/bin/pytest", "-w", "4"], 0),
    ],
)
def test_signs_of_several_workers_cause_a_warning_at_the_start(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    environ: dict[str, str],
    arguments: list[str],
    expected: int,
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    if arguments:
        monkeypatch.setattr(sys, "argv", arguments)
    app = make_app(session=MEMORY)
    assert warnings(caplog) == expected
    app.get("/")
    assert warnings(caplog) == expected


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"session": MEMORY}, "kvs.session"),
        ({"cache": {"kvs": "mock"}}, "kvs.cache"),
        ({"perlsess": MEMORY}, "kvs.perlsess"),
        ({"ratelimit": {**LIMIT, **MEMORY}}, "kvs.ratelimit"),
        ({"session": MEMORY, "ratelimit": [LIMIT, {**LIMIT, "name": "two"}]}, "kvs.session"),
        ({"cache": MEMORY, "session": MEMORY}, "kvs.cache, kvs.session"),
    ],
)
def test_one_line_names_the_settings(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    settings: dict[str, Any],
    named: str,
) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "2")
    make_app(**settings).get("/")
    lines = [record for record in caplog.records if WARNING in record.getMessage()]
    assert [(line.name, line.levelno) for line in lines] == [
        ("pyramid_kvs.stores", logging.WARNING)
    ]
    assert lines[0].getMessage().startswith(f"{named}: the data")


def test_a_shared_store_causes_no_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, redis_server: RedisServer
) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "2")
    redis = {"kvs": "redis", "kvs_kwargs": {"url": redis_server.url}}
    make_app(session=redis, cache=redis, ratelimit=LIMIT).get("/")
    assert warnings(caplog) == 0


def test_a_server_with_several_processes_causes_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = make_app(session=MEMORY)
    for _ in range(3):
        app.get("/", extra_environ={"wsgi.multiprocess": True})  # type: ignore[dict-item]
    assert warnings(caplog) == 1


def test_a_forked_worker_warns() -> None:
    """As with gunicorn --preload, where there is no other sign."""
    app = make_app(session=MEMORY)
    context = multiprocessing.get_context("fork")
    queue: Any = context.SimpleQueue()

    def work() -> None:
        messages: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
        logging.getLogger("pyramid_kvs").addHandler(handler)
        app.get("/")
        app.get("/")
        queue.put([WARNING in message for message in messages])

    process = context.Process(target=work)
    process.start()
    assert queue.get() == [True]
    process.join(30)

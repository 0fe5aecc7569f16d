"""``pkvs sessions``: the sessions of a user, from the command line."""

from __future__ import annotations

import json
import re
import sys
import time
import types
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from pyramid.config import Configurator

from pyramid_kvs.events import SessionEnded
from pyramid_kvs.scripts import pkvs
from pyramid_kvs.session import SessionFactory
from pyramid_kvs.session.users import user_digest
from tests.servers import MemcachedServer, free_port
from tests.session.apps import Store, Visit, cookie_of
from tests.session.conftest import make_store

SHARED = ["redis", "memcache", "postgresql"]
LINE = re.compile(r"([0-9a-f]{32})  (\S+Z)  (\S+Z|-)")

Run = Callable[..., int]


@pytest.fixture(params=SHARED)
def store(request: pytest.FixtureRequest) -> Store:
    if request.param == "postgresql":
        pytest.importorskip("psycopg")
    return make_store(request.param, request)


@pytest.fixture
def redis(request: pytest.FixtureRequest) -> Store:
    return make_store("redis", request)


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[SessionEnded]:
    """The events of the application of the ini file, whose stores are observed too."""
    found: list[SessionEnded] = []

    def main(global_config: dict[str, str], **settings: str) -> Any:
        config = Configurator(settings=settings)
        config.include("pyramid_kvs")
        config.add_subscriber(found.append, SessionEnded)
        config.add_kvs_listener(lambda operation: None)
        return config.make_wsgi_app()

    module = types.ModuleType("sessions_application")
    vars(module)["main"] = main
    monkeypatch.setitem(sys.modules, "sessions_application", module)
    return found


@pytest.fixture
def run(tmp_path: Path, ended: list[SessionEnded]) -> Run:
    """Run ``pkvs sessions`` for an application with these sessions; return the exit status."""

    def run(options: dict[str, Any] | None, *arguments: str) -> int:
        setting = "" if options is None else f"kvs.session = {json.dumps(options)}\n"
        path = tmp_path / "site.ini"
        factory = "paste.app_factory = sessions_application:main\n"
        path.write_text(f"[app:main]\n{factory}{setting}")
        return pkvs.main(["sessions", str(path), *arguments])

    return run


def log_in(factory: SessionFactory, user: str | int) -> str:
    """Begin a session of a user; return its id."""
    visit = Visit(factory)
    visit.session.bind(user)
    visit.session["a"] = 1
    session_id = cookie_of(visit.end())
    assert session_id
    return session_id


def test_each_session_has_a_line(
    redis: Store, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    factory, began = redis.factory(), time.time()
    ids = [log_in(factory, "ann") for _ in range(3)]
    log_in(factory, "bob")
    assert run(redis.options, "ann") == 0
    out, err = capsys.readouterr()
    assert err == ""
    found = [LINE.fullmatch(line) for line in out.splitlines()]
    assert len(found) == 3
    for line in found:
        assert line
        assert not any(session_id in line[0] for session_id in ids)
        for moment in (line[2], line[3]):
            assert abs(datetime.fromisoformat(f"{moment[:-1]}+00:00").timestamp() - began) < 600
    listed = factory.users.all(user_digest("ann"), lambda key, record: False)
    assert {line[1] for line in found if line} == {session.handle for session in listed}


def test_numbers_and_strings_are_the_same_user(
    redis: Store, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    log_in(redis.factory(), 7)
    assert run(redis.options, "7") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_sessions_without_expiry_have_no_last_use(
    redis: Store, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    log_in(redis.factory(ttl=None), "ann")
    assert run({**redis.options, "ttl": None}, "ann") == 0
    assert capsys.readouterr().out.endswith("Z  -\n")


def test_a_user_without_sessions(
    redis: Store, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(redis.options, "ann") == 0
    assert capsys.readouterr() == ("", "pkvs: the user has no sessions\n")
    assert run(redis.options, "ann", "--end") == 0
    assert capsys.readouterr().out == "sessions ended: 0\n"


def test_sessions_are_ended(
    store: Store, run: Run, ended: list[SessionEnded], capsys: pytest.CaptureFixture[str]
) -> None:
    factory = store.factory()
    ids = [log_in(factory, "ann") for _ in range(3)]
    other = log_in(factory, "bob")
    assert run(store.options, "ann", "--end") == 0
    if store.kvs == "memcache":
        expected = "all sessions of the user are ended; the store cannot count them\n"
    else:
        expected = "sessions ended: 3\n"
    assert capsys.readouterr() == (expected, "")
    assert all(Visit(factory, session_id).session.new for session_id in ids)
    assert Visit(factory, other).session["a"] == 1
    assert [event.reason for event in ended] == ["ended"] * (1 if store.kvs == "memcache" else 3)


def test_memcached_cannot_list(
    memcached_server: MemcachedServer, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"kvs": "memcache", "kvs_kwargs": {"servers": [memcached_server.url]}}
    assert run(options, "ann") == 1
    expected = "the memcache driver cannot list the sessions of a user: --end ends all of them"
    assert capsys.readouterr() == ("", f"pkvs: {expected}\n")


@pytest.mark.parametrize("arguments", [["ann"], ["ann", "--end"]])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (None, "the setting kvs.session is not set"),
        ({"kvs": "memory"}, "the sessions are in the memory of the server's processes"),
        (
            {"kvs": "redis", "kvs_kwargs": {"url": f"redis://u:s3cret@127.0.0.1:{free_port()}/0"}},
            "redis at 127.0.0.1",
        ),
        ({"kvs": "reddis"}, "did you mean 'redis'"),
    ],
)
def test_what_is_missing(
    options: Any, message: str, arguments: list[str], run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(options, *arguments) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert message in err
    assert "s3cret" not in err


def test_an_empty_user(redis: Store, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(redis.options, "") == 1
    assert "a non-empty string" in capsys.readouterr().err

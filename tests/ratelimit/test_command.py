"""The command ``pkvs limits``."""

from __future__ import annotations

import json
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyramid.paster import get_app
from webtest import TestApp

from pyramid_kvs.scripts import pkvs
from tests.ratelimit import stores
from tests.servers import RedisServer, free_port

INI = "[app:main]\npaste.app_factory = pkvs_limits_application:main\n{settings}\n"
TIGHT = {"limit": 2, "window": 60, "strategy": "gcra", "burst": 1, "add": True}
Write = Callable[..., str]


def main(global_config: dict[str, str], **settings: Any) -> Any:
    """Make an application with a limited view, an exempt view, and a counter of visits."""

    def configure(config: Any) -> None:
        config.add_route("search", "/search")
        config.add_view(stores.hello, route_name="search", ratelimit=TIGHT)
        config.add_view(stores.hello, name="health", ratelimit=False)

    ratelimit = settings.pop("kvs.ratelimit", None)
    session = json.loads(settings.pop("kvs.session", "null"))
    return stores.make_app(ratelimit, session, configure if ratelimit else None).app


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Return a function that writes an ini file with some settings and returns its path."""
    module = types.ModuleType("pkvs_limits_application")
    vars(module)["main"] = main
    monkeypatch.setitem(sys.modules, module.__name__, module)

    def write(**settings: Any) -> str:
        lines = [f"kvs.{name} = {json.dumps(value)}" for name, value in settings.items()]
        path = tmp_path / "development.ini"
        path.write_text(INI.format(settings="\n".join(lines)))
        return str(path)

    return write


def test_the_limits_are_listed_by_view(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    limits = [{}, {"limit": 1000, "window": 86400, "by": "address", "kvs": "memory"}]
    ini = write(session={"kvs": "memory"}, ratelimit=limits)
    assert pkvs.main(["limits", ini]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        "SCOPE",
        *("application", "application"),
        *["route search (hello)"] * 3,
        "view 'health' (hello)",
    ]
    assert lines[1].split() == [
        *("application", "session-1s", "fixed-window", "15", "1", "s", "session", "memory")
    ]
    assert "search-60s" in lines[5]
    assert "gcra (burst 1)" in lines[5]
    assert lines[6].split()[-1] == "exempt"


def test_what_is_special_about_a_limit_is_listed(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    networks = ["10.0.0.0/8", "2001:db8::/32"]
    limits = [
        {"mode": "shadow", "count": "failures", "except": networks},
        {"name": "logins", "count": [401, 403]},
        {"name": "plain"},
    ]
    assert pkvs.main(["limits", write(session={"kvs": "memory"}, ratelimit=limits)]) == 0
    titles, first, second, third, *_ = capsys.readouterr().out.splitlines()
    assert titles.endswith("STORE   NOTES")
    assert first.endswith("memory  shadow, counts failures, except 10.0.0.0/8 2001:db8::/32")
    assert second.endswith("memory  counts 401 403")
    assert third.endswith("memory")


def test_an_application_without_limits_says_so(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pkvs.main(["limits", write(session={"kvs": "memory"})]) == 0
    assert "kvs.ratelimit is not set" in capsys.readouterr().out


def on_redis(server: RedisServer, write: Write, **session: Any) -> tuple[str, TestApp]:
    session = {"kvs": "redis", "kvs_kwargs": {"url": server.url}, **session}
    limits = [{"limit": 2, "window": 600}, {"limit": 2, "window": 60, "by": "user"}]
    ini = write(session=session, ratelimit=limits)
    return ini, TestApp(get_app(ini), extra_environ={"REMOTE_ADDR": "2001:db8::1"})


@pytest.mark.parametrize("hash_keys", [False, True])
def test_the_counters_of_a_session_are_cleared(
    write: Write,
    redis_server: RedisServer,
    capsys: pytest.CaptureFixture[str],
    hash_keys: bool,
) -> None:
    ini, app = on_redis(redis_server, write, hash_keys=hash_keys)
    app.get("/visit")
    app.extra_environ["REMOTE_ADDR"] = "192.0.2.8"
    other = {"REMOTE_ADDR": "192.0.2.9"}
    found = stores.statuses(app, 2) + stores.statuses(app, 1, extra_environ=other)
    assert found == [200, 200, 429]
    session_id = app.cookies["session_id"]
    assert pkvs.main(["limits", ini, "--clear", session_id]) == 0
    out = capsys.readouterr().out
    assert out == "counters removed: 1\n"
    time.sleep(1)  # a process refuses for this long without asking the store
    assert stores.statuses(app, 2, extra_environ=other) == [200, 200]


def test_the_counters_of_an_address_are_cleared(
    write: Write, redis_server: RedisServer, capsys: pytest.CaptureFixture[str]
) -> None:
    ini, app = on_redis(redis_server, write)
    assert stores.statuses(app, 3) == [200, 200, 429]
    assert pkvs.main(["limits", ini, "--clear", "2001:db8::99"]) == 0
    assert capsys.readouterr().out == "counters removed: 2\n"
    time.sleep(1)  # see above
    assert stores.statuses(app, 3) == [200, 200, 429]


def test_the_counters_of_header_tokens_are_cleared(
    write: Write, redis_server: RedisServer, capsys: pytest.CaptureFixture[str]
) -> None:
    session = {"kvs": "redis", "kvs_kwargs": {"url": redis_server.url}}
    session |= {"session_type": "header", "key_name": ["X-Auth-Token", "X-Old"]}
    limits = [{"limit": 2, "window": 600, "unknown": "session"}]
    limits += [{"limit": 9, "window": 600, "by": "header:X-Auth-Token", "name": "h"}]
    ini = write(session=session, ratelimit=limits)
    app = TestApp(get_app(ini))
    headers = {"X-Auth-Token": "token"}
    assert stores.statuses(app, 3, headers=headers) == [200, 200, 429]
    assert pkvs.main(["limits", ini, "--clear", "token"]) == 0
    assert capsys.readouterr().out == "counters removed: 2\n"
    time.sleep(1)  # see above
    assert stores.statuses(app, 3, headers=headers) == [200, 200, 429]


def test_the_output_says_that_memory_cannot_be_cleared(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    ini = write(session={"kvs": "memory"}, ratelimit={"name": "here"})
    assert pkvs.main(["limits", ini, "--clear", "192.0.2.1"]) == 0
    printed = capsys.readouterr().out
    assert "not removed: the counters of here, search-60s, which are in the memory" in printed


def test_an_unavailable_store_is_an_error(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"redis://:s3cret@127.0.0.1:{free_port()}/0"
    ini = write(session={"kvs": "redis", "kvs_kwargs": {"url": url}}, ratelimit={})
    assert pkvs.main(["limits", ini, "--clear", "192.0.2.1"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("pkvs: redis at")
    assert "s3cret" not in error

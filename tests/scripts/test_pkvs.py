"""The ``pkvs`` script with the ini file of an application."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import types
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from pyramid_kvs.scripts import pkvs
from pyramid_kvs.stores import server_of
from tests.servers import PostgresServer, RedisCluster, RedisServer, free_port

APPLICATION = """
from pyramid.config import Configurator
from pyramid_kvs.drivers.memory import MemoryKVS
from pyramid_kvs.kvs import KVS

class OwnKVS(MemoryKVS):
    pass

class BrokenKVS(KVS):
    def raw_set(self, key, value, ttl):
        raise RuntimeError("no reply from redis://u:s3cret@host")

def main(global_config, **settings):
    with Configurator(settings=settings) as config:
        config.include("pyramid_kvs")
        config.add_kvs_driver("own", OwnKVS)
        config.add_kvs_driver("broken", BrokenKVS)
    return config.make_wsgi_app()
"""
INI = """
[app:main]
paste.app_factory = pkvs_application:main
{settings}
"""
Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write an ini file with these settings; return its path."""
    module = types.ModuleType("pkvs_application")
    exec(APPLICATION, vars(module))
    monkeypatch.setitem(sys.modules, "pkvs_application", module)

    def write(template: str = INI, **settings: Any) -> str:
        lines = [f"kvs.{name} = {json.dumps(value)}" for name, value in settings.items()]
        path = tmp_path / "development.ini"
        path.write_text(template.format(settings="\n".join(lines)))
        return str(path)

    return write


def refused_redis() -> dict[str, Any]:
    return {"kvs": "redis", "kvs_kwargs": {"url": f"redis://u:s3cret@127.0.0.1:{free_port()}/0"}}


def postgresql(server: PostgresServer) -> dict[str, Any]:
    return {"kvs": "postgresql", "kvs_kwargs": {"url": server.url}}


# -- ini files -------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["migrate", "ping", "purge"])
def test_missing_file(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert pkvs.main([command, "nowhere.ini"]) == 1
    assert capsys.readouterr().err == "pkvs: nowhere.ini: no such file\n"


def test_missing_argument(capsys: pytest.CaptureFixture[str]) -> None:
    """Variables are optional, and the message does not ask for them."""
    with pytest.raises(SystemExit):
        pkvs.main(["ping"])
    assert capsys.readouterr().err.endswith("arguments are required: INI[#NAME]\n")


def test_missing_section(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    assert pkvs.main(["ping", write() + "#other"]) == 1
    assert "other" in capsys.readouterr().err


def test_refused_setting(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    assert pkvs.main(["ping", write(cache={"kvs": "reddis"})]) == 1
    assert "did you mean 'redis'" in capsys.readouterr().err


def test_refused_setting_in_one_line(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(cache={"kvs": "own", "ttl": "300"})
    assert pkvs.main(["ping", path]) == 1
    expected = 'kvs.cache: ttl: found "300", expected a number of seconds above 0, or null'
    assert capsys.readouterr().err == f"pkvs: {path}: {expected}\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("hunter22\n", "line 1 is before the first [section]"),
        (INI.format(settings="hunter22"), "line 4: expected KEY = VALUE"),
        (INI.format(settings="url = redis://u:hunter%22@host"), "url in [app:main]: write %% for"),
        (INI.format(settings="url = hunter22%(store)s"), "%(store)s has no value"),
        (INI.format(settings="url = 1\nurl = hunter22"), "option 'url' in section 'app:main'"),
        (INI.format(settings="url = hunter22\udcff"), "not UTF-8: invalid start byte"),
    ],
)
def test_broken_file(
    text: str, problem: str, tmp_path: Path, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message has no line of the file, which may hold a password."""
    path = tmp_path / "broken.ini"
    path.write_text(text, "utf-8", "surrogateescape")
    assert pkvs.main(["ping", str(path)]) == 1
    start, _, found = capsys.readouterr().err.partition(f"{path}: ")
    assert start == "pkvs: "
    assert problem in found
    assert "hunter" not in found


def test_no_stores(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    assert pkvs.main(["ping", write()]) == 1
    assert "none of the settings kvs.cache, " in capsys.readouterr().err


def test_section_and_variables(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    template = INI.replace("main]", "other]") + 'kvs.cache = {{"kvs": "%(store)s"}}\n'
    path = write(template)
    assert pkvs.main(["ping", f"{path}#other", "store=own"]) == 0
    assert "kvs.cache  own" in capsys.readouterr().out
    assert pkvs.main(["migrate", f"{path}#other", "--dry-run", "store=own"]) == 0
    assert "kvs.cache (own)" in capsys.readouterr().out
    assert pkvs.main(["ping", f"{path}#other", "store"]) == 1
    assert "expected KEY=VALUE" in capsys.readouterr().err


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        pkvs.main(["pong"])
    assert caught.value.code == 2
    assert "ping" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "pkvs: the following arguments are required: COMMAND"),
        (["pong"], 2, "invalid choice: 'pong' (choose from"),
        (["ping"], 2, "pkvs ping: the following arguments are required: INI[#NAME]"),
        (["ping", "INI", "--verbose"], 2, "unrecognized arguments: --verbose"),
        (["ping", ""], 1, "pkvs: '': no such file"),
        (["ping", "."], 1, "pkvs: .: no such file"),
        (["ping", "INI#other"], 1, "No section 'other'"),
        (["ping", "INI", "port"], 1, "'port' invalid (no \"=\"): expected KEY=VALUE"),
        (["ping", "INI", "=1"], 1, "'=1' invalid (no key): expected KEY=VALUE"),
        (
            ["ping", "ftp://host/site.ini"],
            1,
            'Could not find a matching loader for the scheme "ftp"',
        ),
        (["limits", "INI", "--clear"], 2, "argument --clear: expected one argument"),
        (["sessions", "INI"], 2, "pkvs sessions: the following arguments are required: USER"),
        (["sessions", "INI", "ann", "--end", "port"], 1, "'port' invalid (no \"=\")"),
        (["thaw", "INI", "port=1"], 2, "unrecognized arguments: port=1"),
        (["thaw"], 2, "pkvs thaw: the following arguments are required: FILE"),
        (["thaw", "nowhere"], 1, "pkvs: nowhere: No such file or directory"),
        (["thaw", "INI", "--indent", "two"], 2, "argument --indent: invalid int value: 'two'"),
        (["thaw", "INI", "--encoding", "utf8x"], 1, "Python has no text codec 'utf8x'"),
    ],
    ids=str,
)
def test_wrong_arguments(
    arguments: list[str],
    status: int,
    message: str,
    write: Write,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each is reported in one line, without the usage."""
    path = write(cache={"kvs": "memory"})
    assert exit_status([word.replace("INI", path) for word in arguments]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("pkvs")
    assert len(err.splitlines()) == 1
    assert message in err


def exit_status(arguments: list[str]) -> Any:
    """Run the script as the console does."""
    try:
        return pkvs.main(arguments)
    except SystemExit as ended:
        return ended.code


@pytest.mark.parametrize("factory", ["pkvs_nowhere:main", "pkvs_application:nothing", "egg:none"])
def test_an_application_that_does_not_exist(
    factory: str, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    key = "use" if factory.startswith("egg:") else "paste.app_factory"
    path = write(f"[app:main]\n{key} = {factory}\n")
    assert pkvs.main(["ping", path]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        pkvs.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"pkvs {version('pyramid_kvs')}\n"


def test_console_script(write: Write) -> None:
    """The script that pip installs ends with the exit status, and without a traceback."""
    script = Path(sys.executable).with_name("pkvs")
    done = subprocess.run([script, "ping", "x.ini"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "pkvs: x.ini: no such file\n")


# -- ping ------------------------------------------------------------------------------------


def test_ping_reports_each_store(
    write: Write, redis_server: RedisServer, capsys: pytest.CaptureFixture[str]
) -> None:
    there = {"kvs": "redis", "kvs_kwargs": {"host": "127.0.0.1", "port": redis_server.port}}
    away = refused_redis()
    assert pkvs.main(["ping", write(cache=there, session=away)]) == 1
    ok, failed = capsys.readouterr().out.splitlines()
    assert ok.startswith(f"kvs.cache  redis  127.0.0.1:{redis_server.port}  ")
    assert ok.endswith(" ms  ok")
    address = away["kvs_kwargs"]["url"].partition("@")[2]
    assert failed.startswith(f"kvs.session  redis  redis://***@{address}  failed: ")
    assert "s3cret" not in failed


def test_ping_of_stores_that_answer(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    assert pkvs.main(["ping", write(cache={"kvs": "memory"})]) == 0
    start, _, latency = capsys.readouterr().out.partition("  default  ")
    assert start == "kvs.cache  memory"
    assert 0 <= float(latency.removesuffix(" ms  ok\n")) < 50


def test_ping_shows_no_credentials_of_a_driver(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pkvs.main(["ping", write(cache={"kvs": "broken"})]) == 1
    assert "failed: no reply from redis://***@host" in capsys.readouterr().out


def test_ping_has_a_line_for_each_node(
    write: Write, redis_cluster: RedisCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"kvs": "redis", "kvs_kwargs": {"url": redis_cluster.url}}
    assert pkvs.main(["ping", write(cache=options)]) == 0
    first, *nodes = capsys.readouterr().out.splitlines()
    assert first.endswith(" ms  ok")
    assert len(nodes) == 3
    servers = {f"{node.host}:{node.port}" for node in redis_cluster.nodes}
    assert all(re.fullmatch(r"    (\S+)  ok", line)[1] in servers for line in nodes)  # type: ignore[index]


def test_ping_of_a_service_of_sentinels(
    write: Write, own_redis_sentinel: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    group = own_redis_sentinel(requirepass="s3cret")
    path = write(cache={"kvs": "redis", "kvs_kwargs": {"url": group.url}})
    assert pkvs.main(["ping", path]) == 0
    assert f"redis+sentinel://***@{group.places}/main/0" in capsys.readouterr().out
    path = write(cache={"kvs": "redis", "kvs_kwargs": {"url": group.url.replace("/main", "/mian")}})
    assert pkvs.main(["ping", path]) == 1
    printed = capsys.readouterr().out
    assert "unknown service 'mian' (known: main; did you mean 'main'?)" in printed
    assert "s3cret" not in printed


def test_ping_says_that_a_table_is_missing(
    write: Write, postgres_server: PostgresServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pkvs.main(["ping", write(cache=postgresql(postgres_server))]) == 1
    assert "run 'pkvs migrate'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kwargs", "shown"),
    [
        ({}, "default"),
        ({"host": "db", "password": "s3cret"}, "db"),
        ({"unix_socket_path": "/run/redis"}, "/run/redis"),
        ({"servers": ["a:1", "b:2"]}, "a:1,b:2"),
        ({"servers": ["u:s3cret@a:1", "b:2"]}, "***@a:1,b:2"),
        ({"host": "u:s3cret@db", "port": 1}, "***@db:1"),
        ({"url": "redis://:s3cret@db/0"}, "redis://***@db/0"),
        ({"url": "valkeys+cluster://u:s3cret@a:1,b:2"}, "valkeys+cluster://***@a:1,b:2"),
        (
            {
                "url": "redis+sentinel://u:s3cret@a:1,b:2/main/0",
                "sentinel_kwargs": {"password": "0ther"},
            },
            "redis+sentinel://***@a:1,b:2/main/0",
        ),
        (
            {"url": "postgresql://db/x?user=u&password=s3cret"},
            "postgresql://db/x?user=u&password=***",
        ),
        ({"url": r"host=db password = 's3 \'cret' port=1"}, "host=db password = *** port=1"),
    ],
)
def test_a_server_is_shown_without_credentials(kwargs: dict[str, Any], shown: str) -> None:
    assert server_of(kwargs) == shown


# -- migrate and purge -----------------------------------------------------------------------


def test_migrate(
    write: Write, postgres_server: PostgresServer, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(cache=postgresql(postgres_server), session={"kvs": "memory"})
    assert pkvs.main(["migrate", path, "--dry-run"]) == 0
    output = capsys.readouterr().out
    assert 'CREATE TABLE IF NOT EXISTS "kvs"' in output
    assert "kvs.cache (postgresql): nothing was done" in output
    assert "kvs.session (memory): needs nothing" in output
    assert postgres_server.execute("SELECT to_regclass('kvs')") == [(None,)]
    assert pkvs.main(["migrate", path]) == 0
    assert "kvs.cache (postgresql): ready" in capsys.readouterr().out
    assert postgres_server.execute("SELECT version FROM kvs_version") == [(1,)]
    assert pkvs.main(["migrate", path]) == 0
    assert "CREATE" not in capsys.readouterr().out


def test_purge(
    write: Write, postgres_server: PostgresServer, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(cache={"kvs": "memory"}, session=postgresql(postgres_server))
    pkvs.main(["migrate", path])
    postgres_server.execute(
        "INSERT INTO kvs (key, is_text, data, expires) VALUES ('a', true, '1', now()), "
        "('b', true, '1', now() + interval '1 day')"
    )
    capsys.readouterr()
    assert pkvs.main(["purge", path]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "kvs.cache (memory): removes expired entries by itself",
        "kvs.session (postgresql): 1 expired removed",
    ]


def test_purge_continues_after_an_unavailable_store(
    write: Write, postgres_server: PostgresServer, capsys: pytest.CaptureFixture[str]
) -> None:
    away = {"kvs": "postgresql", "kvs_kwargs": {"url": "postgresql://u:s3cret@127.0.0.1:1/x"}}
    path = write(cache=away, session=postgresql(postgres_server))
    pkvs.main(["migrate", path])
    capsys.readouterr()
    assert pkvs.main(["purge", path]) == 1
    out, err = capsys.readouterr()
    assert "kvs.session (postgresql): 0 expired removed" in out
    assert "kvs.cache (postgresql): no connection to PostgreSQL" in err
    assert "s3cret" not in err

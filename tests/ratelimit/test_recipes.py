"""The recipes of the documentation, run as they are printed."""

from __future__ import annotations

import configparser
import importlib
import re
import sys
import textwrap
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response
from webtest import TestApp

from tests.ratelimit.stores import hello, make_app, policies, statuses
from tests.web_servers import ROOT, WebServer

PAGE = (ROOT / "docs/ratelimit.rst").read_text(encoding="utf-8")
MEMORY = {"kvs": "memory"}
Module = Callable[[str, str], types.ModuleType]


def examples(title: str, language: str) -> list[str]:
    """Return the code blocks of a recipe, as they are on the page."""
    section = re.split(rf"^{title}\n~+\n", PAGE, flags=re.MULTILINE)[1]
    section = re.split(r"^.+\n[~-]{4,}\n", section, flags=re.MULTILINE)[0]
    blocks = re.findall(
        rf"^\.\. code-block:: {language}\n(?:    :class: sketch\n)?\n((?:    .*\n|\n)+)",
        section,
        re.MULTILINE,
    )
    return [textwrap.dedent(block) for block in blocks]


def limits(title: str) -> str:
    (text,) = examples(title, "ini")
    parser = configparser.RawConfigParser()
    parser.read_string(text)
    return parser["app:main"]["kvs.ratelimit"]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Module:
    """Return a function that imports the Python of a recipe under a name."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(title: str, name: str) -> types.ModuleType:
        path = tmp_path / f"{name.replace('.', '/')}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(examples(title, "python")[0])
        for loaded in (name, name.partition(".")[0]):
            monkeypatch.delitem(sys.modules, loaded, raising=False)
        return importlib.import_module(name)

    return make


# -- behind nginx ------------------------------------------------------------------------------


def main(global_config: Any, **settings: Any) -> Any:
    """Make an application that tells the address of the client; the factory of the ini files."""
    config = Configurator(settings={**settings, "kvs.session": MEMORY})
    config.add_route("ready", "/ready")
    config.add_view(hello, route_name="ready", ratelimit=False)
    config.add_route("address", "/")
    config.add_view(
        lambda request: Response(f"{request.remote_addr} {request.scheme}"), route_name="address"
    )
    return config.make_wsgi_app()


class Pserve(WebServer):
    """The server that an ini file names."""

    program = "pserve"

    def __init__(self, ini: str, directory: Path) -> None:
        super().__init__("")
        path = directory / "production.ini"
        path.write_text(
            ini.replace("use = egg:myapp", f"paste.app_factory = {__name__}:main")
            .replace("6543", str(self.port))
            .replace('"limit": 100', '"limit": 2')
            .replace("workers = 4", "workers = 1")  # its memory has the counters
        )
        self.application = str(path)

    def arguments(self) -> list[str]:
        return [self.application]


@pytest.mark.parametrize("number", [0, 1], ids=["waitress", "gunicorn"])
def test_behind_nginx_each_client_has_its_own_limit(number: int, tmp_path: Path) -> None:
    """nginx replaces the header, so that the server gets one address."""
    with Pserve(examples("Behind nginx", "ini")[number], tmp_path) as server:
        for address in ("198.51.100.1", "198.51.100.2", "2001:db8::7"):
            headers = {"X-Forwarded-For": address, "X-Forwarded-Proto": "https"}
            found = [server.get("/", **headers) for _ in range(3)]
            assert [status for status, _ in found] == [200, 200, 429]
            assert found[0][1].decode() == f"{address} https"


@pytest.mark.parametrize(
    ("number", "setting", "without", "expected"),
    [
        (
            0,
            "clear_untrusted_proxy_headers = true",
            "clear_untrusted_proxy_headers = false",
            "trusted_proxy and",
        ),
        (1, "filter-with = proxy", "", "egg:PasteDeploy#prefix"),
    ],
    ids=["waitress", "gunicorn"],
)
def test_without_its_setting_a_server_causes_a_warning(
    number: int, setting: str, without: str, expected: str, tmp_path: Path
) -> None:
    ini = examples("Behind nginx", "ini")[number].replace(setting, without)
    ini = re.sub(r"trusted_proxy\w* = [\d.x].*\n", "", ini)
    with Pserve(ini, tmp_path) as server:
        for number in range(3):
            status, _ = server.get("/", **{"X-Forwarded-For": f"198.51.100.{number}"})
        assert status == 429
        assert server.log.count("does not trust") == 1
        assert expected in server.log


# -- the others --------------------------------------------------------------------------------


def test_by_api_key() -> None:
    app = make_app(limits("By API key"), MEMORY)
    response = app.get("/", headers={"X-API-Key": "one"})
    assert 'key";r=999;' in response.headers["RateLimit"]
    assert 'address";r=99;' in response.headers["RateLimit"]
    response = app.get("/", headers={"X-API-Key": "two"})
    assert 'key";r=999;' in response.headers["RateLimit"]
    assert policies(app.get("/")) == ["address"]
    invented = [app.get("/", headers={"X-API-Key": f"{n}"}, status="*") for n in range(98)]
    assert [response.status_int for response in invented] == [200] * 97 + [429]


def test_login_attempts(module: Module) -> None:
    recipe = module("Login attempts", "login_recipe")

    def configure(config: Configurator) -> None:
        config.add_route("login", "/login")
        config.scan(recipe)

    app = make_app([{"limit": 99, "window": 600}], MEMORY, configure)
    right, wrong = {"password": "correct"}, {"password": "guess"}
    for _ in range(3):
        assert app.post("/login", right).text == "welcome"
    assert [app.post("/login", wrong, status="*").status_int for _ in range(5)] == [401] * 5
    assert app.post("/login", right, status=429)
    assert statuses(app, 1) == [200]


def test_cors(module: Module) -> None:
    recipe = module("CORS", "cors_recipe")
    app = make_app({"limit": 1, "window": 60}, MEMORY, lambda config: config.scan(recipe))
    app.get("/")
    response = app.get("/", status=429)
    assert response.headers["Access-Control-Allow-Origin"] == "https://app.example.org"
    assert "Retry-After" in response.headers["Access-Control-Expose-Headers"]
    assert response.headers["Retry-After"] == "60"
    assert policies(response) == ["session-60s"]


def test_rolling_out_a_limit(caplog: pytest.LogCaptureFixture) -> None:
    app = make_app(limits("Rolling out a limit"), MEMORY)
    assert statuses(app, 70, extra_environ={"REMOTE_ADDR": "10.1.2.3"}) == [200] * 70
    assert caplog.records == []
    assert statuses(app, 70) == [200] * 70
    (line,) = examples("Rolling out a limit", "text")
    assert line.partition(" (41 more")[0] == caplog.records[0].getMessage()


class Users:
    """A security policy with users that have a plan."""

    def identity(self, request: Request) -> Any:
        name = request.params.get("user")
        return name and {"name": name, "plan": "paid" if name == "ann" else "free"}

    def authenticated_userid(self, request: Request) -> Any:
        return request.params.get("user")


def test_tiers(module: Module) -> None:
    module("Tiers", "myapp.tiers")
    app = make_app(limits("Tiers"), MEMORY, lambda config: config.set_security_policy(Users()))
    for query, name, limit in (
        ("", "free", 60),
        ("?user=bob", "free", 60),
        ("?user=ann", "paid", 600),
    ):
        response = app.get(f"/{query}")
        assert policies(response) == [name]
        assert response.headers["X-RateLimit-Limit"] == str(limit)
        assert response.headers["X-RateLimit-Remaining"] == str(limit - 1)


def test_a_page_for_refused_clients(module: Module) -> None:
    recipe = module("A page for refused clients", "page_recipe")

    def configure(config: Configurator) -> None:
        config.scan(recipe)
        config.add_route("search", "/search")
        config.add_view(hello, route_name="search", ratelimit={"limit": 1, "window": 60})

    app: TestApp = make_app({"limit": 1, "window": 60}, MEMORY, configure)
    app.get("/")
    response = app.get("/", status=429)
    assert response.text == "You asked for a page too often. Try again in 60 seconds."
    assert response.headers["Retry-After"] == "60"
    app.get("/search")
    assert "You asked for search too often." in app.get("/search", status=429).text


def test_what_a_page_may_use_before_routing() -> None:
    found: dict[str, Any] = {}

    def page(error: Exception, request: Request) -> Response:
        for name in ("matched_route", "matchdict", "context", "root", "view_name"):
            found[name] = getattr(request, name, "missing")
        found["params"] = dict(request.params)
        found["visits"] = request.session.get("visits")
        found["url"] = request.route_url("hello")
        found["remaining"] = request.ratelimit.remaining
        return Response(status=429)

    def configure(config: Configurator) -> None:
        config.add_exception_view(page, context="pyramid_kvs.ratelimit.RateLimitError")

    app = make_app({"limit": 1, "window": 60, **MEMORY, "by": "address"}, MEMORY, configure)
    app.get("/visit")
    app.get("/?a=b", status=429)
    assert found == {
        **dict.fromkeys(("matched_route", "matchdict")),
        **dict.fromkeys(("context", "root", "view_name"), "missing"),
        "params": {"a": "b"},
        "visits": 1,
        "url": "http://localhost/",
        "remaining": 0,
    }


def test_the_recipes_have_a_test() -> None:
    section = PAGE.partition("\nRecipes\n")[2].partition("\nOptions\n")[0]
    titles = re.findall(r"^(.+)\n~+$", section, re.MULTILINE)
    tests = [name for name in globals() if name.startswith("test_")]
    untested = [
        title
        for title in titles
        if not any(name.startswith("test_" + re.sub(r"\W", "_", title.lower())) for name in tests)
    ]
    assert untested == []

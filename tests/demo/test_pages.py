"""Each page of the demo on each store, without a browser."""

from __future__ import annotations

import configparser
import html
import inspect
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import pytest
from webtest import TestApp, TestResponse

from pyramid_kvs.kvs import KVS
from tests.demo.conftest import need_store
from tests.servers import need_perl, wait_until

from demo.application import main  # isort: skip
from demo.pages import PAGES  # isort: skip
from demo.stores import choose  # isort: skip

HTML = {"Accept": "text/html"}


class Visitor:
    """A browser of the demo that keeps cookies and sends the CSRF token."""

    def __init__(self, app: Any) -> None:
        self.app = TestApp(app)
        self.page("/")

    def page(self, path: str, status: int = 200) -> TestResponse:
        return self.app.get(path, headers=HTML, status=status)

    def get(self, path: str, status: int = 200) -> Any:
        return self.app.get(path, status=status).json

    def post(self, path: str, status: int = 200, **data: Any) -> Any:
        headers = {"X-CSRF-Token": self.app.cookies["demo_csrf"]}
        response = self.app.post_json(path, data, headers=headers, status=status)
        return response.json if response.content_type == "application/json" else None


@pytest.fixture(scope="module", params=["memory", "redis", "memcached", "postgresql"])
def store(request: pytest.FixtureRequest) -> Iterator[Any]:
    need_store(request.param)
    started = choose(request.param)
    try:
        started.start()
        yield started
    finally:
        started.close()


@pytest.fixture
def visitors(store: Any) -> Callable[[], Visitor]:
    """Return a function that makes a new visitor of one application."""
    store.start()
    if store.settings["kvs"] == "memory":
        KVS("memory", {"name": "demo"}).flush()
    app = main(store)
    return lambda: Visitor(app)


@pytest.fixture
def visitor(visitors: Callable[[], Visitor]) -> Visitor:
    return visitors()


def name_of(page: ModuleType) -> str:
    return page.__name__.rpartition(".")[2]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_page_is_complete(visitor: Visitor, store: Any, page: ModuleType) -> None:
    response = visitor.page(page.PATH)
    assert f"<h1>{page.TITLE}</h1>" in response.text
    assert f"<strong>{store.title}</strong>" in response.text
    assert len(response.html.select("nav a")) == len(PAGES) - 1
    assert [link["href"] for link in response.html.select("nav a[aria-current]")] == (
        [page.PATH] if page.CODE else []
    )
    for script in response.html.select("script"):
        visitor.app.get(script["src"], status=200)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_page_needs_nothing_but_files_of_the_demo(visitor: Visitor, page: ModuleType) -> None:
    response = visitor.page(page.PATH)
    policy = response.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert not re.search(r'(src|href)="(https?:)?//|\sstyle="|\son\w+="|<style', response.text)
    assert all(script["src"] and not script.string for script in response.html.select("script"))


@pytest.mark.parametrize("page", [page for page in PAGES if page.CODE], ids=name_of)
def test_settings_and_code_are_those_that_run(
    visitor: Visitor, store: Any, page: ModuleType
) -> None:
    settings, code = (
        html.unescape(element.get_text())
        for element in visitor.page(page.PATH).html.select("aside pre")
    )
    parser = configparser.RawConfigParser()
    parser.read_string(f"[app:main]\n{settings}")
    used = visitor.app.app.registry.settings
    assert {name: json.loads(value) for name, value in parser["app:main"].items()} == {
        name: used[name] for name in page.SETTINGS
    }
    source = inspect.getsource(page)
    assert all(part in source for part in code.split("\n\n"))


@pytest.mark.parametrize("page", [page for page in PAGES if page.CODE], ids=name_of)
def test_controls_have_names(visitor: Visitor, page: ModuleType) -> None:
    found = visitor.page(page.PATH).html
    for button in found.select("button"):
        assert button.get_text(strip=True)
    for field in found.select("input"):
        assert found.select_one(f'label[for="{field["id"]}"]')
    for meter in found.select("[role=meter]"):
        assert meter["aria-label"]
    assert found.select("main [role=status], main output, main dl")


def test_buttons_need_the_token(visitor: Visitor) -> None:
    visitor.app.post_json("/session/add", {"item": "Tea"}, status=400)
    visitor.app.post_json("/outage/store/stop", {}, status=400)
    visitor.app.get("/session/add", status=404)


def test_cache(visitor: Visitor) -> None:
    visitor.post("/cache/delete")
    assert visitor.get("/cache/state") == {"left": 0}
    first = visitor.get("/cache/report")
    assert first["computed"]
    assert visitor.get("/cache/report") == {"number": first["number"], "computed": False}
    state = visitor.get("/cache/state")
    assert state["number"] == first["number"]
    assert 0 < state["left"] <= 31
    visitor.post("/cache/delete")
    assert visitor.get("/cache/state") == {"left": 0}


def test_session(visitor: Visitor) -> None:
    assert visitor.get("/session/state")["id"] == ""
    visitor.post("/session/add", item="Tea")
    visitor.post("/session/add", item="Cup")
    state = visitor.get("/session/state")
    assert state["cart"] == ["Tea", "Cup"]
    assert state["changes"] == 2
    assert state["messages"] == ["Tea is in the cart.", "Cup is in the cart."]
    assert visitor.get("/session/state")["messages"] == []
    visitor.post("/session/id")
    moved = visitor.get("/session/state")
    assert moved["cart"] == ["Tea", "Cup"]
    assert moved["id"] not in ("", state["id"])
    visitor.post("/session/end")
    assert visitor.get("/session/state")["cart"] == []


def test_ten_tabs(visitor: Visitor) -> None:
    """The threads of this process replace the connections of a browser."""

    def add(place: tuple[str, int]) -> None:
        on_conflict, number = place
        tab = TestApp(visitor.app.app, cookiejar=visitor.app.cookiejar)
        headers = {"X-CSRF-Token": visitor.app.cookies["demo_csrf"]}
        tab.post_json(f"/tabs/{on_conflict}/add/{number}", {}, headers=headers, status=200)

    kept = {}
    for on_conflict in ("merge", "overwrite"):
        visitor.post(f"/tabs/{on_conflict}/begin")
        with ThreadPoolExecutor(10) as pool:
            list(pool.map(add, [(on_conflict, number) for number in range(1, 11)]))
        kept[on_conflict] = visitor.get(f"/tabs/{on_conflict}/kept")["kept"]
    assert sorted(kept["merge"]) == list(range(1, 11))
    assert 1 <= len(kept["overwrite"]) < 10


@pytest.mark.parametrize("strategy", ["fixed-window", "sliding-window", "gcra"])
def test_looking_at_a_limit_does_not_count(visitor: Visitor, strategy: str) -> None:
    visitor.post("/session/add", item="Tea")  # limits count by session
    path = f"/limits/{strategy}"
    for _ in range(3):
        assert visitor.app.get(path, status=200).headers["X-RateLimit-Remaining"] == "10"
    visitor.post(path, status=201)
    assert visitor.app.get(path, status=200).headers["X-RateLimit-Remaining"] == "9"


def test_exactly_ten_pass(visitor: Visitor) -> None:
    visitor.post("/session/add", item="Tea")
    statuses = [visitor.app.get("/limits/exact", status="*").status_int for _ in range(12)]
    assert statuses == [200] * 10 + [429] * 2


def test_refused_visitor_sees_a_page_with_a_way_back(visitor: Visitor) -> None:
    visitor.post("/session/add", item="Tea")
    for _ in range(3):
        visitor.page("/limits/page")
    refused = visitor.page("/limits/page", status=429)
    seconds = refused.headers["Retry-After"]
    assert 1 <= int(seconds) <= 20
    assert refused.html.select_one("#seconds")["data-seconds"] == seconds
    assert f'{seconds}</span></p>\n  <p id="wait" role="status">seconds to wait' in refused.text
    back = refused.html.select_one("#back")["href"]
    assert visitor.page(back).html.h1.string == "Limits"
    for page in PAGES:
        visitor.page(page.PATH)
    problem = visitor.app.get("/limits/page", headers={"Accept": "application/json"}, status=429)
    assert problem.content_type == "application/problem+json"


def test_log_out_everywhere(visitors: Callable[[], Visitor], store: Any) -> None:
    here, there = visitors(), visitors()
    for one in (here, there):
        one.post("/login/in", user="zoe")
    sessions = here.get("/login/state")["sessions"]
    if store.title.startswith("memcached"):
        assert sessions is None
    else:
        assert sorted(session["is_current"] for session in sessions) == [False, True]
    ended = here.post("/login/out-everywhere")["ended"]
    assert ended in (2, None)
    for one in (here, there):
        assert one.get("/login/state") == {"user": None, "sessions": []}


def test_log_out_one(visitors: Callable[[], Visitor], store: Any) -> None:
    if store.title.startswith("memcached"):
        pytest.skip("memcached cannot list sessions")
    here, there = visitors(), visitors()
    for one in (here, there):
        one.post("/login/in", user="ada")
    (other,) = (
        session for session in here.get("/login/state")["sessions"] if not session["is_current"]
    )
    here.post("/login/end", handle=other["handle"])
    assert there.get("/login/state")["user"] is None
    assert len(here.get("/login/state")["sessions"]) == 1
    here.post("/login/out")
    assert here.get("/login/state")["user"] is None


def test_record(visitor: Visitor, store: Any) -> None:
    visitor.post("/record/add", note="Buy <tea>")
    response = visitor.app.get("/record/state")
    session, cached = response.json["session"], response.json["cache"]
    assert visitor.app.cookies["demo_session"] not in response.text
    assert re.fullmatch(r"session::[0-9a-f]{8}…", session["key"])
    assert json.loads(session["data"])["notes"] == ["Buy <tea>"]
    assert cached["key"] == "cache::newest note"
    direct = KVS(store.settings["kvs"], store.settings["kvs_kwargs"], "cache::")
    stored = direct.raw_get("newest note")
    assert cached["data"] == (stored if isinstance(stored, str) else stored.decode())
    assert cached["bytes"] == len(cached["data"])
    assert 0 < cached["ttl"] <= 61
    assert 1100 < session["ttl"] <= 1201


def test_perl(visitor: Visitor) -> None:
    assert visitor.get("/perl/state") == {}
    visitor.post("/perl/log-in")
    first = visitor.get("/perl/state")
    assert first["values"]["visits"] == 41
    assert thawed(first["data"]) == "zoe tea 41 "
    visitor.post("/perl/visit")
    second = visitor.get("/perl/state")
    assert second["values"] == {**first["values"], "visits": 42, "seen_by": "pyramid"}
    assert thawed(second["data"]) == "zoe tea 42 pyramid"


def thawed(data: str) -> str:
    """Return what Perl finds in an image."""
    print_it = (
        "my $s = thaw(pack('H*', shift));"
        "print join ' ', $s->{__user}, $s->{cart}[0]{sku}, $s->{visits}, $s->{seen_by} // '';"
    )
    command = [need_perl("Storable"), "-MStorable=thaw", "-e", print_it, data]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("action", ["stop", "pause"])
def test_outage(visitor: Visitor, store: Any, action: str) -> None:
    visitor.get("/outage/session")
    visitor.get("/outage/cache")
    assert visitor.get("/outage/limit") == {"counted": True}
    visitor.post(f"/outage/store/{action}")
    if not store.is_server:
        assert visitor.get("/outage/store")["state"] == "running"
        return

    assert visitor.app.get("/outage/session", status=503).headers["Retry-After"]
    assert visitor.get("/outage/cache") == {"computed": True}
    assert visitor.get("/outage/limit") == {"counted": False}
    stores = visitor.get("/health", status=503)["stores"]
    assert {one["ok"] for one in stores} == {False}
    for page in PAGES:
        visitor.page(page.PATH)

    assert visitor.post("/outage/store/start")["state"] == "running"
    wait_until(
        lambda: visitor.app.get("/outage/session", status="*").status_int == 200, "the session"
    )
    visits = visitor.get("/outage/session")["visits"]
    assert visits > 2 or (action == "stop" and not store.keeps_data)
    wait_until(lambda: visitor.get("/outage/limit")["counted"], "the limit")
    stores = visitor.get("/health")["stores"]
    assert {one["setting"] for one in stores} == {"kvs.cache", "kvs.session", "kvs.perlsess"}

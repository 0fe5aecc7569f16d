"""The panel of the debug toolbar: when it is there, and what it shows."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.request import Request

from pyramid_kvs.application import Application
from pyramid_kvs.debugtoolbar.collecting import COMPARED, SHOWN, collecting
from pyramid_kvs.debugtoolbar.panel import StoresPanel
from pyramid_kvs.session import CookieSession
from tests.debugtoolbar.apps import BOTH, panel, part, rows, site, toolbar_page
from tests.servers import RedisServer
from tests.test_layers import python

MEMORY: dict[str, Any] = {"kvs.cache": {"kvs": "memory"}}
SESSION: dict[str, Any] = {"kvs.session": {"kvs": "memory"}}


def nothing(request: Any) -> str:
    return "nothing"


# -- present or absent -----------------------------------------------------------------------


@pytest.mark.parametrize("includes", [BOTH, BOTH[::-1]])
def test_the_panel_is_there_whichever_is_included_first(includes: list[str]) -> None:
    assert "0 calls" in panel(site(MEMORY, nothing, includes))


def test_the_panel_can_be_named_if_the_toolbar_is_included_after_a_commit() -> None:
    config = Configurator(settings={**MEMORY, "debugtoolbar.includes": "pyramid_kvs.debugtoolbar"})
    config.include("pyramid_kvs")
    config.commit()
    config.include("pyramid_debugtoolbar")
    config.make_wsgi_app()
    assert "debugtoolbar" in Application.of(config.registry).features


@pytest.mark.parametrize(
    ("settings", "includes"),
    [({}, ["pyramid_kvs"]), ({"debugtoolbar.enabled": "false"}, BOTH)],
)
def test_without_a_toolbar_nothing_is_observed(
    settings: dict[str, Any], includes: list[str]
) -> None:
    app = site({**MEMORY, **SESSION, **settings}, nothing, includes)
    application = Application.of(app.app.registry)
    assert application.listeners == []
    assert application.features["kvs.session"].session_class is CookieSession


def test_without_a_toolbar_nothing_of_it_is_imported() -> None:
    program = (
        "import sys; from pyramid.config import Configurator\n"
        "settings = {'pyramid.includes': 'pyramid_kvs', 'kvs.cache': {'kvs': 'memory'}}\n"
        "Configurator(settings=settings).make_wsgi_app()\n"
        "print([name for name in sys.modules if 'debugtoolbar' in name])"
    )
    assert python(program) == "['pyramid_kvs.debugtoolbar']"


def test_two_includes_are_one_panel() -> None:
    config = Configurator(settings=dict(MEMORY))
    config.include("pyramid_debugtoolbar")
    for _ in range(2):
        config.include("pyramid_kvs")
        config.commit()
    config.make_wsgi_app()
    assert len(Application.of(config.registry).listeners) == 1


def test_a_request_that_the_toolbar_does_not_watch_is_not_collected() -> None:
    app = site(MEMORY, lambda request: request.cache.get("a"))
    assert "pShowToolBarButton" not in app.get("/", extra_environ={"REMOTE_ADDR": "10.9.8.7"})
    assert collecting.get() is None


# -- calls -----------------------------------------------------------------------------------


def test_calls_are_listed_in_their_order_with_what_they_found(
    redis_server: RedisServer,
) -> None:
    def view(request: Any) -> None:
        request.cache.set("a", "four")
        request.cache.get("a")
        request.cache.get("b")
        request.cache.get_many(["b", "c", "a"])

    place = {"host": redis_server.host, "port": redis_server.port}
    app = site({"kvs.cache": {"kvs": "redis", "kvs_kwargs": place, "key_prefix": "mine::"}}, view)
    html = panel(app)
    shown = [line[2:10] for line in rows(html, "kvs-calls")]
    assert shown == [
        ["kvs.cache", "set", "mine::", "1", "", "6 B", "0 B", "1"],
        ["kvs.cache", "get", "mine::", "1", "hit", "0 B", "6 B", "1"],
        ["kvs.cache", "get", "mine::", "1", "miss", "0 B", "0 B", "1"],
        ["kvs.cache", "get_many", "mine::", "3", "1 of 3 found (again)", "0 B", "6 B", "1"],
    ]
    (sums,) = rows(html, "kvs-settings")
    assert [sums[0], sums[1], sums[2], *sums[4:]] == (
        ["kvs.cache", "4", "4", "2", "3", "6 B", "12 B", "0"]
    )
    summary = part(html, "kvs-summary")
    assert summary.startswith("4 calls 4 round trips")
    assert summary.endswith("2 hits and 3 misses 6 B sent 12 B received 0 errors")
    assert "2 keys were read more than once, up to 2 times" in html


def test_the_tab_says_how_many_calls_there_were() -> None:
    app = site(MEMORY, lambda request: request.cache.get("a"))
    assert '">1 call, ' in toolbar_page(app)


def test_an_error_is_shown_by_its_class() -> None:
    url = "redis://:hunter2@127.0.0.1:1/0"  # nobody listens there
    settings = {"kvs.cache": {"kvs": "redis", "kvs_kwargs": {"url": url}}}
    html = panel(site(settings, lambda request: request.cache.get("a")))
    (line,) = rows(html, "kvs-calls")
    assert line[6] == "KVSUnavailable"
    assert part(html, "kvs-summary").endswith("1 error")
    assert "hunter2" not in html


def test_a_page_with_very_many_calls_shows_the_first_ones_and_all_sums() -> None:
    def view(request: Any) -> None:
        for _ in range(SHOWN + 5):
            request.cache.set("a", 1)

    html = panel(site(MEMORY, view))
    assert len(rows(html, "kvs-calls")) == SHOWN
    assert part(html, "kvs-summary").startswith(f"{SHOWN + 5} calls")
    assert f"Only the first {SHOWN} calls are shown." in html


def test_what_is_kept_of_a_page_with_very_many_keys_is_bounded() -> None:
    """The toolbar keeps its panels for the last hundred requests."""

    def view(request: Any) -> None:
        keys = [str(number) for number in range(COMPARED + 5)]
        request.cache.get_many(keys)
        collection = collecting.get()
        assert collection is not None
        assert len(collection._reads) == COMPARED
        request.cache.get_many(keys)

    app = site(MEMORY, view)
    assert f"{COMPARED} keys were read more than once, up to 2 times" in panel(app)
    ((_, toolbar),) = app.app.registry.pdtb_history
    (stores,) = [found for found in toolbar.panels if isinstance(found, StoresPanel)]
    assert not stores.calls._reads


def test_calls_after_a_subrequest_are_listed() -> None:
    """The toolbar has another page for the subrequest, which runs its tweens."""

    def view(request: Any) -> None:
        request.cache.get("a")
        if "is_inner" not in request.environ:
            environ = {"REMOTE_ADDR": "127.0.0.1", "is_inner": True}
            request.invoke_subrequest(Request.blank("/", environ=environ), use_tweens=True)
            request.cache.set("a", 1)

    html = panel(site(MEMORY, view))
    assert [line[3] for line in rows(html, "kvs-calls")] == ["get", "set"]
    assert collecting.get() is None


def test_one_request_does_not_see_the_calls_of_another() -> None:
    app = site(MEMORY, lambda request: request.cache.get("a"))
    for _ in range(3):
        assert part(panel(app), "kvs-summary").startswith("1 call ")
    assert collecting.get() is None


def test_names_are_escaped() -> None:
    def view(request: Any) -> None:
        request.session["<script>alert(1)</script>"] = 1

    settings = {**SESSION, "kvs.cache": {"kvs": "memory", "key_prefix": "<b>x</b>"}}

    def both(request: Any) -> None:
        view(request)
        request.cache.get("a")

    html = panel(site(settings, both))
    assert "<script>alert" not in html
    assert "<b>x" not in html
    assert "&lt;b&gt;x" in html


def test_names_that_are_not_unicode_are_shown() -> None:
    """A browser sends a lone surrogate as JSON, for example. No page can have it."""

    def view(request: Any) -> None:
        request.session["a\ud800"] = 1
        request.cache.get("b")

    # Alone, because the toolbar's own panel of the session cannot show such a name.
    panels = {"debugtoolbar.panels": "kvs"}
    settings = {**SESSION, **panels, "kvs.cache": {"kvs": "memory", "key_prefix": "c\ud800"}}
    html = panel(site(settings, view))
    assert "a\\ud800" in html
    assert "c\\ud800" in html


# -- the session -----------------------------------------------------------------------------


def change(request: Any) -> None:
    request.session["colour"] = "hunter2"


def read(request: Any) -> None:
    request.session.get("colour")


def end(request: Any) -> None:
    request.session.invalidate()


@pytest.mark.parametrize(
    ("first", "view", "words"),
    [
        (None, nothing, "The request did not use a session."),
        (None, lambda request: request.session.__class__, "The session was not read."),
        (
            *(None, read),
            "The store had no session for the request, so it began a new one. Nothing was saved.",
        ),
        (
            *(None, change),
            "The store had no session for the request, so it began a new one. The request saved",
        ),
        (change, read, "The store had the session. The request only read it."),
        (
            *(change, lambda request: request.session.update(size=5)),
            "The store had the session. The request saved it.",
        ),
        (change, end, "The request ended its session. Nothing was saved."),
    ],
)
def test_the_state_of_the_session_is_said_in_words(
    first: Callable[[Any], object] | None, view: Callable[[Any], object], words: str
) -> None:
    views = [view] if first is None else [first, view]
    # The toolbar's own panel would read a session that the view only has.
    settings = {**SESSION, "debugtoolbar.panels": "kvs"}
    app = site(settings, lambda request: views.pop(0)(request) if views else None)
    if first is not None:
        app.get("/")
    found = panel(app)
    assert part(found, "kvs-session").startswith(words)
    assert "hunter2" not in found
    assert app.cookies.get("session_id", "no id") not in found


def test_the_size_and_the_names_of_the_values_of_a_session_are_shown() -> None:
    views = [change, read]
    app = site(SESSION, lambda request: views.pop(0)(request))
    app.get("/")
    html = panel(app)
    names = rows(html, "kvs-session-values")
    assert names == [["colour"], ["none"], ["none"]]
    assert " B." in part(html, "kvs-session")


def test_what_was_saved_and_merged_is_shown_by_name() -> None:
    """Another request saves while the view runs."""

    def view(request: Any) -> None:
        if request.params.get("inner"):
            request.session["theirs"] = "hunter2"
            return
        if request.session.get("started"):
            request.session["ours"] = "hunter2"
            other.set_cookie("session_id", app.cookies["session_id"])
            thread = threading.Thread(target=other.get, args=("/?inner=1",))
            thread.start()
            thread.join(60)
        else:
            request.session["started"] = True

    app = site(SESSION, view)
    other = type(app)(app.app, extra_environ={"REMOTE_ADDR": "10.9.8.7"})
    app.get("/")
    html = panel(app)
    kept, saved, merged = [line[0] for line in rows(html, "kvs-session-values")]
    assert sorted(kept.split(", ")) == ["ours", "started", "theirs"]
    assert (saved, merged) == ("ours", "theirs")
    assert "hunter2" not in html


# -- limits ----------------------------------------------------------------------------------


def test_limits_are_shown_with_what_is_left() -> None:
    settings = {
        **SESSION,
        "kvs.ratelimit": [
            {"limit": 5, "window": 600, "name": "calls"},
            {"limit": 9, "window": 600, "by": "address", "name": "trial", "mode": "shadow"},
        ],
    }
    app = site(settings, nothing)
    assert rows(panel(app), "kvs-limits") == [
        ["calls", "5 in 600 s", "session", "passed", "4"],
        ["trial", "9 in 600 s", "address", "counted in shadow mode", ""],
    ]


def test_a_refused_request_shows_the_limit_that_refused_it() -> None:
    settings = {"kvs.ratelimit": {"kvs": "memory", "by": "address", "limit": 1, "window": 600}}
    app = site(settings, nothing)
    app.get("/")
    html = panel(app, status=429, headers={"Accept": "text/html"})
    ((_, rate, by, decision, left),) = rows(html, "kvs-limits")
    assert (rate, by, left) == ("1 in 600 s", "address", "0")
    assert decision.startswith("refused; try again after ")


def test_without_a_limit_the_panel_says_so() -> None:
    assert part(panel(site(MEMORY, nothing)), "kvs-limits") == "No limit counted this request."


def test_the_toolbar_works_without_stores() -> None:
    assert "0 calls" in panel(site({}, nothing))
    assert "pyramid_debugtoolbar" in sys.modules

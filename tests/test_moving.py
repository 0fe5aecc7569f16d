"""What the pages for newcomers from other libraries say about session factories, and about JSON."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError
from pyramid.i18n import TranslationStringFactory
from pyramid.interfaces import ISessionFactory
from pyramid.request import Request
from pyramid.session import SignedCookieSessionFactory
from webtest import TestApp

from pyramid_kvs.session import SessionFactory

from .docpages import ROOT, blocks

MEMORY = {"kvs.session": {"kvs": "memory"}}
_ = TranslationStringFactory("shop")


def module(page: str, caption: str) -> dict[str, Any]:
    """Run an example of a page; return what it defines."""
    (block,) = [b for b in blocks(ROOT / "docs" / f"{page}.rst") if b.caption == caption]
    names: dict[str, Any] = {"__name__": caption}
    exec(block.text, names)
    return names


def addon(config: Configurator) -> None:
    """Register a session factory if there is none, as pyramid_fullauth does."""
    if config.registry.queryUtility(ISessionFactory) is None:
        config.set_session_factory(SignedCookieSessionFactory("secret"))


def test_an_addon_finds_the_factory_after_a_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    fullauth = types.ModuleType("pyramid_fullauth")
    fullauth.includeme = addon  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pyramid_fullauth", fullauth)
    config = Configurator(settings=MEMORY)
    module("faq", "commit.py")["includeme"](config)
    config.make_wsgi_app()
    assert isinstance(config.registry.queryUtility(ISessionFactory), SessionFactory)


def test_without_a_commit_the_start_says_that_there_are_two_factories() -> None:
    config = Configurator(settings=MEMORY)
    config.include("pyramid_kvs")
    config.include(addon)
    with pytest.raises(ConfigurationError, match="another session factory is set too"):
        config.make_wsgi_app()


def test_old_sessions_are_carried_over_once() -> None:
    names = module("moving", "carry_over.py")
    old_sessions = names["old_sessions"]

    def old_login(request: Request) -> str:
        old_sessions(request)["user"] = "ann"
        return ""

    def who(request: Request) -> str:
        return str(request.carried_session.get("user"))

    def log_out(request: Request) -> str:
        request.carried_session.invalidate()
        return ""

    config = Configurator(settings={"kvs.session": {"kvs": "memory", "key_name": "new"}})
    config.include("pyramid_kvs")
    names["includeme"](config)
    for view in (old_login, who, log_out):
        config.add_route(view.__name__, f"/{view.__name__}")
        config.add_view(view, route_name=view.__name__, renderer="string")
    browser = TestApp(config.make_wsgi_app())
    assert browser.get("/who").text == "None"
    browser.get("/old_login")
    assert [browser.get("/who").text for _ in range(2)] == ["ann", "ann"]
    assert "new" in browser.cookies
    browser.get("/log_out")
    assert browser.get("/who").text == "None"


def test_what_json_keeps() -> None:
    def store(request: Request) -> str:
        session = request.session
        session["point"] = (1, 2)
        session["names"] = {1: "one"}
        session.flash(_("Hello ${name}", mapping={"name": "Ann"}))
        session["markup"] = Markup("<b>bold</b>")
        return ""

    def read(request: Request) -> dict[str, Any]:
        session = request.session
        plain = type(session["markup"]) is str
        return {**session, "messages": session.pop_flash(), "plain": plain}

    class Markup(str):
        """As the one of markupsafe."""

        __slots__ = ()

    config = Configurator(settings=MEMORY)
    config.include("pyramid_kvs")
    for view, renderer in ((store, "string"), (read, "json")):
        config.add_route(view.__name__, f"/{view.__name__}")
        config.add_view(view, route_name=view.__name__, renderer=renderer)
    browser = TestApp(config.make_wsgi_app())
    browser.get("/store")
    found = browser.get("/read").json
    assert found["point"] == [1, 2]
    assert found["names"] == {"1": "one"}
    assert found["messages"] == ["Hello ${name}"]
    assert found["plain"] is True

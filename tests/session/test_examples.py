"""The examples of the README and of ``docs/sessions.rst`` lose nothing under load."""

from __future__ import annotations

import importlib
import threading
import types
from pathlib import Path
from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.interfaces import ISessionFactory
from webob import Request

from tests.servers import RedisServer
from tests.session.apps import Visit, cookie_of
from tests.test_docs import ROOT, blocks, kvs_settings

THREADS, REQUESTS, TIMES = 8, 10, 3
#: Of all threads, and one that starts the session.
ALL = THREADS * REQUESTS + 1


def first_block(page: str, language: str) -> str:
    return next(block.text for block in blocks(ROOT / page) if block.language == language)


@pytest.fixture(params=["README.rst", "docs/sessions.rst"])
def page(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def config(page: str, redis_server: RedisServer) -> Configurator:
    """Return the settings of a page, without its rate limit, on a server for tests."""
    ini = first_block(page, "ini").replace("redis://localhost:6379/0", redis_server.url)
    assert redis_server.url in ini
    settings: dict[str, Any] = kvs_settings(ini)
    settings.pop("kvs.ratelimit", None)
    return Configurator(settings=settings)


@pytest.fixture
def module(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Return a module with the code of a page."""
    name = f"example_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(first_block(page, "python"), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module(name)


def application(config: Configurator, module: types.ModuleType) -> Any:
    config.add_route("home", "/")
    if hasattr(module, "home"):
        config.scan(module)
    else:
        config.add_view(module.view, route_name="home", renderer="json")
    return config.make_wsgi_app()


def test_all_visits_and_all_items_of_the_cart_are_kept(
    page: str, config: Configurator, module: types.ModuleType
) -> None:
    app = application(config, module)
    for _ in range(TIMES):
        session = dict(visited_session(app))
        assert session["visits"] == ALL
        if page == "docs/sessions.rst":
            assert session["cart"] == [{"sku": "A1", "count": 2}] * ALL


def visited_session(app: Any) -> Any:
    """Return the session of a browser that has sent all requests."""
    session_id = cookie_of(Request.blank("/").get_response(app))
    assert session_id

    def visit() -> None:
        for _ in range(REQUESTS):
            request = Request.blank("/", headers={"Cookie": f"session_id={session_id}"})
            assert request.get_response(app).status_code == 200

    threads = [threading.Thread(target=visit) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Visit(app.registry.getUtility(ISessionFactory), session_id).session

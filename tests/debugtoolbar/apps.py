"""An application with the debug toolbar, and what its panel shows."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape
from typing import Any

from pyramid.config import Configurator
from pyramid.response import Response
from webtest import TestApp

from pyramid_kvs.application import Application

BOTH = ["pyramid_debugtoolbar", "pyramid_kvs"]


def site(
    settings: dict[str, Any],
    view: Callable[[Any], object],
    includes: list[str] | None = None,
) -> TestApp:
    """Return an application of one view at ``/``, for a client on the same machine."""
    included = BOTH if includes is None else includes
    config = Configurator(settings={"pyramid.includes": included, **settings})
    config.add_route("home", "/")
    config.add_view(lambda request: _page(view, request), route_name="home")
    app = TestApp(config.make_wsgi_app(), extra_environ={"REMOTE_ADDR": "127.0.0.1"})
    for store in Application.of(config.registry).stores:
        store.driver.initialize_schema()
    return app


def _page(view: Callable[[Any], object], request: Any) -> Response:
    return Response(f"<html><body>{view(request)}</body></html>")


def toolbar_page(app: TestApp, path: str = "/", **options: Any) -> str:
    """Visit a page, and return the page of its toolbar."""
    visited = app.get(path, **options)
    link = re.search(r'id="pShowToolBarButton"\s+href="http://localhost([^"]*)"', visited.text)
    assert link is not None
    return str(app.get(link[1]).text)


def panel(app: TestApp, path: str = "/", **options: Any) -> str:
    """Visit a page, and return the HTML of the panel of its toolbar."""
    page = toolbar_page(app, path, **options)
    start = page.index('<div class="kvs-panel">')
    return page[start : page.index("</div>\n</div>", start)]


def rows(html: str, table: str) -> list[list[str]]:
    """Return the cells of the rows of a table, by the table's id."""
    start = html.index(f'id="{table}"')
    body = html[start : html.index("</table>", start)]
    lines = re.findall(r"<tr[^>]*>(.*?)</tr>", body, re.DOTALL)
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", line, re.DOTALL) for line in lines]
    return [[text(cell) for cell in line] for line in cells if line]


def text(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


def part(html: str, identity: str) -> str:
    """Return the text of the element with an id."""
    found = re.search(rf'<(\w+)[^>]*id="{identity}".*?</\1>', html, re.DOTALL)
    assert found is not None
    return text(found[0].partition(">")[2])

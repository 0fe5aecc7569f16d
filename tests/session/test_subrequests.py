"""Subrequests: what one does to the session is seen by the outer request and by the browser."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response
from webtest import TestApp, TestResponse

from tests.session.apps import COOKIE, OPERATIONS, Store, cookie_of, new_session

Operation = list[Any]

#: Limits that count on the store of the sessions load the session before the view runs.
LIMITS: list[dict[str, Any]] = [{}, {"kvs.ratelimit": {"limit": 1000, "window": 60}}]


class Site:
    """An application whose page sends a subrequest between two uses of the session."""

    def __init__(self, store: Store, use_tweens: bool, limit: dict[str, Any]) -> None:
        self.store, self._use_tweens = store, use_tweens
        #: Whether the subrequest has the cookies of the page.
        self.has_cookie = True
        config = Configurator(settings={"kvs.session": store.options, **limit})
        config.include("pyramid_kvs")
        for name, view in (("page", self._page), ("part", self._part)):
            config.add_route(name, f"/{name}")
            config.add_view(view, route_name=name)
        self.app = TestApp(config.make_wsgi_app())
        self.session_id = new_session(store.factory(), name="ann")
        self.app.set_cookie(COOKIE, self.session_id)

    def _page(self, request: Request) -> Response:
        plan = request.json_body
        before = _run(request, plan["before"])
        part = Request.blank("/part", json=plan["part"], method="POST")
        if "Cookie" in request.headers and self.has_cookie:
            part.headers["Cookie"] = request.headers["Cookie"]
        response = request.invoke_subrequest(part, use_tweens=self._use_tweens)
        after = _run(request, plan["after"])
        if plan["returns_part"]:
            return response
        return Response(json={"before": before, "after": after})

    def _part(self, request: Request) -> Response:
        return Response(json=_run(request, request.json_body))

    def ask(
        self,
        part: list[Operation],
        before: list[Operation] | None = None,
        after: list[Operation] | None = None,
        returns_part: bool = False,
    ) -> TestResponse:
        """Ask for the page."""
        plan = {"before": before or [], "after": after or [], "part": part}
        return self.app.post_json("/page", {**plan, "returns_part": returns_part})

    def next(self, *operations: Operation) -> list[Any]:
        """Run operations in another request of the browser."""
        return self.app.post("/part", json.dumps(operations)).json


def _run(request: Request, operations: list[Operation]) -> list[Any]:
    return [OPERATIONS[name](request, *arguments) for name, *arguments in operations]


@pytest.fixture(
    params=list(itertools.product([True, False], LIMITS)),
    ids=["tweens", "tweens, limit", "no tweens", "no tweens, limit"],
)
def site(request: pytest.FixtureRequest, memory: Store) -> Site:
    return Site(memory, *request.param)


LOGIN = [["set", "user", "ann"], ["bind", "ann"], ["regenerate"]]
LOGOUT = [["invalidate"]]
ALL: list[Operation] = [["all"]]

# -- the outer request reads afterwards ------------------------------------------------------


def test_a_change_is_seen(site: Site) -> None:
    response = site.ask([["set", "part", 1]], after=ALL)
    assert response.json["after"] == [{"name": "ann", "part": 1}]


def test_a_logout_is_seen(site: Site) -> None:
    response = site.ask(LOGOUT, after=ALL)
    assert response.json["after"] == [{}]
    assert site.store.driver.get_keys("?" * 40) == []


def test_a_clear_is_seen(site: Site) -> None:
    assert site.ask([["clear"]], after=ALL).json["after"] == [{}]


@pytest.mark.parametrize("after", [ALL, [["set", "page", 1], ["all"]]])
def test_a_login_is_seen(site: Site, after: list[Operation]) -> None:
    response = site.ask(LOGIN, after=after)
    own = {} if after is ALL else {"page": 1}
    assert response.json["after"][-1] == {"name": "ann", "user": "ann", **own}
    assert cookie_of(response) not in (None, "", site.session_id)
    assert site.next(["all"]) == [{"name": "ann", "user": "ann", **own}]


def test_a_new_id_reaches_the_browser_before_the_cookie_is_due(memory: Store) -> None:
    memory.options["cookie_refresh"] = 60
    site = Site(memory, True, {})
    site.ask(LOGIN, after=ALL)
    assert site.next(["all"]) == [{"name": "ann", "user": "ann"}]


@pytest.mark.parametrize("has_cookie", [True, False])
def test_the_end_of_all_sessions_of_the_user_is_seen(site: Site, has_cookie: bool) -> None:
    site.next(["bind", "ann"])
    site.has_cookie = has_cookie
    assert site.ask([["end_all", "ann"]], after=ALL).json["after"] == [{}]


def test_an_explicitly_saved_change_is_seen(site: Site) -> None:
    response = site.ask([["set", "part", 1], ["save"]], after=ALL)
    assert response.json["after"] == [{"name": "ann", "part": 1}]


# -- the outer request has read before -------------------------------------------------------


def test_both_changes_are_kept(site: Site) -> None:
    site.ask([["set", "part", 1]], [["set", "page", 1]], [["set", "after", 1]])
    assert site.next(["all"]) == [{"name": "ann", "page": 1, "part": 1, "after": 1}]


@pytest.mark.parametrize("before", [[["get", "name"]], [["set", "page", 1]]])
@pytest.mark.parametrize("returns_part", [True, False])
def test_a_logout_stays(site: Site, before: list[Operation], returns_part: bool) -> None:
    response = site.ask(LOGOUT, before, [["set", "after", 1]], returns_part)
    assert site.store.driver.get_keys("?" * 40) == []
    if returns_part:
        assert cookie_of(response) == ""
    assert site.next(["all"]) == [{}]


# -- which Set-Cookie reaches the browser ----------------------------------------------------


@pytest.mark.parametrize("before", [[], [["get", "name"]]])
def test_the_cookie_of_a_login_reaches_the_browser(site: Site, before: list[Operation]) -> None:
    response = site.ask(LOGIN, before, returns_part=True)
    assert len(response.headers.getall("Set-Cookie")) == 1
    assert cookie_of(response) not in (None, "", site.session_id)
    assert site.next(["all"]) == [{"name": "ann", "user": "ann"}]


@pytest.mark.parametrize("before", [[], [["get", "name"]]])
def test_the_cookie_of_a_logout_reaches_the_browser(site: Site, before: list[Operation]) -> None:
    response = site.ask(LOGOUT, before, returns_part=True)
    assert [cookie_of(response)] == [""]


@pytest.mark.parametrize("before", [[], [["get", "name"]]])
def test_the_cookie_of_a_new_session_reaches_the_browser(
    site: Site, before: list[Operation]
) -> None:
    site.app.reset()
    response = site.ask([["set", "part", 1]], before, returns_part=True)
    assert len(response.headers.getall("Set-Cookie")) == 1
    assert site.next(["all"]) == [{"part": 1}]

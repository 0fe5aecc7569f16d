"""CSRF tokens, with Pyramid's policies that keep them in the session, through forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.csrf import (
    LegacySessionCSRFStoragePolicy,
    SessionCSRFStoragePolicy,
    get_csrf_token,
)
from pyramid.request import Request
from pyramid.response import Response
from webtest import TestApp

from pyramid_kvs.application import Application
from tests.session.apps import Store, Visit, cookie_of, new_session, overtake

FORM = """<html><body><form id="{id}" action="/{id}" method="post">
<input type="hidden" name="csrf_token" value="{token}"><input type="submit"></form></body></html>"""
TOKEN = {"X-Auth-Token": "a-token-of-the-client"}

POLICIES: list[Callable[[], Any]] = [
    LegacySessionCSRFStoragePolicy,
    SessionCSRFStoragePolicy,
    lambda: SessionCSRFStoragePolicy(key="own_key"),
]


class Site:
    """Pages with a form, whose views check the token of the form."""

    def __init__(self, store: Store, policy: Any, **options: Any) -> None:
        config = Configurator(settings={"kvs.session": {**store.options, **options}})
        config.include("pyramid_kvs")
        config.set_csrf_storage_policy(policy)
        config.set_default_csrf_options(require_csrf=True)
        for name, view in (("send", self.show), ("login", self.log_in), ("logout", self.log_out)):
            config.add_route(name, f"/{name}")
            config.add_view(self.show, route_name=name, request_method="GET")
            config.add_view(view, route_name=name, request_method="POST")
        self.app = TestApp(config.make_wsgi_app())
        self.driver = Application.of(config.registry).stores[0].driver

    def show(self, request: Request) -> Response:
        name = request.matched_route.name
        return Response(FORM.format(id=name, token=get_csrf_token(request)))

    def log_in(self, request: Request) -> Response:
        request.session.regenerate_id()
        return self.show(request)

    def log_out(self, request: Request) -> Response:
        request.session.invalidate()
        return self.show(request)

    def form(self, page: str = "/send", **headers: str) -> Any:
        """Return the form of a page."""
        return self.app.get(page, headers=headers).form


def token_of(form: Any) -> str:
    return form["csrf_token"].value


@pytest.fixture(params=POLICIES, ids=["legacy", "session", "own key"])
def site(request: pytest.FixtureRequest, memory: Store) -> Site:
    return Site(memory, request.param())


def test_a_form_is_accepted_with_its_token(site: Site) -> None:
    form = site.form()
    form.submit(status=200)
    form["csrf_token"] = "another"
    form.submit(status=400)


def test_a_token_stays(site: Site) -> None:
    assert token_of(site.form()) == token_of(site.form()) == token_of(site.form("/login"))


def test_a_new_id_has_a_new_token(site: Site) -> None:
    old = site.form()
    after = site.form("/login").submit(status=200).form
    assert token_of(after) != token_of(old)
    old.submit(status=400)
    site.form().submit(status=200)
    assert token_of(site.form()) == token_of(after)


def test_a_logout_has_a_new_token(site: Site) -> None:
    old = site.form()
    after = site.form("/logout").submit(status=200).form
    assert token_of(after) != token_of(old)
    old.submit(status=400)
    site.form().submit(status=200)


def test_a_new_id_without_a_token_does_not_make_one(memory: Store) -> None:
    site = Site(memory, SessionCSRFStoragePolicy())
    session_id = new_session(memory.factory(), name="ann")
    visit = Visit(memory.factory(), session_id)
    visit.request.registry = site.app.app.registry
    visit.session.regenerate_id()
    new_id = cookie_of(visit.end())
    assert set(memory.record(new_id)) == {"name", "__kvs_created"}  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["cookie", "known header", "new header"])
def test_two_pages_rendered_at_the_same_time(store: Store, kind: str) -> None:
    """The second page is complete before the first one has stored its token."""
    header = {} if kind == "cookie" else TOKEN
    options = {"session_type": "header", "key_name": "X-Auth-Token"} if header else {}
    site = Site(store, LegacySessionCSRFStoragePolicy(), **options)
    if kind == "cookie":
        site.app.set_cookie("session_id", new_session(store.factory(), name="ann"))
    elif kind == "known header":
        visit = Visit(store.factory(**options), **TOKEN)
        visit.session["name"] = "ann"
        visit.end()
    forms = []
    overtake(site.driver, "raw_swap", lambda: forms.append(site.form(**header)), unless="no key")
    forms.append(site.form(**header))
    assert len(forms) == 2
    for form in forms:
        form.submit(status=200, headers=header)
    assert token_of(forms[0]) == token_of(forms[1])


def test_the_first_token_is_a_secret_of_the_session(memory: Store) -> None:
    factory = memory.factory()
    ids = [new_session(factory, name="ann") for _ in range(2)]
    tokens = [Visit(factory, session_id).session.get_csrf_token() for session_id in ids]
    assert len({*tokens, *ids}) == 4
    assert len(tokens[0]) == 40


@pytest.mark.parametrize(
    "change",
    [
        lambda session: session.regenerate_id(),
        lambda session: session.invalidate(),
        lambda session: session.pop("__csrf_token"),
        lambda session: session.clear(),
    ],
)
def test_a_token_after_a_change_is_another_one(memory: Store, change: Any) -> None:
    """An attacker may know the old id, and what is derived from it."""
    factory = memory.factory()
    session_id = new_session(factory, name="ann")
    first = Visit(factory, session_id)
    derived = first.session.get_csrf_token()
    first.end()
    visit = Visit(factory, session_id)
    change(visit.session)
    assert visit.session.get_csrf_token() != derived


def test_a_new_id_before_the_first_token(memory: Store) -> None:
    factory = memory.factory()
    session_id = new_session(factory, name="ann")
    derived = Visit(factory, session_id).session.get_csrf_token()
    visit = Visit(factory, session_id)
    visit.session.regenerate_id()
    assert visit.session.get_csrf_token() != derived

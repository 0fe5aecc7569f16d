"""pyramid_retry: an attempt that is repeated leaves nothing behind."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response
from pyramid_retry import RetryableException, mark_error_retryable
from transaction.interfaces import TransientError
from webtest import TestApp, TestResponse
from zope.interface import classImplementsOnly

from pyramid_kvs.exceptions import SessionConflict
from pyramid_kvs.session import end_sessions
from pyramid_kvs.storable import nfreeze, thaw
from tests.perlsess.sites import Site
from tests.servers import RedisServer
from tests.session.apps import COOKIE, Store, Visit, cookie_of, new_session, overtake

Act = Callable[[Request], Any]

ATTEMPTS = 3
VIEWS = ["no view", "view", "view that changes the session"]


class Conflict:
    """A resource of a transaction, whose commit is refused: another one was first."""

    def __init__(self, manager: Any) -> None:
        self.transaction_manager = manager

    def sortKey(self) -> str:
        return "conflict"

    def nothing(self, transaction: Any) -> None:
        """Do nothing in the other steps of a transaction."""

    def tpc_vote(self, transaction: Any) -> None:
        raise TransientError("another transaction was first")

    abort = tpc_begin = commit = tpc_finish = tpc_abort = nothing


def in_the_view(request: Request) -> None:
    raise RetryableException("again")


def at_the_commit(request: Request) -> None:
    request.tm.get().join(Conflict(request.tm))


FAILURES = [in_the_view, at_the_commit]


class App:
    """An application whose view acts, and then fails in the first attempts.

    :param failing: how many attempts fail.
    :param views: which exception view the application has.
    """

    def __init__(
        self,
        store: Store,
        act: Act,
        failing: int = 1,
        fail: Act = in_the_view,
        views: str = "no view",
        **options: Any,
    ) -> None:
        self.store, self.attempts = store, 0
        self._act, self._failing, self._fail = act, failing, fail
        config = Configurator(settings={"kvs.session": {**store.options, **options}})
        for include in ("pyramid_kvs", "pyramid_retry", "pyramid_tm"):
            config.include(include)
        config.add_view(self._view)
        if views != "no view":
            view = sorry_and_count if "changes" in views else sorry
            config.add_exception_view(view, context=Exception)
        self.browser = TestApp(config.make_wsgi_app())

    def _view(self, request: Request) -> Response:
        self.attempts += 1
        self._act(request)
        if self.attempts <= self._failing:
            self._fail(request)
        return Response("done")

    def log_in(self, **values: Any) -> str:
        """Give the browser the cookie of a stored session; return its id."""
        session_id = new_session(self.store.factory(), **values)
        self.browser.set_cookie(COOKIE, session_id)
        return session_id

    def get(self) -> TestResponse | None:
        """Return the response, or ``None`` if the error reached the server."""
        try:
            return self.browser.get("/", status="*")
        except (RetryableException, TransientError):
            return None

    def stored(self, session_id: str) -> dict[str, Any] | None:
        """Return the values in the store; ``None`` if there is no such session."""
        record = self.store.record(session_id)
        if record is None:
            return None
        return {key: value for key, value in record.items() if not key.startswith("__kvs_")}


def sorry(error: Exception, request: Request) -> Response:
    return Response("sorry", status=500)


def sorry_and_count(error: Exception, request: Request) -> Response:
    request.session["errors"] = request.session.get("errors", 0) + 1
    return sorry(error, request)


def count(request: Request) -> None:
    request.session["visits"] = request.session.get("visits", 0) + 1
    request.session.setdefault("cart", []).append("shoe")
    request.session.flash("it is in your cart")


@pytest.mark.parametrize("failing", range(ATTEMPTS + 1))
@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize("fail", FAILURES)
def test_one_attempt_is_stored(memory: Store, fail: Act, views: str, failing: int) -> None:
    app = App(memory, count, failing, fail, views)
    session_id = app.log_in(cart=["hat"])
    response = app.get()
    assert app.attempts == min(failing + 1, ATTEMPTS)
    once = {"visits": 1, "cart": ["hat", "shoe"], "_f_": ["it is in your cart"]}
    if failing < ATTEMPTS:
        expected = once
    elif views == "no view":
        expected = {"cart": ["hat"]}
    else:
        expected = {**once, "errors": 1} if "changes" in views else once
    assert app.stored(session_id) == expected
    assert (response is None) is (failing == ATTEMPTS and views == "no view")


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize("fail", FAILURES)
@pytest.mark.parametrize("failing", [0, 1, 2])
def test_one_new_session_is_stored(memory: Store, failing: int, fail: Act, views: str) -> None:
    app = App(memory, count, failing, fail, views)
    response = app.get()
    assert response is not None
    assert len(response.headers.getall("Set-Cookie")) == 1
    session_id = cookie_of(response)
    assert memory.driver.get_keys() == [session_id]
    assert session_id is not None
    assert app.stored(session_id)["visits"] == 1  # type: ignore[index]


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize("fail", FAILURES)
@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_login_is_repeated(memory: Store, failing: int, fail: Act, views: str) -> None:
    def log_in(request: Request) -> None:
        request.session["user"] = "ann"
        request.session.bind("ann")
        request.session.regenerate_id()

    app = App(memory, log_in, failing, fail, views)
    old_id = app.log_in(cart=["hat"])
    response = app.get()
    new_id = cookie_of(response)
    assert new_id not in (None, "", old_id)
    assert app.stored(new_id) == {"cart": ["hat"], "user": "ann"}  # type: ignore[arg-type]
    assert not app.stored(old_id)
    count_of_sessions = [key for key in memory.driver.get_keys() if len(key) == len(old_id)]
    assert {new_id} <= set(count_of_sessions) <= {new_id, old_id}


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize("fail", FAILURES)
@pytest.mark.parametrize("failing", range(ATTEMPTS + 1))
@pytest.mark.parametrize("is_read", [True, False])
def test_a_logout_is_repeated(
    memory: Store, is_read: bool, failing: int, fail: Act, views: str
) -> None:
    """Each attempt finds the session; one of them removes it."""
    names: list[str | None] = []

    def log_out(request: Request) -> None:
        if is_read:
            names.append(request.session.get("name"))
        request.session.invalidate()

    app = App(memory, log_out, failing, fail, views)
    session_id = app.log_in(name="ann")
    response = app.get()
    assert names == ["ann"] * app.attempts * is_read
    if response is None:  # the error of the last attempt reached the server
        assert failing == ATTEMPTS
    else:
        assert cookie_of(response) == "" or "changes" in views
    assert app.stored(session_id) is None


def test_a_session_that_follows_a_logout_is_stored_once(memory: Store) -> None:
    def log_out(request: Request) -> None:
        request.session.invalidate()
        request.session.flash("Bye")

    app = App(memory, log_out, failing=2)
    session_id = app.log_in(name="ann")
    new_id = cookie_of(app.get())
    assert memory.driver.get_keys() == [new_id]
    assert app.stored(session_id) is None


def test_an_error_that_is_not_repeated_keeps_the_logout(memory: Store) -> None:
    """The response callbacks do not run then, but the logout has happened."""

    def log_out(request: Request) -> None:
        request.session.invalidate()
        raise ZeroDivisionError

    app = App(memory, log_out)
    session_id = app.log_in(name="ann")
    with pytest.raises(ZeroDivisionError):
        app.get()
    assert app.attempts == 1
    assert app.stored(session_id) is None


def test_a_logout_that_fails_is_answered_503(own_redis: Callable[..., RedisServer]) -> None:
    server = own_redis()
    store = Store("redis", {"url": server.url})

    def log_out(request: Request) -> None:
        request.session.invalidate()
        server.kill()

    app = App(store, log_out, failing=0)
    app.log_in(name="ann")
    response = app.get()
    assert response is not None
    assert response.status_code == 503
    assert app.attempts == 1
    assert cookie_of(response) is None


def test_a_logout_after_the_request_acts_at_once(memory: Store) -> None:
    sessions = []

    def act(request: Request) -> None:
        sessions.append(request.session)
        request.session.get("name")

    app = App(memory, act, failing=0)
    session_id = app.log_in(name="ann")
    app.get()
    gc.collect()
    sessions[0].invalidate()
    assert app.stored(session_id) is None


def test_what_acts_at_once_has_acted(memory: Store) -> None:
    def act(request: Request) -> None:
        request.session["saved"] = request.session.get("saved", 0) + 1
        request.session.save()
        request.session["later"] = request.session.get("later", 0) + 1

    app = App(memory, act, failing=2)
    session_id = app.log_in(name="ann")
    app.get()
    assert app.stored(session_id) == {"name": "ann", "saved": 3, "later": 1}


def test_sessions_of_a_user_end_at_once(memory: Store) -> None:
    names: list[str | None] = []

    def act(request: Request) -> None:
        names.append(request.session.get("name"))
        end_sessions(request, "ann")

    app = App(memory, act)
    visit = Visit(memory.factory())
    visit.session["name"] = "ann"
    visit.session.bind("ann")
    app.browser.set_cookie(COOKIE, cookie_of(visit.end()))
    app.get()
    assert names == ["ann", None]


@pytest.fixture
def retryable_conflicts() -> Iterator[None]:
    """Mark an error of the library as retryable, as an application may."""
    mark_error_retryable(SessionConflict)
    yield
    classImplementsOnly(SessionConflict)


@pytest.mark.usefixtures("retryable_conflicts")
@pytest.mark.parametrize("views", VIEWS)
def test_a_conflict_can_repeat_the_request(memory: Store, views: str) -> None:
    def act(request: Request) -> None:
        request.session["count"] = request.session["count"] + 1
        if app.attempts == 1:

            def save_first() -> None:
                memory.put(session_id, {**memory.record(session_id), "count": 10})  # type: ignore[dict-item]

            overtake(request.session.client, "raw_swap", save_first, unless="other")

    app = App(memory, act, failing=0, views=views, on_conflict="raise")
    session_id = app.log_in(count=1)
    response = app.get()
    assert response is not None
    assert response.status_code == 200
    assert app.attempts == 2
    assert app.stored(session_id) == {"count": 11}


@pytest.mark.parametrize("fail", FAILURES)
@pytest.mark.parametrize("with_view", [True, False])
@pytest.mark.parametrize("failing", [0, 1, 2, 3])
def test_a_perl_session_is_saved_by_one_attempt(failing: int, with_view: bool, fail: Act) -> None:
    attempts = []

    def configure(config: Configurator) -> None:
        config.include("pyramid_retry")
        config.include("pyramid_tm")
        if with_view:
            config.add_exception_view(sorry, context=Exception)

    def act(request: Request) -> None:
        attempts.append(1)
        request.perlsess["count"] += 1
        request.perlsess["cart"].append(1)
        if len(attempts) <= failing:
            fail(request)

    site = Site({"kvs": "memory", "writable": True}, configure)
    site.driver.raw_set("abc", nfreeze({"count": 1, "cart": []}), None)
    try:
        site.get(act, "abc", status="*")
    except (RetryableException, TransientError):
        assert (failing, with_view) == (3, False)
        assert thaw(site.driver.raw_get("abc")) == {"count": 1, "cart": []}
    else:
        assert thaw(site.driver.raw_get("abc")) == {"count": 2, "cart": [1]}

"""A small application. Its view runs the session operations in the JSON body of a request."""

from __future__ import annotations

import itertools
import json
import uuid
from collections.abc import Callable
from typing import Any

from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response
from webtest import TestApp, TestResponse

from pyramid_kvs.kvs import KVS
from pyramid_kvs.session import SessionFactory, end_session, end_sessions, list_sessions

COOKIE = "session_id"
_counter = itertools.count()


class Store:
    """A real store for sessions, which a test can read and change directly."""

    def __init__(self, kvs: str, kvs_kwargs: dict[str, Any]) -> None:
        self.kvs = kvs
        self.options: dict[str, Any] = {
            "kvs": kvs,
            "kvs_kwargs": kvs_kwargs,
            "key_prefix": f"s{next(_counter)}::",
        }
        self.driver = KVS(kvs, kvs_kwargs, self.options["key_prefix"], None)
        self.driver.initialize_schema()

    def __repr__(self) -> str:
        return self.kvs

    def factory(self, **options: Any) -> SessionFactory:
        return SessionFactory({**self.options, **options})

    def app(self, **options: Any) -> TestApp:
        return make_app({**self.options, **options})

    def data(self, key: str) -> str | None:
        """Return the data at a key as a string."""
        data = self.driver.raw_get(key)
        return data.decode() if isinstance(data, bytes) else data

    def record(self, key: str) -> dict[str, Any] | None:
        """Return the stored session, with its metadata."""
        data = self.data(key)
        return None if data is None else json.loads(data)

    def has_session(self, key: str) -> bool:
        """Return whether a key has a session, and not only a marker."""
        record = self.record(key)
        return record is not None and "__kvs_moved" not in record

    def put(self, key: str, record: Any, ttl: float | None = 300) -> None:
        self.driver.raw_set(key, record if isinstance(record, str) else json.dumps(record), ttl)


def memory_options() -> dict[str, Any]:
    return {"name": uuid.uuid4().hex}


def make_app(
    options: Any,
    configure: Callable[[Configurator], None] | None = None,
    **settings: Any,
) -> TestApp:
    """Return the application; a request's body is a list of ``[operation, *arguments]``."""
    config = Configurator(settings={"kvs.session": options, **settings})
    config.include("pyramid_kvs")
    if configure is not None:
        configure(config)
    config.add_route("run", "/")
    config.add_view(run, route_name="run", renderer="json")
    return TestApp(config.make_wsgi_app())


def run(request: Request) -> list[Any]:
    results = []
    for operation, *arguments in request.json_body:
        results.append(OPERATIONS[operation](request, *arguments))
    return results


def do(app: TestApp, *operations: list[Any], **kwargs: Any) -> list[Any]:
    """Run operations in one request; return their results."""
    return send(app, *operations, **kwargs).json


def send(app: TestApp, *operations: list[Any], **kwargs: Any) -> TestResponse:
    return app.post_json("/", list(operations), **kwargs)


def cookie_of(response: Any) -> str | None:
    """Return the session id that a response sets; it is empty if the cookie expires."""
    for header in response.headers.getall("Set-Cookie"):
        name, _, rest = header.partition("=")
        if name == COOKIE:
            return rest.partition(";")[0]
    return None


OPERATIONS: dict[str, Callable[..., Any]] = {
    "get": lambda request, key: request.session.get(key),
    "set": lambda request, key, value: request.session.__setitem__(key, value),
    "delete": lambda request, key: request.session.__delitem__(key),
    "append": lambda request, key, value: request.session[key].append(value),
    "nest": lambda request, key, inner, value: request.session[key].__setitem__(inner, value),
    "incr": lambda request, *args: request.session.incr(*args),
    "all": lambda request: dict(request.session.items()),
    "keys": lambda request: list(request.session),
    "clear": lambda request: request.session.clear(),
    "changed": lambda request: request.session.changed(),
    "save": lambda request: request.session.save(),
    "flash": lambda request, *args: request.session.flash(*args),
    "pop_flash": lambda request, *args: request.session.pop_flash(*args),
    "peek_flash": lambda request, *args: request.session.peek_flash(*args),
    "csrf": lambda request: request.session.get_csrf_token(),
    "invalidate": lambda request: request.session.invalidate(),
    "remember": lambda request, on=True: request.session.remember(on),
    "regenerate": lambda request: request.session.regenerate_id(),
    "bind": lambda request, user: request.session.bind(user),
    "list": lambda request, user: [s._asdict() for s in list_sessions(request, user)],
    "end_all": lambda request, user, keep=False: end_sessions(request, user, keep),
    "end_one": lambda request, user, handle: end_session(request, user, handle),
    "token": lambda request, name, value: request.session.update_session_token(name, value),
    "touch": lambda request: request.session and None,
    "new": lambda request: request.session.new,
    "created": lambda request: request.session.created,
    "key": lambda request: request.session.get_session_key(),
    "unserializable": lambda request, key: request.session.__setitem__(key, object()),
    "nothing": lambda request: None,
}


class Visit:
    """A request that a test runs step by step. ``end`` sends the response, which saves."""

    def __init__(
        self, factory: SessionFactory, session_id: str | None = None, **headers: str
    ) -> None:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if session_id is not None:
            sent["Cookie"] = f"{COOKIE}={session_id}"
        self.request = Request.blank("/", headers=sent)
        self.session = factory(self.request)

    def end(self) -> Response:
        """Send the response; return it."""
        response = Response()
        self.request._process_response_callbacks(response)
        return response


def new_session(factory: SessionFactory, **values: Any) -> str:
    """Store a session and return its id."""
    visit = Visit(factory)
    visit.session.update(values)
    session_id = cookie_of(visit.end())
    assert session_id
    return session_id


def overtake(driver: KVS, method: str, action: Callable[[], object], unless: str) -> None:
    """Run an action just before the first call of a driver's method, like a faster request.

    :param unless: calls for keys that begin with this do not count.
    """
    original = getattr(driver, method)

    def overtaken(key: str, *args: Any, **kwargs: Any) -> Any:
        if not key.startswith(unless):
            setattr(driver, method, original)
            action()
        return original(key, *args, **kwargs)

    setattr(driver, method, overtaken)

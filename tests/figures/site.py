"""An application that uses all features, and a way to call it without a client library."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import Any

from pyramid.config import Configurator
from pyramid.events import NewRequest
from pyramid.request import Request
from pyramid.response import Response
from pyramid_retry import BeforeRetry, RetryableException, is_last_attempt

from pyramid_kvs.events import ISessionEnded, ISessionIdRenewed, ISessionStarted, IStoreBack
from pyramid_kvs.session import end_sessions, list_sessions

COOKIE = "session_id"
MANY = 10**9


def read(request: Request) -> str:
    return str(request.session.get("count"))


def change(request: Request) -> str:
    request.session["count"] = request.session.get("count", 0) + 1
    request.session.setdefault("cart", []).append(request.session["count"])
    request.session["cart"] = request.session["cart"][-3:]
    return "changed"


def flash(request: Request) -> str:
    request.session.flash("hello")
    return str(request.session.pop_flash())


def login(request: Request) -> str:
    request.session["user"] = "zoe"
    request.session.regenerate_id()
    request.session.bind("zoe")
    request.session.get_csrf_token()
    return "in"


def logout(request: Request) -> str:
    request.session.invalidate()
    return "out"


def logout_everywhere(request: Request) -> str:
    if request.registry.settings["kvs.session"]["kvs"] != "memcache":  # it has no lists
        list_sessions(request, "zoe")
    return str(end_sessions(request, "zoe"))


def hit(request: Request) -> str:
    return str(request.cache.get_or_create("hit", lambda: [1, 2], 600))


def miss(request: Request) -> str:
    request.cache.pop("missing", None)
    return str(request.cache.get_or_create("missing", lambda: {"a": 1}, 600))


def cache(request: Request) -> str:
    request.cache.set("key", {"a": 1}, 60)
    request.cache.incr("counter")
    request.cache.set_many({"a": 1, "b": 2}, 60)
    return str([request.cache.get("key"), request.cache.get_many(["a", "b", "c"])])


def failing(request: Request) -> str:
    request.session["count"] = 1
    raise LookupError("a view that fails")


def failed(error: LookupError, request: Request) -> Response:
    return Response("failed", status=500)


def subrequest(request: Request) -> str:
    return request.invoke_subrequest(Request.blank("/change", cookies=request.cookies)).text


def retried(request: Request) -> str:
    request.session["count"] = 1
    if not is_last_attempt(request):
        raise RetryableException
    return "retried"


VIEWS: dict[str, Callable[[Request], str]] = {
    view.__name__: view
    for view in (
        read, change, flash, login, logout, logout_everywhere, hit, miss, cache, failing,
        subrequest, retried,
    )
}  # fmt: skip


class Client:
    """Calls an application as a server does, and keeps the cookie of its session."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.cookie = ""
        self.address = "127.0.0.1"

    def get(self, path: str) -> str:
        """Return the status of the response."""
        found: list[Any] = []
        environ = {
            "REQUEST_METHOD": "GET", "PATH_INFO": path, "SCRIPT_NAME": "", "QUERY_STRING": "",
            "SERVER_NAME": "localhost", "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1",
            "HTTP_HOST": "localhost", "REMOTE_ADDR": self.address, "wsgi.url_scheme": "http",
            "wsgi.version": (1, 0), "wsgi.input": io.BytesIO(), "wsgi.errors": sys.stderr,
            "HTTP_COOKIE": self.cookie,
        }  # fmt: skip
        b"".join(self.app(environ, lambda *head: found.extend(head[:2])))
        for name, value in found[1]:
            if name.lower() == "set-cookie" and value.startswith(COOKIE):
                self.cookie = value.partition(";")[0]
        return str(found[0])


def break_cycles_of_pyramid(event: NewRequest) -> None:
    """Remove the exception from a request that is over, which Pyramid leaves in it.

    Its traceback has the frames that have the request, so each request with an exception view
    leaves a cycle, also without this package.
    """
    event.request.add_finished_callback(lambda request: forget(request, request.exception))


def break_cycles_of_retry(event: BeforeRetry) -> None:
    """Do the same with an attempt that pyramid_retry repeats.

    Pyramid calls no response callback of it, at which the session lets go of its request.
    """
    event.request.response_callbacks.clear()
    vars(event.request).pop("session", None)
    forget(event.request, event.exception)


def forget(request: Request, error: BaseException | None) -> None:
    for name in ("exception", "exc_info"):
        request.__dict__.pop(name, None)
    while error is not None:
        error.__traceback__, error = None, error.__context__


def site(store: dict[str, Any], *, is_observed: bool = True, **settings: Any) -> Any:
    """Return an application with all features on a store."""
    config = Configurator(
        settings={
            "kvs.cache": store,
            "kvs.session": {**store, "ttl": 300, "cookie_secure": False},
            "kvs.ratelimit": {**store, "limit": MANY, "window": 60, "by": "address"},
            "retry.attempts": 2,
            **settings,
        }
    )
    config.include("pyramid_retry")
    config.include("pyramid_kvs")
    config.add_subscriber(break_cycles_of_pyramid, NewRequest)
    config.add_subscriber(break_cycles_of_retry, BeforeRetry)
    if is_observed:
        config.add_kvs_listener(lambda operation: None)
    for event in (ISessionStarted, ISessionEnded, ISessionIdRenewed, IStoreBack):
        config.add_subscriber(lambda event: None, event)
    for name, view in VIEWS.items():
        config.add_route(name, f"/{name}")
        config.add_view(view, route_name=name, renderer="string")
    config.add_route("limited", "/limited", ratelimit={"limit": 1, "window": 600, "by": "address"})
    config.add_view(read, route_name="limited", renderer="string")
    config.add_view(failed, context=LookupError)
    return config.make_wsgi_app()

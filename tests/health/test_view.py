"""The health view: its setting, what it needs and leaves alone, and many requests at once."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from pyramid.authorization import ACLHelper
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError
from pyramid.request import Request
from pyramid.response import Response
from webtest import TestApp

from pyramid_kvs.application import Store
from pyramid_kvs.drivers.memory import MemoryKVS
from pyramid_kvs.exceptions import KVSUnavailable
from pyramid_kvs.health import checks
from pyramid_kvs.health.checks import StoreChecks
from tests.health.apps import PATH, ask, build
from tests.servers import RedisServer, wait_until

MEMORY = {"kvs": "memory"}


# -- the setting -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("/health", 'write an object, for example {"path": "/health"}'),
        ([], 'found [], expected an object, for example {"path": "/health"}'),
        ({}, "'path' is missing"),
        ({"path": "health"}, 'path: found "health", expected a path such as "/health"'),
        ({"path": ""}, 'path: found ""'),
        ({"path": None}, "path: found null"),
        ({"path": 5}, "path: found 5"),
        ({"path": "//health"}, 'path: found "//health"'),
        ({"path": "/{name}"}, 'path: found "/{name}"'),
        ({"path": "/*all"}, "expected a path"),
        ({"path": "http://localhost/health"}, "expected a path"),
        ({"paht": "/health"}, "unknown key 'paht' (known: path; did you mean 'path'?)"),
        ({"url": "/health"}, "did you mean 'path'?"),
    ],
)
def test_refused_settings(value: Any, message: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        build(health=value)
    assert "kvs.health: " in str(raised.value)
    assert message in str(raised.value)


def test_a_misspelled_name() -> None:
    with pytest.raises(ConfigurationError, match=r"did you mean 'kvs\.health'"):
        build(helth={"path": PATH})


def test_set_after_the_include() -> None:
    config = Configurator()
    config.include("pyramid_kvs")
    config.registry.settings["kvs.health"] = '{"path": "/health"}'
    with pytest.raises(ConfigurationError, match=r"kvs\.health was set after"):
        config.make_wsgi_app()


def test_without_the_setting_there_is_no_view() -> None:
    build(health=None).get(PATH, status=404)


@pytest.mark.parametrize(
    ("pattern", "options"),
    [
        (PATH, {}),
        ("health", {}),
        (PATH, {"request_method": "POST"}),
    ],
)
@pytest.mark.parametrize("is_before", [True, False])
def test_a_path_that_is_a_route(is_before: bool, pattern: str, options: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"path: '/health' is a path of the route 'mine'"):
        configured(is_before, pattern, **options)


def configured(is_before: bool, pattern: str, **options: Any) -> TestApp:
    config = Configurator(settings={"kvs.health": {"path": PATH}})
    if not is_before:
        config.include("pyramid_kvs")
    config.add_route("mine", pattern, **options)
    config.add_view(lambda request: Response("mine"), route_name="mine")
    if is_before:
        config.include("pyramid_kvs")
    return TestApp(config.make_wsgi_app())


def test_a_route_that_matches_many_paths() -> None:
    """Before the view it would answer instead, unless its predicates say otherwise."""
    with pytest.raises(ConfigurationError, match="include pyramid_kvs before that route"):
        configured(True, "/{page}")
    ask(configured(False, "/{page}"), 200)
    ask(configured(True, "/{page}", request_method="POST"), 200)
    ask(configured(True, "/{page}", request_param="edit"), 200)
    with pytest.raises(ConfigurationError):
        configured(True, "/{page}", request_method="GET")


def test_the_home_page_may_be_the_path() -> None:
    assert build(health={"path": "/"}).get("/").json == {"stores": []}


def test_the_path_is_absolute_in_an_include_with_a_prefix() -> None:
    config = Configurator(settings={"kvs.health": {"path": PATH}, "kvs.cache": MEMORY})
    config.include("pyramid_kvs", route_prefix="/shop")
    assert len(ask(TestApp(config.make_wsgi_app()), 200)) == 1


# -- the response ----------------------------------------------------------------------------


def test_methods_and_headers() -> None:
    app = build(cache=MEMORY)
    response = app.get(PATH)
    assert response.content_type == "application/json"
    assert response.headers["Cache-Control"] == "no-store"
    assert not {"Set-Cookie", "Vary", "X-RateLimit-Limit"} & set(response.headers)
    head = app.head(PATH)
    assert (head.status_int, head.body) == (200, b"")
    assert head.headers["Cache-Control"] == "no-store"
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert app.request(PATH, method=method, status=405).headers["Allow"] == "GET, HEAD"


class Denied:
    """A security policy that permits nothing and cannot tell who asks."""

    def identity(self, request: Request) -> None:
        raise AssertionError("nobody has to know who asks")

    authenticated_userid = identity

    def permits(self, request: Request, context: Any, permission: str) -> Any:
        return ACLHelper().permits(context, [], permission)


def strict(config: Configurator) -> None:
    """Protect all views, and refuse to find a root."""

    def root_factory(request: Request) -> Any:
        raise AssertionError("a root may need a database")

    config.set_security_policy(Denied())
    config.set_default_permission("view")
    config.set_default_csrf_options(require_csrf=True)
    config.set_root_factory(root_factory)


class ViewsWithContext:
    """A view mapper for applications whose views take the context first."""

    def __init__(self, **kwargs: Any) -> None:
        pass

    def __call__(self, view: Callable[..., Any]) -> Callable[..., Any]:
        return lambda context, request: view(context, request)


def test_a_view_mapper_of_the_application_is_not_for_the_views_of_the_library() -> None:
    def home(context: Any, request: Request) -> None:
        raise KVSUnavailable("down")

    def configure(config: Configurator) -> None:
        config.set_view_mapper(ViewsWithContext)
        config.add_route("home", "/")
        config.add_view(home, route_name="home")

    app = build(configure, cache=MEMORY)
    assert ask(app, 200)
    assert app.get("/", status=503).headers["Retry-After"]


LIMITS: list[Any] = [
    {"limit": 1, "window": 600},
    [{"limit": 1, "window": 600, "by": "address"}, {"limit": 1, "window": 600, "by": "user"}],
    {"limit": 1, "window": 600, "unknown": "session", "count": "failures"},
]


@pytest.mark.parametrize("limits", LIMITS)
def test_no_permission_no_limit_and_no_session(limits: Any, redis_server: RedisServer) -> None:
    store = {"kvs": "redis", "kvs_kwargs": {"port": redis_server.port}}
    app = build(strict, session=store, ratelimit=limits)
    app.set_cookie("session_id", "0" * 40)
    redis_server.command("SET", f"session::{'0' * 40}", '{"a": 1}', "EX", 50)
    for _ in range(3):
        response = app.get(PATH)
        assert not {"Set-Cookie", "Vary", "X-RateLimit-Limit"} & set(response.headers)
    assert app.post(PATH, status=405)
    assert redis_server.command("TTL", f"session::{'0' * 40}") <= 50
    assert redis_server.command("KEYS", "*") == [f"session::{'0' * 40}".encode()]


# -- checks at the same time -----------------------------------------------------------------


class Slow(MemoryKVS):
    """A driver whose check waits for what a test sets."""

    name = "slow"
    started = 0
    wait: Callable[[], object]

    def check(self) -> None:
        type(self).started += 1
        type(self).wait()


@pytest.fixture
def slow() -> type[Slow]:
    return type("Slow", (Slow,), {})


def with_slow(slow: type[Slow], **settings: Any) -> TestApp:
    def configure(config: Configurator) -> None:
        config.add_kvs_driver("slow", slow)

    slow.wait = staticmethod(lambda: None)  # for the check at the start
    app = build(configure, **settings)
    slow.started = 0
    return app


def test_stores_are_checked_at_the_same_time(slow: type[Slow]) -> None:
    """Two checks that wait for each other come to an end."""
    store = {"kvs": "slow"}
    app = with_slow(slow, cache=store, session=store)
    slow.wait = staticmethod(threading.Barrier(2, timeout=60).wait)
    assert [found["ok"] for found in ask(app, 200)] == [True, True]


def waiting() -> int:
    """Return how many threads wait for the result of a check."""
    return sum(_waits(frame) for frame in sys._current_frames().values())


def _waits(frame: Any) -> bool:
    while frame is not None:
        if frame.f_code is checks.RunningCheck.result.__code__:
            return True
        frame = frame.f_back
    return False


def test_requests_at_the_same_time_share_a_check(slow: type[Slow]) -> None:
    app = with_slow(slow, cache={"kvs": "slow"})
    gate = threading.Event()
    slow.wait = staticmethod(lambda: gate.wait(60))
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.extend(ask(app, 200))) for _ in range(8)]
    for thread in threads:
        thread.start()
    wait_until(lambda: waiting() == 8, "all requests")
    gate.set()
    for thread in threads:
        thread.join()
    assert slow.started == 1
    assert [store["ok"] for store in found] == [True] * 8
    ask(app, 200)
    assert slow.started == 2


def test_a_check_that_never_ends(slow: type[Slow], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not ok, does not delay the view for long, and nobody starts it a second time."""
    app = with_slow(slow, cache={"kvs": "slow"}, session=MEMORY)
    monkeypatch.setattr(checks, "LONGEST", 0.05)
    gate = threading.Event()
    slow.wait = staticmethod(lambda: gate.wait(60))
    for _ in range(3):
        first, second = ask(app, 503)
        assert first["reason"] == "the check has not ended within 0.05 s"
        assert first["milliseconds"] > 0
        assert second["ok"] is True
    assert slow.started == 1
    gate.set()
    monkeypatch.undo()
    ask(app, 200)


def test_nobody_waits_for_a_check_that_has_taken_too_long(slow: type[Slow]) -> None:
    """Otherwise a few requests would keep all threads of a server busy."""
    gate = threading.Event()
    slow.wait = staticmethod(lambda: gate.wait(60))
    found = checks.RunningCheck(
        Store("kvs.cache", "kvs.cache", slow("slow"), "default"), lambda: None
    )
    found._began -= checks.LONGEST
    waits: list[float] = []
    found._is_over.wait = waits.append  # type: ignore[assignment]
    assert found.result()["reason"] == "the check has not ended within 5 s"
    assert waits == [0.0]
    gate.set()


class Ended(BaseException):
    """What a server or a library may end a thread with, such as ``gevent.Timeout``."""


def test_a_check_that_is_ended_is_told_by_the_class(slow: type[Slow]) -> None:
    app = with_slow(slow, cache={"kvs": "slow"})

    def end() -> None:
        raise Ended("s3cret")

    slow.wait = staticmethod(end)
    [found] = ask(app, 503)
    assert found["reason"] == "the check raised Ended"


def test_a_driver_may_raise_anything(slow: type[Slow]) -> None:
    app = with_slow(slow, cache={"kvs": "slow"})

    def fail() -> None:
        raise RuntimeError("no reply from redis://u:s3cret@host")

    slow.wait = staticmethod(fail)
    [found] = ask(app, 503)
    assert found["reason"] == "no reply from redis://***@host"


def test_nodes_that_a_driver_tells(slow: type[Slow]) -> None:
    nodes = {"a:1": None, "b:2": "no answer from redis://u:s3cret@b:2"}
    slow.check_nodes = lambda self: nodes  # type: ignore[method-assign]
    app = with_slow(slow, cache={"kvs": "slow"})
    [found] = ask(app, 200)
    assert found["nodes"] == [
        {"server": "a:1", "ok": True, "reason": None},
        {"server": "b:2", "ok": False, "reason": "no answer from redis://***@b:2"},
    ]


def test_a_child_process_checks_by_itself(slow: type[Slow]) -> None:
    """A check of the parent that is running at the fork never ends in the child."""
    driver, gate = slow("slow"), threading.Event()
    slow.wait = staticmethod(lambda: gate.wait(60))
    found = StoreChecks([Store("kvs.cache", "kvs.cache", driver, "default")])
    thread = threading.Thread(target=found.run)
    thread.start()
    wait_until(lambda: slow.started == 1, "the check of the parent")
    pid = os.fork()
    if not pid:
        slow.wait = staticmethod(lambda: None)
        os._exit(0 if found.run()[0]["ok"] else 1)
    gate.set()
    thread.join()
    began = time.monotonic()
    while time.monotonic() - began < 60:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            assert status == 0
            return
        time.sleep(0.01)
    raise AssertionError("the child has not ended")

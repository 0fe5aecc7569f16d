"""The cost of features that a request does not use: ``python -m tests.benchmarks.bench_idle``.

It compares an application with a cache, a session and a Perl session, of which the request uses
none, with a bare Pyramid application.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from pyramid.config import Configurator
from pyramid.response import Response
from webob import Request

ROUNDS = 21
REQUESTS = 2000
STORE = {"kvs": "memory"}
CONFIGURED = {"kvs.cache": STORE, "kvs.session": STORE, "kvs.perlsess": STORE}

App = Callable[[dict[str, Any], Callable[..., None]], Any]


def build(settings: dict[str, Any]) -> App:
    config = Configurator(settings=settings)
    if settings:
        config.include("pyramid_kvs")
    config.add_route("home", "/")
    config.add_view(lambda request: Response("ok"), route_name="home")
    app: App = config.make_wsgi_app()
    return app


def microseconds(app: App) -> float:
    environ = Request.blank("/").environ
    started = time.perf_counter()
    for _ in range(REQUESTS):
        list(app(dict(environ), lambda *args: None))
    return (time.perf_counter() - started) / REQUESTS * 1e6


def main() -> None:
    bare, configured = build({}), build(CONFIGURED)
    microseconds(bare), microseconds(configured)
    pairs = [(microseconds(bare), microseconds(configured)) for _ in range(ROUNDS)]
    ratios = sorted(with_kvs / without for without, with_kvs in pairs)
    print(f"bare request            {statistics.median(pair[0] for pair in pairs):8.1f} us")
    print(f"all configured, unused  {statistics.median(pair[1] for pair in pairs):8.1f} us")
    print(f"ratio, paired           {statistics.median(ratios):8.2f}", end="")
    print(f"  ({ratios[0]:.2f} to {ratios[-1]:.2f} in {ROUNDS} rounds)")


if __name__ == "__main__":
    main()

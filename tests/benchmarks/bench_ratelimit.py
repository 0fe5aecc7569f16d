"""Compare limit checks with the ``limits`` library, and limited requests with the minimum.

::

    python -m tests.benchmarks.bench_ratelimit [--rounds 40]

It starts its own servers and needs ``pip install limits``. The floor is a bare Pyramid
application that runs a minimal script on a plain socket, with as many round trips.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response
from pyramid.tweens import EXCVIEW

from pyramid_kvs.kvs import KVS
from pyramid_kvs.ratelimit import outage
from pyramid_kvs.ratelimit.counting import STRATEGIES, LimitCheck, Rule, request_counter
from pyramid_kvs.ratelimit.store import LimitStore
from tests.benchmarks.bench_kvs import PlainSocket, Row, line, measure
from tests.benchmarks.bench_session import ID, SMALL, caller, change, read
from tests.servers import MemcachedServer, RedisServer

MANY = 1_000_000_000
HOUR = 3600
LIMIT = {"limit": MANY, "window": HOUR}
THREE = [LIMIT, {**LIMIT, "by": "address"}, {**LIMIT, "strategy": "gcra", "name": "smooth"}]

#: The minimum for a limit and a session: count, start the window, read and renew.
FLOOR = """
local count = redis.call('INCR', KEYS[2])
if count == 1 then redis.call('PEXPIRE', KEYS[2], ARGV[2]) end
return {count, redis.call('GETEX', KEYS[1], 'PX', ARGV[1])}
"""


def checks(*rules: Rule) -> list[LimitCheck]:
    return [LimitCheck(rule, f"bench{n}", f"bench{n}") for n, rule in enumerate(rules)]


def rule(strategy: str) -> Rule:
    return Rule(strategy, MANY, HOUR * 1000, MANY)


def check_rows(stack: ExitStack, server: RedisServer) -> Iterator[Row]:
    from limits import RateLimitItemPerHour
    from limits.storage import RedisStorage
    from limits.strategies import FixedWindowRateLimiter, SlidingWindowCounterRateLimiter

    storage = RedisStorage(server.url)
    item = RateLimitItemPerHour(MANY)
    fixed, sliding = FixedWindowRateLimiter(storage), SlidingWindowCounterRateLimiter(storage)
    driver = KVS("redis", {"url": server.url})
    stack.callback(driver.close)
    count = request_counter(driver)

    def hit(found: list[LimitCheck]) -> Callable[[], Any]:
        return lambda: count(found)

    def fixed_and_stats() -> None:
        fixed.hit(item, "bench")
        fixed.get_window_stats(item, "bench")

    one = checks(rule("fixed-window"))
    yield Row("fixed window", hit(one), "limits: hit", lambda: fixed.hit(item, "bench"), 0.6)
    yield Row("fixed window", hit(one), "limits: hit and stats", fixed_and_stats)
    yield Row(
        "sliding window",
        hit(checks(rule("sliding-window"))),
        "limits: hit",
        lambda: sliding.hit(item, "bench"),
    )
    store, refused = (
        LimitStore(driver),
        [LimitCheck(Rule("gcra", 1, HOUR * 1000, 1), "full", "full")],
    )
    yield Row(
        "known offender",
        lambda: outage.count(store, [], refused),
        "limits: hit",
        lambda: fixed.hit(item, "bench"),
    )
    yield Row(
        "three limits",
        hit(checks(*map(rule, STRATEGIES))),
        "limits: three hits",
        lambda: [fixed.hit(item, str(n)) for n in range(3)],
    )


def request_rows(stack: ExitStack, server: RedisServer) -> Iterator[Row]:
    store = {"kvs": "redis", "kvs_kwargs": {"url": server.url}}
    driver = KVS("redis", store["kvs_kwargs"], key_prefix="session::")
    stack.callback(driver.close)
    driver.raw_set(ID, json.dumps({**SMALL, "__kvs_created": time.time()}), 300)
    plain = stack.enter_context(PlainSocket(server))
    sha = server.client.script_load(FLOOR)
    sha = sha.decode() if isinstance(sha, bytes) else sha
    floor = floor_app(plain, sha)
    unlimited, limited = (our_app(store, limits) for limits in (None, LIMIT))
    three = our_app(store, THREE)
    yield Row("reads, one limit", caller(limited, "/read"), "floor", caller(floor, "/read"), 1.1)
    yield Row("reads, one limit", caller(limited, "/read"), "no limit", caller(unlimited, "/read"))
    yield Row("reads, three limits", caller(three, "/read"), "floor", caller(floor, "/read"))
    yield Row(
        "changes, one limit", caller(limited, "/change"), "no limit", caller(unlimited, "/change")
    )


def our_app(store: dict[str, Any], limits: Any) -> Any:
    config = Configurator(settings={"kvs.session": store, "kvs.ratelimit": limits})
    config.include("pyramid_kvs")
    for name, view in (("read", read), ("change", change)):
        config.add_route(name, f"/{name}")
        config.add_view(view, route_name=name)
    return config.make_wsgi_app()


def floor_app(plain: PlainSocket, sha: str) -> Any:
    words = ["EVALSHA", sha, "2", f"session::{ID}", "floor", "300000", str(HOUR * 1000)]
    command = f"*{len(words)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
    packed = command.encode()

    def tween_factory(handler: Any, registry: Any) -> Any:
        def tween(request: Request) -> Response:
            assert ID in request.environ["HTTP_COOKIE"]
            count, _, data = plain.ask(packed).split(b"\r\n")[1:4]
            request.loaded = data
            response = handler(request)
            response.headerlist += [
                ("X-RateLimit-Limit", str(MANY)),
                ("X-RateLimit-Remaining", str(MANY - int(count[1:]))),
            ]
            return response

        return tween

    def view(request: Request) -> Response:
        assert json.loads(request.loaded)["visits"] >= 1
        response = Response("ok")
        response.headerlist.append(("Vary", "Cookie"))
        response.headerlist.append(
            ("Set-Cookie", f"session_id={ID}; Max-Age=300; Path=/; HttpOnly; SameSite=Lax")
        )
        return response

    global floor_tween
    floor_tween = tween_factory
    config = Configurator()
    config.add_tween(f"{__name__}.floor_tween", under=EXCVIEW)
    config.add_route("read", "/read")
    config.add_view(view, route_name="read")
    return config.make_wsgi_app()


floor_tween: Any = None


def memcache_rows(stack: ExitStack, server: MemcachedServer) -> Iterator[Row]:
    from limits import RateLimitItemPerHour
    from limits.storage import storage_from_string
    from limits.strategies import FixedWindowRateLimiter

    driver = KVS("memcache", {"servers": [server.url]})
    stack.callback(driver.close)
    count, one = request_counter(driver), checks(rule("fixed-window"))
    try:
        storage = storage_from_string(f"memcached://{server.url}")
    except Exception as error:
        print(f"no comparison on memcached: {error}")
        return
    limiter, item = FixedWindowRateLimiter(storage), RateLimitItemPerHour(MANY)
    yield Row(
        "memcached",
        lambda: count(one),
        "limits: hit",
        lambda: limiter.hit(item, "bench"),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=25)
    rounds = parser.parse_args().rounds
    print(f"{'':<18} {'µs':>8} {'against':<24} {'µs':>8} {'ratio':>6} {'budget':>22}")
    with ExitStack() as stack:
        server = stack.enter_context(RedisServer())
        memcached = stack.enter_context(MemcachedServer())
        for row in (
            *check_rows(stack, server),
            *request_rows(stack, server),
            *memcache_rows(stack, memcached),
        ):
            print(line(row, measure(row, rounds)), flush=True)


if __name__ == "__main__":
    main()

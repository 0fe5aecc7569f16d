"""The requests and operations of the table, ours and those of other libraries."""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import redis
from pyramid.config import Configurator

from pyramid_kvs.cache import ApplicationCache
from pyramid_kvs.kvs import KVS, observe
from tests.benchmarks.bench_kvs import VALUE
from tests.benchmarks.bench_session import ID, SMALL, bare, build, caller, change, read

#: Who does what a row describes; the first one is the reference of the ratios.
OURS = "pyramid_kvs"

MANY = 1_000_000_000
HOUR = 3600
KEYS = [f"many{number}" for number in range(100)]


class Cost(NamedTuple):
    """Something to measure, by one library.

    :param name: of the row.
    :param is_request: whether it is a whole request of Pyramid.
    """

    name: str
    who: str
    run: Callable[[], object]
    is_request: bool = False


def costs(url: str) -> Iterator[Cost]:
    """Yield everything that can be measured.

    :param url: of an empty redis.
    """
    yield Cost("nothing", "bare Pyramid", caller(build(_configured({}), VIEWS), "/bare"), True)
    yield from _requests(url)
    yield from _cache(url)
    yield from _memory()
    yield from _many(url)
    yield from _limit(url)


# -- requests --------------------------------------------------------------------------------

VIEWS = {"bare": bare, "read": read, "change": change}


def _configured(settings: dict[str, Any]) -> Callable[[Configurator], None]:
    def configure(config: Configurator) -> None:
        config.add_settings(settings)
        if settings:
            config.include("pyramid_kvs")

    return configure


def _requests(url: str) -> Iterator[Cost]:
    store = {"kvs": "redis", "kvs_kwargs": {"url": url}}
    session = {"kvs.session": {**store, "ttl": 300}}
    limit = {"kvs.ratelimit": {**store, "limit": MANY, "window": HOUR}}
    both = {**session, "kvs.ratelimit": {"limit": MANY, "window": HOUR}}
    driver = KVS("redis", store["kvs_kwargs"], "session::")
    driver.raw_set(ID, json.dumps({**SMALL, "__kvs_created": time.time()}), 300)
    for name, settings, path in (
        ("configured, not used", {"kvs.cache": store, **session}, "/bare"),
        ("read", session, "/read"),
        ("change", session, "/change"),
        ("read + limit", both, "/read"),
        ("change + limit", both, "/change"),
        ("limit only", limit, "/bare"),
    ):
        app = build(_configured(settings), VIEWS)
        yield Cost(name, OURS, caller(app, path), True)
        if settings is session and importlib.util.find_spec("pyramid_session_redis"):
            yield Cost(name, "pyramid_session_redis", _session_redis(url, path), True)


def _session_redis(url: str, path: str) -> Callable[[], object]:
    from pyramid_session_redis import session_factory_from_settings

    factory = session_factory_from_settings(
        {
            "redis.sessions.secret": "a secret of the benchmark",
            "redis.sessions.redis_url": url,
            "redis.sessions.timeout": "300",
        }
    )
    app = build(lambda config: config.set_session_factory(factory), {**VIEWS, "start": _start})
    sent: list[str] = []

    def start_response(status: str, headers: list[tuple[str, str]], *_: object) -> None:
        sent.extend(value for name, value in headers if name.lower() == "set-cookie")

    b"".join(app(_environ("/start", ""), start_response))
    cookie = sent[0].partition(";")[0]

    def run() -> None:
        b"".join(app(_environ(path, cookie), lambda *_: None))

    return run


def _environ(path: str, cookie: str) -> dict[str, Any]:
    from tests.benchmarks.bench_session import environ

    return {**environ(path), "HTTP_COOKIE": cookie}


def _start(request: Any) -> Any:
    request.session.update(SMALL)
    return bare(request)


# -- the cache -------------------------------------------------------------------------------


def _cache(url: str) -> Iterator[Cost]:
    cache = ApplicationCache(KVS("redis", {"url": url}, "cache::"))
    client = redis.Redis.from_url(url)
    cache.set("key", VALUE, 600)
    client.set("plain", json.dumps(VALUE))
    yield Cost("cache get", OURS, lambda: cache.get("key"))
    yield Cost("cache get", "redis-py", lambda: json.loads(client.get("plain")))
    region = _region(url)
    if region is not None:
        region.set("key", VALUE)
        yield Cost("cache get", "dogpile.cache", lambda: region.get("key"))
    yield Cost("cache set", OURS, lambda: cache.set("key", VALUE, 600))
    yield Cost("cache set", "redis-py", lambda: client.set("plain", json.dumps(VALUE), ex=600))
    if region is not None:
        yield Cost("cache set", "dogpile.cache", lambda: region.set("key", VALUE))
    driver = KVS("redis", {"url": url}, "cache::")
    observe(driver, "kvs.cache", "", [lambda operation: None])
    observed = ApplicationCache(driver)
    yield Cost("cache get, observed", OURS, lambda: observed.get("key"))
    yield Cost("get_or_create", OURS, lambda: cache.get_or_create("key", _create, 600))
    if region is not None:
        yield Cost("get_or_create", "dogpile.cache", lambda: region.get_or_create("key", _create))


def _create() -> Any:
    return VALUE


def _region(url: str) -> Any:
    if not importlib.util.find_spec("dogpile"):
        return None
    from dogpile.cache import make_region

    region = make_region(
        serializer=lambda value: json.dumps(value).encode(), deserializer=json.loads
    )
    arguments = {"url": url, "distributed_lock": True, "thread_local_lock": False}
    return region.configure("dogpile.cache.redis", expiration_time=600, arguments=arguments)


def _memory() -> Iterator[Cost]:
    cache = ApplicationCache(KVS("memory"))
    cache.set("key", "value", 600)
    yield Cost("memory get", OURS, lambda: cache.get("key"))
    yield from _simple_cache("memory get", lambda simple: simple.get("key"))
    yield Cost("memory set", OURS, lambda: cache.set("key", "value", 600))
    yield from _simple_cache("memory set", lambda simple: simple.set("key", "value", 600))


def _simple_cache(name: str, operation: Callable[[Any], object]) -> Iterator[Cost]:
    if importlib.util.find_spec("cachelib"):
        from cachelib import SimpleCache

        simple = SimpleCache()
        simple.set("key", "value", 600)
        yield Cost(name, "cachelib", lambda: operation(simple))


def _many(url: str) -> Iterator[Cost]:
    driver, client = KVS("redis", {"url": url}), redis.Redis.from_url(url)
    driver.set_many(dict.fromkeys(KEYS, VALUE), 600)
    yield Cost("get of 100 keys", OURS, lambda: driver.get_many(KEYS))
    yield Cost(
        "get of 100 keys", "redis-py", lambda: [json.loads(data) for data in client.mget(KEYS)]
    )


# -- limits ----------------------------------------------------------------------------------


def _limit(url: str) -> Iterator[Cost]:
    from pyramid_kvs.ratelimit.counting import LimitCheck, Rule, request_counter

    count = request_counter(KVS("redis", {"url": url}))
    checks = [LimitCheck(Rule("fixed-window", MANY, HOUR * 1000, MANY), "bench", "bench")]
    yield Cost("one limit check", OURS, lambda: count(checks))
    if importlib.util.find_spec("limits"):
        from limits import RateLimitItemPerHour
        from limits.storage import RedisStorage
        from limits.strategies import FixedWindowRateLimiter

        limiter, item = FixedWindowRateLimiter(RedisStorage(url)), RateLimitItemPerHour(MANY)
        yield Cost("one limit check", "limits", lambda: limiter.hit(item, "bench"))

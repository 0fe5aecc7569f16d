"""A user of redis with exactly the commands and keys of ``docs/security.rst`` can do everything."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.request import Request
from webtest import TestApp

from pyramid_kvs.kvs import KVS
from pyramid_kvs.session import end_sessions, list_sessions
from tests.conformance import SharedConformance
from tests.docpages import ROOT, blocks
from tests.drivers.redis.support import works
from tests.servers import RedisServer, slot_of

NAME = "myapp"
PASSWORD = "CHANGE-ME"


def rule() -> list[str]:
    """Return the words of the rule on the page, after the user's name."""
    (block,) = [b for b in blocks(ROOT / "docs" / "security.rst") if b.caption == "users.acl"]
    words = block.text.split()
    assert words[:2] == ["user", NAME]
    return words[2:]


def allowed() -> set[str]:
    return {word.removeprefix("+") for word in rule() if word.startswith("+")}


def set_user(server: RedisServer, *words: str) -> dict[str, Any]:
    """Define the user; return the arguments of a driver that connects as this user."""
    server.command("ACL", "SETUSER", NAME, "reset", *words)
    server.command("ACL", "LOG", "RESET")
    return {"url": server.url, "username": NAME, "password": PASSWORD}


def denied(server: RedisServer) -> set[str]:
    """Return the commands and keys that were refused, without the optional ones."""
    objects = {entry["object"] for entry in server.client.acl_log()}
    return {name for name in objects if not re.match(r"hello|ping|client", name)}


class TestConformance(SharedConformance):
    """The keys of this suite have their own prefixes, so the user may use all keys."""

    @pytest.fixture
    def store(self, redis_server: RedisServer) -> Iterator[tuple[str, dict[str, Any]]]:
        keys = [word for word in rule() if not word.startswith("~")] + ["~*"]
        yield "redis", set_user(redis_server, *keys)
        assert denied(redis_server) == set()
        redis_server.command("ACL", "DELUSER", NAME)


@pytest.fixture
def server(own_redis: Any, redis_version: str) -> RedisServer:
    return own_redis(version=redis_version)


def application(kvs_kwargs: dict[str, Any], **session: Any) -> TestApp:
    store = {"kvs": "redis", "kvs_kwargs": kvs_kwargs}
    limits = ("fixed-window", "sliding-window", "gcra")
    settings = {
        "kvs.cache": {**store, "on_error": "raise"},
        "kvs.session": {**store, **session},
        "kvs.ratelimit": [
            {"name": name, "strategy": name, "limit": 50, "on_error": "deny"} for name in limits
        ]
        + [{"name": "address", "by": "address", **store, "on_error": "deny"}],
    }
    config = Configurator(settings=settings)
    config.include("pyramid_kvs")
    config.add_route("home", "/")
    config.add_view(use_everything, route_name="home", renderer="json")
    return TestApp(config.make_wsgi_app())


def use_everything(request: Request) -> dict[str, Any]:
    cache, session = request.cache, request.session
    session.incr("visits")
    session.bind("ann")
    session.regenerate_id()
    for key in ("page", "news"):
        cache.get_or_create(key, dict, ttl=60, stale=60)
    cache.set("again", 1, ttl=1)
    cache.get_or_create("again", dict, ttl=1, stale=60)
    cache.set_many({"a": 1, "b": 2})
    cache.incr("count")
    cache.add("lock", 1)
    cache.expire("a", 60)
    cache.ttl("a")
    cache.get_many(["a", "b"])
    cache.delete("b")
    cache.delete_many(["a"])
    names = cache.list_keys()
    found = len(list_sessions(request, "ann"))
    end_sessions(request, "ann", except_current=True)
    request.ratelimit.charge(1)
    return {"keys": len(names), "sessions": found, "served": cache.client.ping()}


def test_a_cluster_needs_the_words_of_the_page(own_redis_cluster: Any) -> None:
    """The slot of a key is being moved, so that ``ASKING`` is needed too."""
    cluster = own_redis_cluster(replicas=0)
    (block,) = [
        b for b in blocks(ROOT / "docs" / "security.rst") if b.caption == "users.acl of a node"
    ]
    for node in cluster.nodes:
        set_user(node, *rule(), *block.text.split())
    kvs_kwargs = {"url": cluster.url, "username": NAME, "password": PASSWORD}
    driver = KVS("redis", kvs_kwargs, "cache::")
    assert works(driver)
    assert driver.raw_claim("{key", 1, 9).owner
    driver.set("key", 1)
    slot, source = slot_of("cache::key"), cluster.primary_of("cache::key")
    target = next(node for node in cluster.primaries() if node is not source)
    cluster.begin_move([slot], source, target)
    cluster.move_keys([slot], source, target)
    assert driver.get("key") == 1
    assert driver.ping()
    assert [denied(node) for node in cluster.nodes] == [set()] * 3


@pytest.mark.parametrize("hash_keys", [False, "accept", "migrate", True])
def test_all_features_work_with_the_commands_and_keys_of_the_page(
    server: RedisServer, hash_keys: object
) -> None:
    browser = application(set_user(server, *rule()), hash_keys=hash_keys)
    for _ in range(3):
        assert browser.get("/").json["served"] is True

    assert denied(server) == set()


def test_every_command_of_the_page_is_used(server: RedisServer) -> None:
    kvs_kwargs = set_user(server, *rule())
    browser = application(kvs_kwargs)
    browser.get("/")
    forever = KVS("redis", kvs_kwargs, "cache::", ttl=None)
    forever.set("key", 1)
    forever.expire("key", None)
    server.command("SCRIPT", "FLUSH")
    browser.get("/")
    used = {name.removeprefix("cmdstat_") for name in server.client.info("commandstats")}
    assert allowed() - used == set()
